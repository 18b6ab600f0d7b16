"""A machine of the lab as a node of the cluster: its agent, its part in elections, its heartbeat.

The agent can be started again as on a real node, where its process ends and another one begins: what the new one knows comes from the
API, from the kernel, and from the runtime, which knows what is attached. Who wants that writes the node's annotation `restart-agent`;
the answer stands in `agent-restarted`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from podplane.agent.agent import Agent
from podplane.agent.election import Election
from podplane.agent.features import PeerPlans
from podplane.agent.health import NodeHealth
from podplane.agent.reconciler import Trouble
from podplane.apiserver.server import utc_now
from podplane.cni.network import Attachment
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import Recorder
from podplane.lab.fabric import Machine
from podplane.model.config import RESTART, RESTARTED, NetworkConfig
from podplane.model.lease import Lease
from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service
from podplane.runtime.heartbeat import Heartbeat
from podplane.runtime.kubelet import Kubelet
from podplane.state.operations import Report

log = logging.getLogger(__name__)
Attached = tuple[Attachment, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Caches:
    """The caches of the process, by path."""

    nodes: Mapping[str, Node]
    services: Mapping[str, Service]
    slices: Mapping[str, EndpointSlice]
    leases: Mapping[str, Lease]


class LabNode:
    """One node; its methods run on one event loop."""

    kubelet: Kubelet

    def __init__(
        self,
        name: str,
        machine: Machine,
        config: NetworkConfig,
        peers: PeerPlans,
        client: Client,
        picture: Caches,
        trouble: Trouble,
    ) -> None:
        self.name = name
        self.machine = machine
        self.client = client
        self.heartbeat = Heartbeat(client, picture.nodes[name], utc_now)
        self._config = config
        self._peers = peers
        self._picture = picture
        self._trouble = trouble
        self._recorder = Recorder(client, "podplane", utc_now, name)
        self._wish = picture.nodes[name].metadata.annotations.get(RESTART, "")
        self._restart = asyncio.Event()
        self.agent: Agent
        self.election: Election
        self.health: NodeHealth

    def begin(self, attached: Iterable[Attached] = ()) -> Report:
        """Start the agent: with the cluster as it is, and pods that are attached already. What it wrote to the kernel."""
        self.agent = Agent(self.name, self._config, self.machine.kernel, self._peers, trouble=self._trouble)
        self.election = Election(self.agent, self.client, self._recorder, utc_now)
        self.health = NodeHealth(self.agent, self.machine.namespace, utc_now, self._trouble)
        picture = self._picture
        answers = self.election.resume(picture.leases.values())
        report = self.agent.start(picture.nodes, attached, picture.services.values(), picture.slices.values(), answers)
        for path, service in picture.services.items():
            self.election.changed(path, service)
            self.health.service_changed(None, service)
        return report

    async def run(self) -> None:
        """Run until cancelled; start the agent again when that is wished."""
        while True:
            parts = (self.agent.run(), self.election.run(), self.health.run(), self._restart.wait())
            work = [asyncio.create_task(part) for part in parts]
            try:
                await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in work:
                    task.cancel()
            *ended, _ = await asyncio.gather(*work, return_exceptions=True)
            for error in ended:
                if isinstance(error, Exception):
                    raise error
            self._restart.clear()
            await self._begin_again()

    async def _begin_again(self) -> None:
        await self.agent.reconciler.idle()
        attached = list(self.agent.attached)
        began = time.monotonic()
        self.machine.open_kernel()
        report = self.begin(attached)
        self.kubelet.network = self.agent
        milliseconds = (time.monotonic() - began) * 1000
        changes = len(report.applied) + len(report.failed)
        answer = f"{self._wish} changes={changes} milliseconds={milliseconds:.0f}"
        node = self._picture.nodes.get(self.name)
        if node is not None:
            body = {"metadata": {"annotations": {RESTARTED: answer}}}
            try:
                await self.client.patch("nodes", "", self.name, body, uid=node.metadata.uid)
            except ApiError as error:
                log.warning("restart node=%s error=%s", self.name, error)

    # What changed in the cluster.

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """A node came, changed or went."""
        if new is not None and new.metadata.name == self.name:
            self.heartbeat.node_changed(new)
            wish = new.metadata.annotations.get(RESTART, "")
            if wish not in ("", self._wish):
                self._wish = wish
                self._restart.set()
        self.agent.node_changed(old, new)
        self.election.node_changed(old, new)

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """A Service came, changed or went."""
        self.agent.service_changed(old, new)
        self.health.service_changed(old, new)
        if (service := new or old) is not None:
            self.election.changed(service.metadata.path, new)

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An EndpointSlice came, changed or went."""
        self.agent.slice_changed(old, new)
        for slice_ in (old, new):
            if slice_ is not None:
                self.election.changed(slice_.service, None)

    def lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        """A Lease came, changed or went."""
        self.election.lease_changed(old, new)

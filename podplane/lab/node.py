"""A machine of the lab as a node of the cluster: `agent.NodeAgent` with a kubelet beside it, and what a lab knows of its
machines.

The agent can be started again as on a real node, where its process ends and another one begins. Who wants that writes the
node's annotation
`restart-agent`; the answer stands in `agent-restarted`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from podplane.agent.attachments import AttachedPod
from podplane.agent.caches import Caches
from podplane.agent.kernel import Kernel
from podplane.agent.node import NodeAgent
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.planner import RecordEvent
from podplane.apiserver.server import utc_now
from podplane.kernel.namespace import Namespace
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.lab.fabric import Machine
from podplane.lab.underlay import UPLINK
from podplane.model.config import RESTART, RESTARTED, NetworkConfig
from podplane.model.objects import Model, Node
from podplane.runtime.heartbeat import Heartbeat
from podplane.runtime.kubelet import Kubelet
from podplane.state.operations import LinkEvent

log = logging.getLogger(__name__)


class LabNode:
    """One node, and the `Host` of its agent; its methods run on one event loop."""

    kubelet: Kubelet

    def __init__(
        self,
        name: str,
        machine: Machine,
        config: NetworkConfig,
        peers: PeerPlans,
        client: Client,
        caches: Caches,
        record_event: RecordEvent,
    ) -> None:
        self.name = name
        self.machine = machine
        self.client = client
        self.network = NodeAgent(name, self, config, client, caches, peers, record_event, utc_now)
        self.heartbeat = Heartbeat(client, caches.nodes.objects[name], utc_now)
        self._caches = caches
        self._restart_id = caches.nodes.objects[name].metadata.annotations.get(RESTART, "")
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        """Keep agent and heartbeat running, in tasks of their own."""
        self.network.run()
        self.network.supervisor.add("heartbeat", self.heartbeat.run)

    def changed(self, kind: type[Model], old: Any, new: Any) -> None:
        """An object came (no old), changed or went (no new)."""
        if kind is Node and new is not None and new.metadata.name == self.name:
            self.heartbeat.node_changed(new)
            wanted = new.metadata.annotations.get(RESTART, "")
            if wanted not in ("", self._restart_id):
                self._restart_id = wanted
                task = asyncio.get_running_loop().create_task(self._restart_agent(wanted))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self.network.changed(kind, old, new)

    async def _restart_agent(self, request: str) -> None:
        started = await self.network.restart()
        self.network.supervisor.add("heartbeat", self.heartbeat.run)
        changes = started.changes + len(started.refused)
        answer = f"{request} changes={changes} milliseconds={started.seconds * 1000:.0f}"
        node = self._caches.nodes.objects.get(self.name)
        if node is not None:
            body = {"metadata": {"annotations": {RESTARTED: answer}}}
            try:
                await self.client.patch("nodes", "", self.name, body, uid=node.metadata.uid)
            except ApiError as error:
                log.warning("restart node=%s error=%s", self.name, error)

    # `Host`.

    @property
    def namespace(self) -> Namespace:
        """The machine's network namespace."""
        return self.machine.namespace

    def open_kernel(self) -> Kernel:
        """A door to the machine's kernel state that knows nothing of what went through the former one."""
        return self.machine.open_kernel()

    def attached(self) -> Iterable[AttachedPod]:
        """The pods whose network is there: the lab's process lives on when an agent ends, and remembers them."""
        return self.network.agent.network.attached if self.network.has_agent else ()

    def link_changed(self, name: str, event: LinkEvent) -> None:
        """The uplink came up, after it was down or made anew: the machine's own network configuration is applied again, as
        on a real machine."""
        if name == UPLINK and event.is_present and event.is_up:
            self.machine.configure_uplink()

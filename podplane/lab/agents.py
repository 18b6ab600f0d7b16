"""The agent of a lab's node: within the lab's process, or a process of its own (`agent_process`). What is the same to a node of the lab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from podplane.agent.caches import Caches
from podplane.agent.feature import Kind
from podplane.agent.node import Concern, NodeAgent, Started
from podplane.agent.settings import Settings
from podplane.cni.network import Network
from podplane.dns.settings import DnsSettings
from podplane.ipam.plan import Plan
from podplane.kubeapi.supervise import Supervisor
from podplane.lab import control_plane
from podplane.lab.faults.arguments import FaultError
from podplane.lab.spec import LabSpec
from podplane.model.config import NetworkConfig
from podplane.nodes.settings import NodeSettings
from podplane.policy.settings import PolicySettings
from podplane.services.settings import ServiceSettings


def agent_settings(plan: Plan, spec: LabSpec) -> Settings:
    """The agents' settings."""
    excluded = tuple(filter(None, spec.masquerade_exclude.split(",")))
    node_ports = tuple(filter(None, spec.node_port_addresses.split(",")))
    return Settings(
        network=NetworkConfig(
            cluster_cidrs=tuple(map(str, plan.cluster)),
            service_cidrs=tuple(map(str, plan.service)),
            subnets=tuple(map(str, plan.links())) if plan.subnets > 1 else (),
        ),
        nodes=NodeSettings(masquerade_exclude=excluded),
        services=ServiceSettings(node_port_addresses=node_ports),
        policies=PolicySettings(takes_back=not spec.keep_connections),
        dns=DnsSettings(ips=tuple(map(str, control_plane.dns_ips(plan))), domain=spec.cluster_domain, serve=False),
    )


class LabAgent(Protocol):
    """One of them; its methods run on one event loop."""

    supervisor: Supervisor
    """Of the node's tasks."""
    tells_links: bool
    """Does it tell its host of changes of the machine's links?"""

    @property
    def network(self) -> Network:
        """As the kubelet sees it."""

    @property
    def sysctls(self) -> Mapping[str, str]:
        """Those that the agent sets in the node's own namespace."""

    async def start(self) -> Started:
        """Begin; the node's network is in place when this returns."""

    def run(self) -> None:
        """Keep everything running, in tasks of the supervisor."""

    async def restart(self) -> Started:
        """End, and begin anew."""

    async def close(self) -> None:
        """End for good, with all tasks of the supervisor."""

    def changed(self, kind: Kind, old: Any, new: Any) -> None:
        """An object came (no old), changed or went (no new)."""

    def is_concerned(self, change: Concern) -> bool:
        """Is it to be told of this change?"""

    def read_from(self, caches: Caches) -> None:
        """Read the cluster from these caches from now on."""

    def name_server_changed(self, *, answers: bool) -> None:
        """The node's name server answers now, or does not."""

    def reserve(self, pod_uid: str, ips: tuple[str, ...]) -> None:
        """Keep the addresses of a pod that had them in the lab's last run."""

    def cancel_reservation(self, pod_uid: str) -> None:
        """The pod will not come."""

    async def cut(self) -> None:
        """The API is out of its reach."""

    async def join(self) -> None:
        """It is in reach again."""

    def kill(self) -> int:
        """SIGKILL; its process id, 0 when it does not run. FaultError when it is no process."""

    def pause(self) -> int:
        """SIGSTOP; likewise."""

    def resume(self) -> None:
        """SIGCONT."""


class AgentInProcess:
    """An agent within the lab's process, which reads the caches of all."""

    tells_links = True

    def __init__(self, node: NodeAgent) -> None:
        self.node = node
        self.supervisor = node.supervisor
        self.start: Callable[[], Any] = self.node.start
        self.run, self.restart, self.changed = self.node.run, self.node.restart, self.node.changed
        self.is_concerned, self.read_from = self.node.is_concerned, self.node.read_from
        self.name_server_changed = self.node.name_server_changed

    @property
    def network(self) -> Network:
        """A direct call."""
        return self.node

    @property
    def sysctls(self) -> Mapping[str, str]:
        """Those that the agent sets in the node's own namespace."""
        return self.node.agent.ledger.sysctls

    async def close(self) -> None:
        """End; what the kernel holds stays."""
        if self.node.has_agent:
            await self.node.close()
        await self.supervisor.close()

    def reserve(self, pod_uid: str, ips: tuple[str, ...]) -> None:
        """Keep the addresses of a pod that had them in the lab's last run."""
        self.node.agent.network.reserve(pod_uid, ips)

    def cancel_reservation(self, pod_uid: str) -> None:
        """The pod will not come."""
        self.node.agent.network.cancel_reservation(pod_uid)

    async def cut(self) -> None:
        """Its requests go through the node's connection, which is cut."""

    async def join(self) -> None:
        """The same."""

    def kill(self) -> int:
        """It can't be killed alone."""
        raise FaultError(f"the agent of {self.node.name} is a part of the lab's process: start the lab with --agents processes")

    pause = kill

    def resume(self) -> None:
        """It is never paused."""

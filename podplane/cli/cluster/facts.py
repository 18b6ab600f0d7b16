"""What is known of a cluster at one moment: its objects as far as `cluster status` reads them, and what agents answered."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from podplane.kubeapi.errors import ApiError
from podplane.model.lease import Lease
from podplane.model.objects import Model, Node, NodeCondition, NodeStatus

Object = dict[str, Any]
LINUX = "linux"


class Condition(NodeCondition, frozen=True):
    """One entry of Node.status.conditions, with why."""

    message: str = ""


class NodeInfo(Model, frozen=True):
    """Node.status.nodeInfo."""

    operating_system: str = ""


class Status(NodeStatus, frozen=True):
    """Node.status."""

    conditions: tuple[Condition, ...] = ()
    node_info: NodeInfo = NodeInfo()


class ClusterNode(Node, frozen=True):
    """core/v1 Node, with the texts of its conditions."""

    status: Status = Status()

    @property
    def name(self) -> str:
        """Of the Node."""
        return self.metadata.name

    @property
    def is_linux(self) -> bool:
        """May an agent run there? (One that does not say what it runs counts as one that does.)"""
        return self.status.node_info.operating_system in ("", LINUX)

    def condition(self, kind: str) -> Condition:
        """One of its conditions; an empty one where it has none of this type."""
        return next((one for one in self.status.conditions if one.type == kind), Condition())


class ListMeta(msgspec.Struct, frozen=True):
    """Where the next page begins; "" on the last one."""

    continuation: str = msgspec.field(default="", name="continue")


class NodePage(msgspec.Struct, frozen=True):
    """A part of a NodeList."""

    items: list[ClusterNode] = []
    metadata: ListMeta = ListMeta()


@dataclass(frozen=True, slots=True)
class AgentPod:
    """A pod of the DaemonSet: `why` says what is wrong with it ("": nothing, or nobody says it), `restarted` when its container ended last
    (None: never), `made` when the pod was made (None: nobody says it)."""

    name: str
    node: str
    is_ready: bool
    why: str = ""
    image: str = ""
    image_id: str = ""
    restarts: int = 0
    restarted: datetime.datetime | None = None
    made: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning of podplane's about a Node."""

    node: str
    reason: str
    message: str
    last: datetime.datetime
    count: int = 1


@dataclass(frozen=True, slots=True)
class Unread:
    """What could not be read, why, and what is not known without it."""

    what: str
    why: str
    without: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it. What could not be read is None or empty, and in `unread`."""

    address: str
    now: datetime.datetime
    """By the API's clock, if it says it: the times in its objects are of the cluster's clocks, not of the user's."""
    nodes: Mapping[str, ClusterNode]
    version: str = ""
    took: float = 0.0
    """Seconds for the list of Nodes."""
    daemon_set: Object | None = None
    removal: Object | None = None
    """The DaemonSet that cleans nodes, of all of them or of some."""
    pods: tuple[AgentPod, ...] = ()
    network: Mapping[str, str] | None = None
    """The ConfigMap podplane-network."""
    cluster_cidrs: tuple[str, ...] = ()
    """The networks of pods, where the cluster names them."""
    service_cidrs: tuple[str, ...] = ()
    name_servers: int | None = None
    """Ready endpoints of the Service kube-system/kube-dns; None: there is no such Service."""
    has_name_servers: bool = False
    """Do nodes offer name servers of podplane's?"""
    servers: Sequence[Object] = ()
    """What these say of themselves."""
    deployment: Object | None = None
    """Of the controllers."""
    controllers: Lease | None = None
    """That of who leads them."""
    warnings: tuple[Warned, ...] = ()
    answers: Mapping[str, Object | ApiError] = field(default_factory=dict)
    """What agents said of themselves; nodes that were not asked are not in it."""
    not_ready: Mapping[str, str] = field(default_factory=dict)
    """Why agents say that they are not ready."""
    unread: tuple[Unread, ...] = ()
    _pods_by_node: Mapping[str, list[AgentPod]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_node: dict[str, list[AgentPod]] = {}
        for pod in self.pods:
            by_node.setdefault(pod.node, []).append(pod)
        object.__setattr__(self, "_pods_by_node", by_node)

    def pods_of(self, node: str) -> Sequence[AgentPod]:
        """The agent's pods on a node."""
        return self._pods_by_node.get(node, ())

    def told(self) -> dict[str, Object]:
        """The answers that are some."""
        return {node: answer for node, answer in self.answers.items() if not isinstance(answer, ApiError)}

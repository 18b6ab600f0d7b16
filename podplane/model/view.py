"""What planners see: the objects of the cluster as one node's agent knows them, and the pods attached to that node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

import msgspec

from podplane.model.cluster_policy import Policy
from podplane.model.objects import Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import PodSelector
from podplane.model.service import EndpointSlice, Service


class HostPort(msgspec.Struct, frozen=True):
    """A port of the node that leads to a port of a pod; `host_ip` "" means every address of the node."""

    host_port: int
    container_port: int
    protocol: str = "TCP"
    host_ip: str = ""


class Bandwidth(msgspec.Struct, frozen=True):
    """Limits of one pod interface, as in the capability `bandwidth` of CNI: what comes to the pod (ingress), and what it sends (egress).

    Rates are in bit/s, 0 for no limit; bursts in bit, 0 for one that suits the rate. Whole Ethernet frames are counted.
    """

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


NO_LIMITS = Bandwidth()


class BridgeNetwork(msgspec.Struct, frozen=True):
    """A further network of pods, on a bridge of each node: the path of its NetworkAttachmentDefinition, a subnet for each IP version,
    and its MTU in byte (0: the uplink's)."""

    name: str
    subnets: tuple[str, ...]
    mtu: int = 0


class Sandbox(msgspec.Struct, frozen=True):
    """One interface of one pod sandbox as it was asked for: `netns` is the name under which the kernel door knows its
    network namespace.

    (container_id, ifname) tells attachments apart, as in the CNI specification: a pod may have several sandboxes in time,
    and several interfaces.
    """

    namespace: str
    name: str
    uid: str
    container_id: str
    netns: str
    ips: tuple[str, ...]
    ifname: str = "eth0"
    host_ports: tuple[HostPort, ...] = ()
    mac: str = ""
    """The MAC that was asked for; "" for the one that is made of the first address (`state.mac.interface_mac`)."""
    bandwidth: Bandwidth = NO_LIMITS
    network: BridgeNetwork | None = None
    """None for the pods' own network."""

    @property
    def path(self) -> str:
        """`namespace/name` of its pod."""
        return f"{self.namespace}/{self.name}"

    @property
    def reference(self) -> tuple[str, str]:
        """What it is, and its name, as comments in the kernel and messages have them: a container of an engine that knows no Kubernetes
        is no pod."""
        return ("pod", self.path) if self.namespace else ("container", self.name)


class SlicesByService(Protocol):
    """EndpointSlices by the path of their Service."""

    def get(self, key: str, /) -> Mapping[str, EndpointSlice] | None:
        """Those of one Service, by path; empty or None when it has none."""


class Policies(Protocol):
    """Policies, namespaces and pods of the cluster, and who selects whom (`policy.index`)."""

    def pod(self, path: str, /) -> PodInfo | None:
        """A pod that has not ended and has a network of its own."""

    def namespace(self, name: str, /) -> NamespaceInfo | None:
        """A namespace."""

    def has_policies(self, namespace: str, /) -> bool:
        """Is there any policy that may be about pods of this namespace?"""

    def is_undecided(self, namespace: str, /) -> bool:
        """Are there policies that select by labels of namespaces, and is this one not known (yet)?"""

    def policies_of(self, path: str, /) -> Sequence[Policy]:
        """The policies that select a pod, in the order in which they decide."""

    def selects(self, policy: Policy, path: str, /) -> bool:
        """Does a policy select this pod?"""

    def candidates(self, selector: PodSelector, /) -> Sequence[PodInfo]:
        """The pods of a selector, and others of its namespaces whose labels it does not select: what is returned stays as it is."""

    def is_member(self, selector: PodSelector, path: str, /) -> bool:
        """Is this pod among them?"""

    def use(self, selector: PodSelector, told: Callable[[Any], None] | None = None, /) -> None:
        """Tell which pods come and go among those of a selector (`policy.index.Move`)."""

    def release(self, selector: PodSelector, told: Callable[[Any], None] | None = None, /) -> None:
        """The opposite of `use`."""


class Claims(Protocol):
    """Which addresses and blocks of Nodes count where several Nodes claim them (`routes.claims`)."""

    def touched(self, name: str, /) -> Collection[str]:
        """Other Nodes of which something else may count since the last change of any Node, where this one was it."""

    def first(self, count: int, /) -> Sequence[str]:
        """The least names of Nodes, so many."""

    def lost(self, name: str, own: str = "", /) -> Mapping[str, str]:
        """The claims of a Node that do not count on the node `own`, and why."""


class View(msgspec.Struct):
    """A façade over the caches of the process and what is attached to this node; kept current by the agent, only read by
    planners."""

    node_name: str
    nodes: Mapping[str, Node] = msgspec.field(default_factory=dict)
    services: Mapping[str, Service] = msgspec.field(default_factory=dict)
    slices: SlicesByService = msgspec.field(default_factory=dict[str, Mapping[str, EndpointSlice]])
    sandboxes: Mapping[tuple[str, str], Sandbox] = msgspec.field(default_factory=dict)
    """By container id and interface name."""
    interfaces: Mapping[str, Mapping[str, Sandbox]] = msgspec.field(default_factory=dict)
    """The same by network namespace and interface name."""
    has_name_server: bool = True
    """Does this node's own name server answer, or is it about to?"""
    may_answer_names: bool = True
    """Is it podplane that is to answer at the addresses of the cluster's DNS (`dns.standing`)?"""
    advertised: Collection[str] = ()
    """Paths of the Services whose load balancer addresses this node advertises."""
    policies: Policies | None = None
    """None where nobody watches policies: then there are none."""
    pods: Mapping[str, Mapping[tuple[str, str], Sandbox]] = msgspec.field(default_factory=dict)
    """The sandboxes by the path of their pod, then by container id and interface name."""
    withdrawn: frozenset[str] = frozenset()
    """Names of peers that are not ready and do not answer: their routes are withdrawn."""
    claims: Claims | None = None
    """None where nobody looks for Nodes that claim the same."""
    as_usable: Callable[[Node], Node] = lambda node: node
    """A Node without what of it does not count (`routes.usable`)."""
    listeners: Collection[tuple[str, int, IPv4Address | IPv6Address]] = ()
    """Sockets of the node that wait for clients, as they were when a pod with host ports was attached last: protocol (tcp, udp), port and
    address."""
    former: Node | None = None
    """This node's own object as it was when it was deleted, while pods are attached."""

    @property
    def registered(self) -> Node | None:
        """This node's own object, as the API has it."""
        return self.nodes.get(self.node_name)

    @property
    def node(self) -> Node | None:
        """This node's own object as plans go by it: once it is known, and, while it is deleted, as long as pods are attached."""
        found = self.nodes.get(self.node_name, self.former)
        return None if found is None else self.as_usable(found)

    @property
    def why_no_pods(self) -> str:
        """Why no pod can be attached to this node, and what to do; "" when pods can."""
        if self.registered is None:
            return f"there is no Node {self.node_name} now: pods are attached once it is registered"
        if not self.as_usable(self.registered).spec.pod_cidrs:
            if self.registered.spec.pod_cidrs or self.registered.spec.senseless_cidrs:
                return f"no pod block of node {self.node_name} can be one: `kubectl describe node {self.node_name}` says why"
            return f"node {self.node_name} has no pod block yet: it gets one when the cluster has room"
        return ""

    def has_default_routes(self, sandbox: Sandbox) -> bool:
        """Is this the interface of its pod sandbox with the least name? What a pod can have once only is planned with that one."""
        names = [one.ifname for one in self.interfaces.get(sandbox.netns, {}).values() if one.network is None]
        return sandbox.ifname <= min(names, default=sandbox.ifname)

    @property
    def versions(self) -> tuple[int, ...]:
        """IP versions of this node's blocks."""
        node = self.node
        return tuple([6 if ":" in block else 4 for block in node.spec.pod_cidrs]) if node else ()

    def slices_of(self, path: str) -> list[EndpointSlice]:
        """The slices of a Service, by name."""
        return [slice_ for _, slice_ in sorted((self.slices.get(path) or {}).items())]

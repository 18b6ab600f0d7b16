"""Node and Namespace as the planners see them; Pod and Service have modules of their own.

Field names are Kubernetes' own (core/v1), so decoding is a plain JSON decode. Unknown fields are ignored: the API server
stores them, nobody here reads them. All of it is frozen and compared by value, so "did anything that I read change?" is `==`.
"""

from __future__ import annotations

import functools

import msgspec

from podplane.model.config import NO_NETWORK, NO_ROUTE, TWICE, UNDERLAY_MAC
from podplane.model.node_addresses import KEPT, why_no_address, why_no_block, why_no_mac


class Model(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Base of all models: frozen, camelCase on the wire, defaults left out."""


class Metadata(Model, frozen=True):
    """ObjectMeta; `resourceVersion` is left out on purpose, so that equal models mean equal plans."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None

    @property
    def path(self) -> str:
        """`namespace/name`, or the name alone of a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Taint(Model, frozen=True):
    """One entry of Node.spec.taints, without its effect."""

    key: str = ""


class NodeSpec(Model, frozen=True):
    """Node.spec: the pod blocks of the node, one a family, and why pods are kept from it.

    `senseless_cidrs` are those of its podCIDRs that can't be blocks (`why_no_block`): they are none of `pod_cidrs`.
    """

    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")
    unschedulable: bool = False
    taints: tuple[Taint, ...] | None = ()
    senseless_cidrs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(map(why_no_block, self.pod_cidrs)):
            senseless = dict.fromkeys((*self.senseless_cidrs, *filter(why_no_block, self.pod_cidrs)))
            msgspec.structs.force_setattr(self, "senseless_cidrs", tuple(senseless))
            msgspec.structs.force_setattr(self, "pod_cidrs", tuple(one for one in self.pod_cidrs if not why_no_block(one)))

    @property
    def taint_keys(self) -> frozenset[str]:
        """The keys of its taints."""
        return frozenset(taint.key for taint in self.taints or ())


class NodeAddress(Model, frozen=True):
    """One entry of Node.status.addresses."""

    type: str = ""
    address: str = ""


@functools.lru_cache(KEPT)
def _internal_ips(addresses: tuple[NodeAddress, ...]) -> tuple[str, ...]:
    return tuple(one.address for one in addresses if one.type == "InternalIP" and not why_no_address(one.address))


@functools.lru_cache(KEPT)
def _senseless(addresses: tuple[NodeAddress, ...]) -> tuple[str, ...]:
    texts = dict.fromkeys(one.address for one in addresses if one.type == "InternalIP" and why_no_address(one.address))
    return tuple(f"the address {text!r} {why_no_address(text)}" for text in texts)


class NodeCondition(Model, frozen=True):
    """One entry of Node.status.conditions, without its times and its message."""

    type: str = ""
    status: str = ""
    reason: str = ""


class NodeStatus(Model, frozen=True):
    """Node.status, as far as routes and its kubelet need it."""

    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[NodeCondition, ...] = ()
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}

    @property
    def extended_capacity(self) -> dict[str, str]:
        """What others say that the node has: resources with a domain of their own, `example.com/dongle` say."""
        return _extended(self.capacity)

    @property
    def extended_allocatable(self) -> dict[str, str]:
        """What of such resources pods can have."""
        return _extended(self.allocatable)


def _extended(resources: dict[str, str]) -> dict[str, str]:
    return {name: amount for name, amount in resources.items() if "/" in name and "kubernetes.io/" not in name}


class Node(Model, frozen=True):
    """core/v1 Node."""

    metadata: Metadata = Metadata()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def internal_ips(self) -> tuple[str, ...]:
        """The node's own addresses, in the order of the object; without what can't be one."""
        return _internal_ips(self.status.addresses)

    @property
    def ips(self) -> tuple[str, ...]:
        """All its addresses, those by which others reach it from outside, too."""
        kinds = ("InternalIP", "ExternalIP")
        return tuple(a.address for a in self.status.addresses if a.type in kinds and not why_no_address(a.address))

    @property
    def external_ips(self) -> tuple[str, ...]:
        """Those by which others reach it from outside."""
        return tuple(ip for ip in self.ips if ip not in self.internal_ips)

    @property
    def senseless(self) -> tuple[str, ...]:
        """What of its blocks, own addresses and MAC makes no sense, and why: `the block 0.0.0.0/0 holds every address`."""
        blocks = [f"the block {text} {why_no_block(text)}" for text in self.spec.senseless_cidrs]
        said = self.metadata.annotations.get(UNDERLAY_MAC, "")
        mac = (f"the MAC {said!r} {why_no_mac(said)}",) if said and why_no_mac(said) else ()
        return (*blocks, *_senseless(self.status.addresses), *mac)

    @property
    def underlay_mac(self) -> str:
        """The MAC at which other nodes of its network reach it, as it says; "" where it says none, or what can't be one."""
        said = self.metadata.annotations.get(UNDERLAY_MAC, "")
        return said if said and not why_no_mac(said) else ""

    @property
    def is_ready(self) -> bool:
        """Does its condition Ready hold?"""
        return self._holds("Ready")

    @property
    def is_silent(self) -> bool:
        """Does the API not know whether it is ready? Its kubelet said so once, and says nothing any more."""
        return any((c.type, c.status) == ("Ready", "Unknown") for c in self.status.conditions)

    @property
    def has_no_network(self) -> bool:
        """Does its condition NetworkUnavailable hold, for another reason than that a cloud has no route to it?"""
        return self._holds(NO_NETWORK) and not self.waits_for_a_route

    @property
    def waits_for_a_route(self) -> bool:
        """Does a cloud's controller say that it has no network, because the cloud has no route to its pods yet? It needs none."""
        return self._has_no_network(NO_ROUTE)

    @property
    def has_an_older_block(self) -> bool:
        """Do controllers say that it has no network, because its block is an older Node's, too?"""
        return self._has_no_network(TWICE)

    def _has_no_network(self, why: str) -> bool:
        return any((c.type, c.status, c.reason) == (NO_NETWORK, "True", why) for c in self.status.conditions)

    def _holds(self, kind: str) -> bool:
        return any(c.type == kind and c.status == "True" for c in self.status.conditions)


def seniority(created: str, name: str) -> tuple[str, str]:
    """Of two Nodes the older one has the lesser: by creationTimestamp; of the same second, by name."""
    return created, name


class Namespace(Model, frozen=True):
    """core/v1 Namespace."""

    metadata: Metadata = Metadata()

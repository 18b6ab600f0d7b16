"""policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy (network-policy-api) as planners and verdicts read it.

Its rules are those of a NetworkPolicy with an action, and the first that matches decides. Peers that are nodes are pods of a namespace
that no namespace can be called: `policy.nodes`.

A peer that this version doesn't know (domain names are one; the API of a lab refuses them) fails closed, as the types have it: an Accept
has no such peer, a Deny or Pass that has one denies everything. `unread` has a sentence for each such part.
"""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

import msgspec

from podplane.model.objects import Model
from podplane.model.policy import (
    EVERYTHING,
    PROTOCOLS,
    TIERS,
    Action,
    Direction,
    IPBlock,
    JsonSelector,
    NetworkPolicy,
    Peer,
    PodSelector,
    PolicyMetadata,
    PolicyPort,
    PolicyRule,
    Rules,
    network,
    read_part,
    selector_of,
    shared,
)

NODES = "nodes:"
"""The namespace of nodes, as peers of rules."""
ClusterTier = Literal["Admin", "Baseline"]


class ClusterNetworkPolicy(Model, frozen=True):
    """What becomes of flows of the pods that it selects, in all namespaces. Without rules for a direction it has no effect there."""

    short: ClassVar = "cnp"
    metadata: PolicyMetadata = PolicyMetadata()
    tier: ClusterTier = "Admin"
    priority: int = 0
    subjects: PodSelector = PodSelector(EVERYTHING)
    ingress: Rules = ()
    egress: Rules = ()
    unread: tuple[str, ...] = ()

    def rules(self, direction: Direction) -> Rules | None:
        """Those of one direction; None when it says nothing about it."""
        return (self.ingress if direction == "ingress" else self.egress) or None

    @property
    def text(self) -> str:
        """How people call it."""
        return f"ClusterNetworkPolicy {self.metadata.name}"

    @property
    def full_text(self) -> str:
        """The same with its kind, where that is not clear from what is around it."""
        return self.text

    @property
    def order(self) -> tuple[int, int, str]:
        """Those with the lesser one decide first: by tier, priority and name."""
        return TIERS.index(self.tier), self.priority, self.metadata.path

    @classmethod
    def from_json(cls, raw: bytes | msgspec.Raw) -> ClusterNetworkPolicy:
        """Decode a ClusterNetworkPolicy. msgspec.MsgspecError when it is none."""
        return cls._of(_policies.decode(raw))

    @classmethod
    def with_json(cls, raw: bytes | msgspec.Raw) -> tuple[ClusterNetworkPolicy, bytes]:
        """The same, and the JSON of what was read of it, which `from_json` reads alike."""
        policy = _policies.decode(raw)
        return cls._of(policy), msgspec.json.encode(policy)

    @classmethod
    def _of(cls, policy: _Policy) -> ClusterNetworkPolicy:
        spec, unread = policy.spec, list[str]()
        try:
            subjects = shared(_pods(spec.subject))
        except ValueError as error:
            raise msgspec.ValidationError(str(error)) from error
        ingress, egress = (_rules("ingress", spec.ingress, unread), _rules("egress", spec.egress, unread))
        return cls(policy.metadata, spec.tier, spec.priority, subjects, ingress, egress, tuple(unread))


Policy = NetworkPolicy | ClusterNetworkPolicy


# What is read of the JSON; none of it is kept.


class _NamespacedPod(Model, frozen=True):
    namespace_selector: JsonSelector
    pod_selector: JsonSelector


class _Peer(Model, frozen=True):
    namespaces: JsonSelector | None = None
    pods: _NamespacedPod | None = None
    nodes: JsonSelector | None = None
    networks: tuple[str, ...] | None = None


class _Range(Model, frozen=True):
    start: int
    end: int


class _Port(Model, frozen=True):
    number: int | None = None
    range: _Range | None = None


class _Transport(Model, frozen=True):
    destination_port: _Port | None = None


class _Protocol(Model, frozen=True):
    tcp: _Transport | None = None
    udp: _Transport | None = None
    sctp: _Transport | None = None
    destination_named_port: str = ""


class _Rule(Model, frozen=True):
    action: Action
    name: str = ""
    from_: tuple[_Peer, ...] | None = msgspec.field(default=None, name="from")
    to: tuple[_Peer, ...] | None = None
    protocols: tuple[_Protocol, ...] | None = None


class _Spec(Model, frozen=True):
    tier: ClusterTier
    priority: int
    subject: _Peer
    ingress: tuple[_Rule, ...] | None = None
    egress: tuple[_Rule, ...] | None = None


class _Policy(Model, frozen=True):
    metadata: PolicyMetadata
    spec: _Spec


_policies = msgspec.json.Decoder(_Policy)


def _rules(direction: Direction, rules: tuple[_Rule, ...] | None, unread: list[str]) -> Rules:
    return tuple([_rule(rule, f"{direction} rule {number}", unread) for number, rule in enumerate(rules or (), 1)])


def _rule(rule: _Rule, where: str, unread: list[str]) -> PolicyRule:
    before = len(unread)
    peers = [read_part(functools.partial(_peers, one), where, unread) for one in rule.from_ or rule.to or ()]
    ports = [read_part(functools.partial(_ports, one), where, unread) for one in rule.protocols or ()]
    if len(unread) > before and rule.action != "Accept":
        return PolicyRule(None, None, "Deny", rule.name)
    return PolicyRule(
        tuple([shared(one) for some in peers for one in some or ()]),
        None if rule.protocols is None else tuple([shared(one) for some in ports for one in some or ()]),
        rule.action,
        rule.name,
    )


def _peers(peer: _Peer) -> tuple[Peer, ...]:
    """ValueError for one of a kind that is not known: it has none of the fields that are."""
    if peer.nodes is not None:
        return (PodSelector(NODES, selector_of(peer.nodes)),)
    if peer.networks is not None:
        return tuple([IPBlock(network(cidr)) for cidr in peer.networks])
    return (_pods(peer),)


def _pods(peer: _Peer) -> PodSelector:
    if peer.pods is not None:
        return PodSelector(selector_of(peer.pods.namespace_selector), selector_of(peer.pods.pod_selector))
    if peer.namespaces is None:
        raise ValueError("what has neither namespaces nor pods, nodes or networks is not known")
    return PodSelector(selector_of(peer.namespaces))


def _ports(protocol: _Protocol) -> tuple[PolicyPort, ...]:
    """A port by its name is of any protocol. ValueError for a protocol that is not known."""
    if protocol.destination_named_port:
        return tuple([PolicyPort(name, protocol.destination_named_port) for name in PROTOCOLS])
    found = zip(PROTOCOLS, (protocol.tcp, protocol.udp, protocol.sctp), strict=True)
    ports = tuple([PolicyPort(name, _numbers(one.destination_port)) for name, one in found if one is not None])
    if not ports:
        raise ValueError("what has neither tcp, udp, sctp nor destinationNamedPort is not known")
    return ports


def _numbers(port: _Port | None) -> tuple[int, int]:
    if port is not None and port.range is not None:
        return port.range.start, port.range.end
    if port is None or port.number is None:
        raise ValueError("what has no number and no range of ports is not known")
    return port.number, port.number

"""The verdict on a flow: what NetworkPolicy says, and nothing else. What nodes have in their tables is held against it.

    egress      of the pod that opens the flow       ─┐
                                                      ├─►  allowed if both allow it
    ingress     of the pod that it goes to           ─┘

An end that no policy can select (a node, a pod on its network, an address outside) has no such direction. A direction of a pod:

    1. a pod reaches itself                                                       allowed
    2. ingress: the flow comes from the pod's own node                            allowed: its kubelet probes it
    3. no policy that speaks of this direction selects the pod                    allowed
    4. a rule of a policy that does has the other end among its peers,
       and the port among its ports                                               allowed, by the first such rule
    5. otherwise                                                                  denied, by default: by all of those policies

Policies add up; there is no order among them, nor does a rule forbid anything. `podSelector` and `namespaceSelector` have pods with a
network of their own as peers, by what they are and not by address; an `ipBlock` has addresses, those of pods and nodes too. A named port
is what the pod that the flow goes to calls so, for that protocol; ports of an end that is no pod have no names. A rule with ports is about
TCP, UDP and SCTP; one that names none is about every protocol. What answers a flow that was allowed passes: there is nothing to decide.

From networking/v1 types.go, the page Network Policies of the Kubernetes documentation, and the NetworkPolicy tests of its conformance suite
(test/e2e/network/netpol), which have addresses of pods in ipBlocks. A flow to a Service is judged as one to the endpoint behind it.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from typing import NamedTuple, Protocol

import msgspec

from podplane.model.pod_info import NamedPort, PodInfo
from podplane.model.policy import Direction, IPBlock, NetworkPolicy, Peer, PodSelector, PolicyPort, PolicyRule
from podplane.policy.ends import End

SHOWN_POLICIES = 5
"""Of those that deny together."""


class Policies(Protocol):
    """What a verdict asks of the index."""

    def policies_of(self, path: str) -> tuple[NetworkPolicy, ...]:
        """Those that select a pod, by path."""

    def is_member(self, selector: PodSelector, path: str) -> bool:
        """Is this pod selected?"""


class Flow(msgspec.Struct, frozen=True):
    """A connection, or what comes nearest to one. `port` is None of protocols without ports (`ICMP`, say)."""

    source: End
    destination: End
    protocol: str = "TCP"
    port: int | None = None


class Reason(enum.StrEnum):
    """Why a direction of a pod allows a flow, or not."""

    ITSELF = "a pod reaches itself"
    OWN_NODE = "a node reaches its own pods"
    NOT_SELECTED = "no policy selects it"
    RULE = "rule"
    DEFAULT_DENY = "default deny"


class RuleId(NamedTuple):
    """One rule of one policy; rules are counted from 1."""

    policy: str
    direction: Direction
    number: int

    def __str__(self) -> str:
        return f"{self.policy} {self.direction} rule {self.number}"


class Decision(msgspec.Struct, frozen=True):
    """What one direction of a pod says. `policies` are those that select it and speak of that direction, by path."""

    direction: Direction
    reason: Reason
    policies: tuple[str, ...] = ()
    rule: RuleId | None = None

    @property
    def allowed(self) -> bool:
        """Does it allow the flow?"""
        return self.reason is not Reason.DEFAULT_DENY

    @property
    def by(self) -> str:
        """The object that decided: `default/db ingress rule 1`, `default deny by default/db, default/web`."""
        if self.rule is not None:
            return str(self.rule)
        if self.reason is Reason.NOT_SELECTED:
            return f"no policy selects it for {self.direction}"
        if self.allowed:
            return str(self.reason)
        shown, more = self.policies[:SHOWN_POLICIES], len(self.policies) - SHOWN_POLICIES
        return f"default deny by {', '.join(shown)}" + (f" and {more:,} more" if more > 0 else "")


class Verdict(msgspec.Struct, frozen=True):
    """Both directions; None of an end that no policy can select."""

    egress: Decision | None = None
    ingress: Decision | None = None

    @property
    def allowed(self) -> bool:
        """May the flow pass?"""
        return all(one is None or one.allowed for one in (self.egress, self.ingress))

    @property
    def by(self) -> str:
        """What decided it: of a flow that is denied what denies it, of others all that allow it."""
        decisions = [one for one in (self.egress, self.ingress) if one is not None]
        said = [one.by for one in decisions if one.allowed is self.allowed]
        return "; ".join(dict.fromkeys(said)) or "no policy is about nodes and addresses outside"


def verdict(flow: Flow, policies: Policies) -> Verdict:
    """May this flow pass, and what decides it?"""
    return Verdict(
        _decision("egress", flow, policies) if flow.source.is_under_policies else None,
        _decision("ingress", flow, policies) if flow.destination.is_under_policies else None,
    )


def _decision(direction: Direction, flow: Flow, policies: Policies) -> Decision:
    subject, other = (flow.source, flow.destination) if direction == "egress" else (flow.destination, flow.source)
    if subject.path == other.path:
        return Decision(direction, Reason.ITSELF)
    if direction == "ingress" and is_own_node(other, subject):
        return Decision(direction, Reason.OWN_NODE)
    speaking = [policy for policy in policies.policies_of(subject.path) if policy.rules(direction) is not None]
    paths = tuple(policy.metadata.path for policy in speaking)
    if not speaking:
        return Decision(direction, Reason.NOT_SELECTED)
    for policy in speaking:
        for number, rule in enumerate(policy.rules(direction) or (), 1):
            if allows_peer(rule, other, policies) and allows_port(rule, flow.protocol, flow.port, flow.destination.pod):
                return Decision(direction, Reason.RULE, paths, RuleId(policy.metadata.path, direction, number))
    return Decision(direction, Reason.DEFAULT_DENY, paths)


def is_own_node(end: End, of: End) -> bool:
    """Is one end the node that the pod at the other one is on?"""
    return end.pod is None and bool(end.node) and of.pod is not None and end.node == of.pod.node


def allows_peer(rule: PolicyRule, end: End, policies: Policies) -> bool:
    """Is this end among the peers of a rule?"""
    return rule.peers is None or any(is_peer(peer, end, policies) for peer in rule.peers)


def is_peer(peer: Peer, end: End, policies: Policies) -> bool:
    """Is this end the peer, or one of those that it selects?"""
    if isinstance(peer, IPBlock):
        return in_block(peer, end.ip)
    return end.pod is not None and policies.is_member(peer, end.path)


def in_block(block: IPBlock, ip: str) -> bool:
    """Is this address in the network, and in none of those that are left out of it?"""
    return _is_in(ip, block.cidr) and not any(_is_in(ip, part) for part in block.excepts)


def allows_port(rule: PolicyRule, protocol: str, port: int | None, destination: PodInfo | None) -> bool:
    """Is a port of the pod that a flow goes to (None: it is no pod) among the ports of a rule?"""
    named = () if destination is None else destination.ports.named
    return rule.ports is None or any(is_port(one, protocol, port, named) for one in rule.ports)


def is_port(one: PolicyPort, protocol: str, port: int | None, named: tuple[NamedPort, ...]) -> bool:
    """Is this port, of a pod with these named ones, one of those?"""
    if one.protocol != protocol:
        return False
    if one.port is None:
        return True
    if port is None:
        return False
    if isinstance(one.port, str):
        return NamedPort(one.port, protocol, port) in named
    return one.port[0] <= port <= one.port[1]


def _is_in(ip: str, cidr: str) -> bool:
    address, network = _address(ip), _network(cidr)
    return address.version == network.version and address in network


_address = functools.lru_cache(65536)(ipaddress.ip_address)
_network = functools.lru_cache(65536)(ipaddress.ip_network)

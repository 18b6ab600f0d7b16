"""The verdict on a flow: what policies say, and nothing else. What nodes have in their tables is held against it.

    egress      of the pod that opens the flow       ─┐
                                                      ├─►  allowed if both allow it
    ingress     of the pod that it goes to           ─┘

An end that no policy can select (a node, a pod on its network, an address outside) has no such direction. A direction of a pod:

    1. a pod reaches itself                                                       allowed
    2. ingress: the flow comes from the pod's own node                            allowed: its kubelet probes it
    3. a rule of an Admin policy matches                                          as the first such one says; Pass: on to 4
    4. NetworkPolicies that speak of this direction select the pod:
       a rule of one matches                                                      allowed, by the first such rule
       otherwise                                                                  denied, by default: by all of those policies
    5. a rule of a Baseline policy matches                                        as the first such one says; Pass: allowed
    6. otherwise                                                                  allowed

A rule matches that has the other end among its peers, and the port among its ports. NetworkPolicies add up; there is no order among them,
nor does a rule forbid anything. ClusterNetworkPolicies decide in an order (`tiers`). `podSelector` and `namespaceSelector` have pods with a
network of their own as peers, by what they are and not by address; an `ipBlock` has addresses, those of pods and nodes too, and so have
`networks`; `nodes` have the addresses that nodes report. A named port
is what the pod that the flow goes to calls so, for that protocol; ports of an end that is no pod have no names. A rule with ports is about
TCP, UDP and SCTP; one that names none is about every protocol. What answers a flow that was allowed passes: there is nothing to decide.

From networking/v1 types.go, the page Network Policies of the Kubernetes documentation, and the NetworkPolicy tests of its conformance suite
(test/e2e/network/netpol), which have addresses of pods in ipBlocks; for ClusterNetworkPolicy from its v1alpha2 types. A flow to a
Service is judged as one to the endpoint behind it.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from podplane.model.cluster_policy import NODES, Policy
from podplane.model.pod_info import NamedPort, PodInfo
from podplane.model.policy import TIERS, Action, Direction, IPBlock, Peer, PodSelector, PolicyPort, PolicyRule
from podplane.policy.ends import End
from podplane.policy.tiers import rules_of, speaking

SHOWN_POLICIES = 5
"""Of those that deny together."""


class Policies(Protocol):
    """What a verdict asks of the index."""

    def policies_of(self, path: str) -> tuple[Policy, ...]:
        """Those that select a pod, in the order in which they decide."""

    def is_member(self, selector: PodSelector, path: str) -> bool:
        """Is this pod selected?"""

    def has_address(self, selector: PodSelector, ip: str) -> bool:
        """Has one of the nodes of a selector of nodes this address?"""


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
    NO_RULE = "no rule"
    RULE = "rule"
    DENY_RULE = "rule that denies"
    DEFAULT_DENY = "default deny"


class RuleId(NamedTuple):
    """One rule of one policy (as people call it); rules are counted from 1. `action` is "" of a NetworkPolicy: its rules allow."""

    policy: str
    direction: Direction
    number: int
    action: str = ""

    @classmethod
    def of(cls, policy: Policy, direction: Direction, number: int, rule: PolicyRule) -> RuleId:
        """That of a rule of a policy."""
        return cls(policy.text, direction, number, rule.action if policy.tier != "NetworkPolicy" else "")

    def __str__(self) -> str:
        return f"{self.policy} {self.direction} rule {self.number}" + (f" ({self.action})" if self.action else "")


class Decision(msgspec.Struct, frozen=True):
    """What one direction of a pod says. `policies` are those that select it and speak of that direction, in their order; `denying` the
    NetworkPolicies among them; `passed` are the rules by which it left a tier."""

    direction: Direction
    reason: Reason
    policies: tuple[str, ...] = ()
    rule: RuleId | None = None
    denying: tuple[str, ...] = ()
    passed: tuple[RuleId, ...] = ()

    @property
    def allowed(self) -> bool:
        """Does it allow the flow?"""
        return self.reason not in (Reason.DEFAULT_DENY, Reason.DENY_RULE)

    @property
    def by(self) -> str:
        """The object that decided: `default/db ingress rule 1`, `default deny by default/db, default/web`."""
        return self._decided + "".join(f", after {one}" for one in self.passed)

    @property
    def _decided(self) -> str:
        if self.rule is not None:
            return str(self.rule)
        if self.reason is Reason.NOT_SELECTED:
            return f"no policy selects it for {self.direction}"
        if self.reason is Reason.NO_RULE:
            return "no rule denies it" if self.passed else f"no rule of {_shown(self.policies)} is about it"
        return str(self.reason) if self.allowed else f"default deny by {_shown(self.denying)}"


def _shown(policies: tuple[str, ...]) -> str:
    shown, more = policies[:SHOWN_POLICIES], len(policies) - SHOWN_POLICIES
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


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
    under = [one for one in policies.policies_of(subject.path) if one.rules(direction) is not None]
    if not under:
        return Decision(direction, Reason.NOT_SELECTED)
    return _by_tiers(direction, under, lambda rule: _matches(rule, flow, other, policies))


def _by_tiers(direction: Direction, under: list[Policy], matches: Callable[[PolicyRule], bool]) -> Decision:
    paths, passed, denying = tuple(one.text for one in under), list[RuleId](), tuple[str, ...]()
    for tier in TIERS:
        found = _first(direction, speaking(under, direction, tier), matches)
        if found is not None and found[1] == "Pass":
            passed.append(found[0])
        elif found is not None:
            reason = Reason.RULE if found[1] == "Accept" else Reason.DENY_RULE
            return Decision(direction, reason, paths, found[0], passed=tuple(passed))
        elif tier == "NetworkPolicy" and (denying := tuple(one.text for one in speaking(under, direction, tier))):
            return Decision(direction, Reason.DEFAULT_DENY, paths, None, denying, tuple(passed))
    return Decision(direction, Reason.NO_RULE, paths, passed=tuple(passed))


def _first(direction: Direction, policies: list[Policy], matches: Callable[[PolicyRule], bool]) -> tuple[RuleId, Action] | None:
    """The first rule that matches, and its action."""
    for policy, number, rule in rules_of(policies, direction):
        if matches(rule):
            return RuleId.of(policy, direction, number, rule), rule.action
    return None


def _matches(rule: PolicyRule, flow: Flow, other: End, policies: Policies) -> bool:
    return matches_peer(rule, other, policies) and matches_port(rule, flow.protocol, flow.port, flow.destination.pod)


def is_own_node(end: End, of: End) -> bool:
    """Is one end the node that the pod at the other one is on?"""
    return end.pod is None and bool(end.node) and of.pod is not None and end.node == of.pod.node


def matches_peer(rule: PolicyRule, end: End, policies: Policies) -> bool:
    """Is this end among the peers of a rule?"""
    return rule.peers is None or any(is_peer(peer, end, policies) for peer in rule.peers)


def is_peer(peer: Peer, end: End, policies: Policies) -> bool:
    """Is this end the peer, or one of those that it selects?"""
    if isinstance(peer, IPBlock):
        return in_block(peer, end.ip)
    if peer.namespaces == NODES:
        return policies.has_address(peer, end.ip)
    return end.pod is not None and policies.is_member(peer, end.path)


def in_block(block: IPBlock, ip: str) -> bool:
    """Is this address in the network, and in none of those that are left out of it?"""
    return _is_in(ip, block.cidr) and not any(_is_in(ip, part) for part in block.excepts)


def matches_port(rule: PolicyRule, protocol: str, port: int | None, destination: PodInfo | None) -> bool:
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

"""Is one rule about all flows that another one is about, or about any of them? Only what is sure without looking at pods: where a rule
covers another one, a `no` may be wrong and a `yes` never is; where two meet, a `yes` may be wrong and a `no` never is."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import TypeVar

from podplane.model.cluster_policy import NODES
from podplane.model.policy import EVERYTHING, IPBlock, LabelSelector, Peer, PolicyPort, PolicyRule, Requirement

T = TypeVar("T")
MAX_COMPARED = 10_000
"""Peers of one rule times those of the other one; of more, only whether each is among the others as it is written."""

_ALL_ADDRESSES = IPBlock("0.0.0.0/0"), IPBlock("::/0")


def covers(wide: PolicyRule, narrow: PolicyRule) -> bool:
    """Is `wide` about whatever `narrow` is about?"""
    everybody = wide.peers is None or all(block in wide.peers for block in _ALL_ADDRESSES)
    peers = everybody or (narrow.peers is not None and _all_in(narrow.peers, wide.peers or (), has_peer))
    return peers and (wide.ports is None or (narrow.ports is not None and _all_in(narrow.ports, wide.ports, has_port)))


def has_peer(wide: Peer, narrow: Peer) -> bool:
    """Has one peer all ends that the other one has?"""
    if isinstance(wide, IPBlock) or isinstance(narrow, IPBlock):
        return isinstance(wide, IPBlock) and isinstance(narrow, IPBlock) and _has_block(wide, narrow)
    if isinstance(wide.namespaces, str) or isinstance(narrow.namespaces, str):
        namespaces = wide.namespaces == narrow.namespaces or (wide.namespaces == EVERYTHING and narrow.namespaces != NODES)
    else:
        namespaces = selects_all_of(wide.namespaces, narrow.namespaces)
    return namespaces and selects_all_of(wide.pods, narrow.pods)


def meet(one: PolicyRule, other: PolicyRule) -> bool:
    """May two rules be about the same flow?"""
    return _any(one.ports, other.ports, _ports_meet) and _any(one.peers, other.peers, _peers_meet)


def selects_all_of(wide: LabelSelector, narrow: LabelSelector) -> bool:
    """Does it select whatever the other one selects?"""
    return all(any(_implies(one, other) for one in narrow.requirements) for other in wide.requirements)


def has_port(wide: PolicyPort, narrow: PolicyPort) -> bool:
    """Has it all ports that the other one has?"""
    if wide.protocol != narrow.protocol:
        return False
    if wide.port is None or wide.port == narrow.port:
        return True
    if isinstance(wide.port, str) or not isinstance(narrow.port, tuple):
        return False
    return wide.port[0] <= narrow.port[0] and narrow.port[1] <= wide.port[1]


def _all_in(some: Sequence[T], others: Sequence[T], has: Callable[[T, T], bool]) -> bool:
    left = set(some) - set(others)
    if len(left) * len(others) > MAX_COMPARED:
        return False
    return all(any(has(other, one) for other in others) for one in left)


def _any(some: Sequence[T] | None, others: Sequence[T] | None, meet: Callable[[T, T], bool]) -> bool:
    if some is None or others is None or len(some) * len(others) > MAX_COMPARED:
        return True
    return any(meet(one, other) for one in some for other in others)


def _ports_meet(one: PolicyPort, other: PolicyPort) -> bool:
    if one.protocol != other.protocol:
        return False
    if not isinstance(one.port, tuple) or not isinstance(other.port, tuple):
        return True
    return one.port[0] <= other.port[1] and other.port[0] <= one.port[1]


def _peers_meet(one: Peer, other: Peer) -> bool:
    if isinstance(one, IPBlock) and isinstance(other, IPBlock):
        within = any(_is_within(a.cidr, part) for a, b in ((one, other), (other, one)) for part in b.excepts)
        return _overlap(one.cidr, other.cidr) and not within
    if isinstance(one, IPBlock) or isinstance(other, IPBlock):
        return True
    if (one.namespaces == NODES) is not (other.namespaces == NODES) or _exclude(one.pods, other.pods):
        return False
    if isinstance(one.namespaces, str) or isinstance(other.namespaces, str):
        return (
            not isinstance(one.namespaces, str) or not isinstance(other.namespaces, str) or one.namespaces == other.namespaces
        )
    return not _exclude(one.namespaces, other.namespaces)


def _exclude(one: LabelSelector, other: LabelSelector) -> bool:
    """Is it sure that nothing is selected by both?"""
    return any(_excludes(a, b) or _excludes(b, a) for a in one.requirements for b in other.requirements if a.key == b.key)


def _excludes(one: Requirement, other: Requirement) -> bool:
    match one.operator, other.operator:
        case "In", "In":
            return not set(one.values) & set(other.values)
        case "In", "NotIn":
            return set(one.values) <= set(other.values)
        case "In" | "Exists", "DoesNotExist":
            return True
    return False


def _implies(one: Requirement, other: Requirement) -> bool:
    """Whatever labels fulfil the one, do they fulfil the other?"""
    if one == other or one.key != other.key:
        return one == other
    match one.operator, other.operator:
        case "In", "In":
            return set(one.values) <= set(other.values)
        case "In", "NotIn":
            return not set(one.values) & set(other.values)
        case "In", "Exists":
            return True
        case "NotIn", "NotIn":
            return set(other.values) <= set(one.values)
        case "DoesNotExist", "NotIn":
            return True
    return False


def _has_block(wide: IPBlock, narrow: IPBlock) -> bool:
    if not _is_within(narrow.cidr, wide.cidr):
        return False
    return all(
        not _overlap(part, narrow.cidr) or any(_is_within(part, hole) for hole in narrow.excepts) for part in wide.excepts
    )


def _is_within(inner: str, outer: str) -> bool:
    one, other = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]  # one family


def _overlap(one: str, other: str) -> bool:
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return first.version == second.version and first.overlaps(second)

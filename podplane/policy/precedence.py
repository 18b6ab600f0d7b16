"""What policies say in vain, because another rule decides before it: rules that are never reached, NetworkPolicies that an Admin policy
overrules, and policies of one priority between which the API does not choose.

As with `covering`, only what is sure from what policies say: of pods only those are looked at that a policy selects now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from podplane.model.cluster_policy import ClusterNetworkPolicy, Policy
from podplane.model.pod_info import PodInfo
from podplane.model.policy import (
    DIRECTIONS,
    EVERYTHING,
    Direction,
    LabelSelector,
    NetworkPolicy,
    Peer,
    PodSelector,
    PolicyRule,
    Requirement,
)
from podplane.policy.covering import covers, has_peer, meet
from podplane.policy.findings import LOOKED_AT, Finding, Mistake, of_rule, some
from podplane.policy.index import PolicyIndex
from podplane.policy.match import RuleId
from podplane.policy.tiers import rules_of, speaking

P = TypeVar("P", bound=Peer)
ALL_PODS = PolicyRule((PodSelector(EVERYTHING),))
KEEPS = {"ingress": "keeps no pod out", "egress": "keeps its pods from no pod"}


class Overruled(NamedTuple):
    """Of a NetworkPolicy what an Admin rule decides before it: one of its rules, or with number 0 all flows with pods."""

    direction: Direction
    number: int
    by: RuleId


def of_cluster_policy(
    policy: ClusterNetworkPolicy,
    pods: Sequence[PodInfo],
    index: PolicyIndex,
    policies: Iterable[ClusterNetworkPolicy],
    *,
    alone: bool,
) -> Iterator[Finding]:
    """What a policy says in vain, and what it leaves open. `pods` are some that it selects, `policies` all of its kind in their order.

    With `alone`, also what of others it decides before; without, what is mutual is told of the later one only, by name.
    """
    before = [one for one in policies if one.order < policy.order]
    for direction in DIRECTIONS:
        for number, rule in enumerate(policy.rules(direction) or (), 1):
            if not policy.unread and (text := _in_vain(policy, direction, number, rule, before)):
                yield Finding(policy, f"{direction} rule {number}", *text)
    under = {one.metadata.path: one for pod in _by_labels(pods) for one in index.policies_of(pod.metadata.path)}
    yield from _left_open(policy, under.values(), alone=alone)
    yield from _not_needed(policy, pods, index)
    if alone and policy.tier == "Admin":
        networked = [one for one in under.values() if isinstance(one, NetworkPolicy)]
        yield from _overruling(policy, networked, index, before)


def of_network_policy(policy: NetworkPolicy, index: PolicyIndex, policies: Iterable[ClusterNetworkPolicy]) -> Iterator[Finding]:
    """What of a NetworkPolicy one of these decides before it."""
    for direction, number, by in _overruled(policy, index, policies):
        if number:
            text = f"never decides, because {by} goes before it and matches all that it matches"
        else:
            text = f"{KEEPS[direction]}, because {by} goes before it and lets all pods"
            text += " in" if direction == "ingress" else " be reached"
        yield Finding(policy, f"{direction} rule {number}" if number else "", Mistake.OVERRULED, text)


def cluster_policies(index: PolicyIndex) -> list[ClusterNetworkPolicy]:
    """Those of an index, in the order in which they decide."""
    found = (one for one in index.policies.values() if isinstance(one, ClusterNetworkPolicy))
    return sorted(found, key=lambda one: one.order)


def _in_vain(
    policy: ClusterNetworkPolicy, direction: Direction, number: int, rule: PolicyRule, before: Iterable[ClusterNetworkPolicy]
) -> tuple[Mistake, str] | None:
    """That a rule is never reached, or says what a later one of its policy says, too."""
    rules = policy.rules(direction) or ()
    for n, wide in enumerate(rules[: number - 1], 1):
        if covers(wide, rule):
            text = f"never decides, because {direction} rule {n} ({wide.action}) goes before it and matches all that it matches"
            return Mistake.NEVER_REACHED, text
    by = _decided_before(policy.subjects, rule, direction, [one for one in before if one.tier == policy.tier], is_final=False)
    if by is None and policy.tier == "Baseline":
        by = _decided_before(policy.subjects, rule, direction, [one for one in before if one.tier == "Admin"])
    if by is not None:
        return Mistake.NEVER_REACHED, f"never decides, because {by} goes before it and matches all that it matches"
    for n, later in enumerate(rules[number:], number + 1):
        if later.action != rule.action:
            break
        if covers(later, rule):
            return Mistake.COVERED, f"decides nothing that {direction} rule {n} does not"
    return None


def _decided_before(
    subjects: PodSelector,
    rule: PolicyRule,
    direction: Direction,
    policies: Iterable[ClusterNetworkPolicy],
    *,
    is_final: bool = True,
) -> RuleId | None:
    """The rule of these policies, in their order, that decides all that a rule is about, for all of its subjects.

    With `is_final` it must not pass it on, nor may one before it do so.
    """
    for one, n, wide in rules_of(policies, direction):
        if is_final and wide.action == "Pass" and meet(wide, rule) and _selectors_meet(one.subjects, subjects):
            return None
        if not one.unread and has_peer(one.subjects, subjects) and covers(wide, rule):
            return of_rule(one, direction, n)
    return None


def _selectors_meet(one: PodSelector, other: PodSelector) -> bool:
    return meet(PolicyRule((one,)), PolicyRule((other,)))


def _left_open(policy: ClusterNetworkPolicy, under: Iterable[Policy], *, alone: bool) -> Iterator[Finding]:
    """Policies of its tier and priority that select some of its pods and decide otherwise."""
    for other in under:
        is_later = other.metadata.name < policy.metadata.name
        if other.order[:2] != policy.order[:2] or other.text == policy.text or not (alone or is_later):
            continue
        for direction in DIRECTIONS:
            pair = _conflict(policy, other, direction)
            if pair is not None:
                ours, theirs = (of_rule(one, direction, n) for one, n in zip((policy, other), pair, strict=True))
                text = f"{theirs} may match the same flows with the same priority, and the API leaves open which decides"
                first = min(policy, other, key=lambda one: one.order)
                text += f" (here {first.metadata.name}, the first by name)"
                yield Finding(policy, f"{direction} rule {ours.number} ({ours.action})", Mistake.EQUAL_PRIORITY, text)


def _conflict(policy: Policy, other: Policy, direction: Direction) -> tuple[int, int] | None:
    """The first two of their rules that may be about the same flow and decide otherwise, by number."""
    for _, n, rule in rules_of([policy], direction):
        for _, m, one in rules_of([other], direction):
            if rule.action != one.action and meet(rule, one):
                return n, m
    return None


def _not_needed(policy: ClusterNetworkPolicy, pods: Sequence[PodInfo], index: PolicyIndex) -> Iterator[Finding]:
    """That a Baseline policy of some pods is not asked, as NetworkPolicies select them all."""
    if policy.tier != "Baseline" or policy.subjects == PodSelector(EVERYTHING) or not pods or len(pods) >= LOOKED_AT:
        return
    groups = [index.policies_of(pod.metadata.path) for pod in _by_labels(pods)]
    for direction in DIRECTIONS:
        if policy.rules(direction) and all(speaking(group, direction, "NetworkPolicy") for group in groups):
            text = f"its {direction} rules decide nothing so far, because "
            text += f"NetworkPolicies select all its pods for {direction} and go before it"
            yield Finding(policy, "", Mistake.NEVER_REACHED, text)


def _overruling(
    policy: ClusterNetworkPolicy, others: Sequence[NetworkPolicy], index: PolicyIndex, before: Sequence[ClusterNetworkPolicy]
) -> Iterator[Finding]:
    """The NetworkPolicies that a policy decides before, by its rules."""
    found: dict[tuple[RuleId, bool], list[str]] = {}
    for other in others:
        for key in {
            (one.by, not one.number): None
            for one in _overruled(other, index, [*before, policy])
            if one.by.policy == policy.text
        }:
            found.setdefault(key, []).append(other.text)
    for (rule, of_all), paths in found.items():
        others_text = f"{'NetworkPolicy' if len(paths) == 1 else 'NetworkPolicies'} {some(paths)}"
        if of_all:
            text = f"decides about all pods before {others_text}"
        else:
            text = f"decides about all that is meant by a rule of {others_text} before that is asked"
        yield Finding(policy, f"{rule.direction} rule {rule.number} ({rule.action})", Mistake.OVERRULED, text)


def _overruled(policy: NetworkPolicy, index: PolicyIndex, policies: Iterable[ClusterNetworkPolicy]) -> Iterator[Overruled]:
    admin, subjects = [one for one in policies if one.tier == "Admin"], _by_its_labels(policy.subjects, index)
    for direction in DIRECTIONS:
        rules = policy.rules(direction)
        if rules is None or not admin or policy.unread:
            continue
        by = _decided_before(subjects, ALL_PODS, direction, admin)
        if by is not None and by.action == "Accept":
            yield Overruled(direction, 0, by)
            continue
        for number, rule in enumerate(rules[:LOOKED_AT], 1):
            peers = None if rule.peers is None else tuple([_by_its_labels(peer, index) for peer in rule.peers])
            if (by := _decided_before(subjects, rule._replace(peers=peers), direction, admin)) is not None:
                yield Overruled(direction, number, by)


def _by_its_labels(peer: P, index: PolicyIndex) -> P:
    """Pods of one namespace as those of namespaces with the labels that it has now: ClusterNetworkPolicies know no names."""
    if not isinstance(peer, PodSelector) or not isinstance(peer.namespaces, str):
        return peer
    namespace = index.namespace(peer.namespaces)
    labels = {} if namespace is None else namespace.metadata.labels
    return peer._replace(namespaces=LabelSelector.of(Requirement(key, "In", (value,)) for key, value in labels.items()))


def _by_labels(pods: Iterable[PodInfo]) -> Iterable[PodInfo]:
    """One of those that have the same labels in the same namespace."""
    return {(pod.metadata.namespace, pod.metadata.labels): pod for pod in pods}.values()

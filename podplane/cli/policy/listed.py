"""Policies, and what they mean for one pod, as text and as documents. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cli.policy.cluster import Cluster
from podplane.cli.policy.counts import Decided
from podplane.cli.policy.show import plain_lines
from podplane.cli.tables import table
from podplane.lab.errors import LabError
from podplane.model.cluster_policy import Policy
from podplane.model.policy import DIRECTIONS, TIERS, Direction, LabelSelector, NetworkPolicy, Rules
from podplane.model.words import counted
from podplane.policy.findings import some
from podplane.policy.tiers import rules_of, speaking
from podplane.policy.words import SHOWN, peer_text, rule_text, selector_text, short_selector_text, unread_text

Object = dict[str, Any]
ALL_PODS = "all pods"
PER_GROUP = "counted per group"
"""Of rules of many policies that select the same pods."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A policy, and how many pods are under it now."""

    policy: Policy
    pods: int

    def document(self, decided: Decided | None = None) -> Object:
        """For programs."""
        metadata = self.policy.metadata
        counts = {} if decided is None else self._counts(decided)
        return (
            {
                "namespace": metadata.namespace,
                "name": metadata.name,
                **_place(self.policy),
                "selector": _subjects(self.policy),
                "pods": self.pods,
            }
            | {direction: rules_document(self.policy, direction) for direction in DIRECTIONS}
            | counts
        )

    def _counts(self, decided: Decided) -> Object:
        allowed, denied = _decisions(self.policy, decided)
        together = decided.together(self.policy.metadata.path)
        group = {} if together is None else {"allowedByGroup": together}
        return {"allowedConnections": allowed, "deniedPackets": denied} | group


@dataclass(frozen=True, slots=True)
class OfPod:
    """The policies that select a pod."""

    pod: str
    node: str
    policies: tuple[Policy, ...]
    decided: Decided | None = None
    """What its node counted, if it says it: of all its pods under these policies."""

    def document(self) -> Object:
        """For programs."""
        policies = [
            {"namespace": one.metadata.namespace, "name": one.metadata.name, **_place(one)}
            | {direction: rules_document(one, direction) for direction in DIRECTIONS}
            | self._allowed(one)
            for one in self.policies
        ]
        isolated = {direction: self._is_isolated(direction) for direction in DIRECTIONS}
        found: Object = {"pod": self.pod, "node": self.node, "isolated": isolated, "policies": policies}
        if self.decided is not None:
            found["deniedPackets"] = {one: self._denied(one) for one in DIRECTIONS if isolated[one]}
        return found

    def _allowed(self, policy: Policy) -> Object:
        """The connections that each of its rules allowed; of one that denies or passes on, how often it did."""
        if self.decided is None:
            return {}
        path = policy.metadata.path
        rules = {one: range(1, 1 + len(policy.rules(one) or ())) for one in DIRECTIONS}
        counts = {one: [self.decided.rule(path, one, number) for number in numbers] for one, numbers in rules.items()}
        groups = {one: number for one in DIRECTIONS if (number := self.decided.together(path, one)) is not None}
        more = {"allowedByGroup": groups} if groups else {}
        return {"allowedConnections" if isinstance(policy, NetworkPolicy) else "decisions": counts} | more

    def _denied(self, direction: Direction) -> int | None:
        isolating = tuple(one.metadata.path for one in speaking(self.policies, direction, "NetworkPolicy"))
        return None if self.decided is None else self.decided.denied_by(direction, isolating)

    def text(self) -> str:
        """For people."""
        if not self.policies:
            return f"No policy selects pod {self.pod}: everything is allowed, to it and from it."
        return plain_lines("\n".join(self._lines()))

    def _lines(self) -> Iterator[str]:
        more = len(self.policies) - SHOWN
        names = ", ".join(one.text for one in self.policies[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
        yield f"Pod {self.pod}: {counted(len(self.policies), 'policy', 'policies')} ({names})"
        for direction in DIRECTIONS:
            yield ""
            yield from self._direction(direction)
        if self.decided is not None:
            yield from ("", f"Counted on {self.node}, for all its pods under a policy, since the first of them is.")
        unread = [f"{one.full_text}: {unread_text(one, what)}" for one in self.policies for what in one.unread]
        yield from ("", *unread) if unread else ()

    def _direction(self, direction: Direction) -> Iterator[str]:
        admin, network, baseline = (speaking(self.policies, direction, tier) for tier in TIERS)
        if not admin and not network and not baseline:
            yield f"{direction}: everything is allowed, as none of them says anything about it"
            return
        if admin:
            yield f"{direction}: the first rule that matches decides, and Pass goes on below (tier Admin)"
            yield from _rules(admin, direction, self.decided)
        if network:
            yield f"{direction}: what is allowed" + (", of all else" if admin else "")
            nothing = "  nothing, but to the pod itself" + (" and from its own node" if direction == "ingress" else "")
            yield from [*_rules(network, direction, self.decided)] or [nothing]
            yield from self._together(network, direction)
            if self.decided is not None:
                yield f"  all else is denied: {counted(self._denied(direction) or 0, 'packet')}"
            return
        if baseline:
            yield f"{direction}: the first rule that matches decides" + (", of all else" if admin else "") + " (tier Baseline)"
            yield from _rules(baseline, direction, self.decided)
        yield "  all else is allowed"

    def _together(self, policies: Iterable[Policy], direction: Direction) -> Iterator[str]:
        """What policies that are counted together allowed."""
        found = [self.decided.together(one.metadata.path, direction) for one in policies] if self.decided is not None else []
        number = next((number for number in found if number is not None), None)
        if number is not None:
            yield f"  {counted(number, 'connection')} of those {PER_GROUP}"

    def _is_isolated(self, direction: Direction) -> bool:
        return bool(speaking(self.policies, direction, "NetworkPolicy"))


def of_namespace(cluster: Cluster, namespace: str) -> list[Listed]:
    """The policies of a namespace, or of all (""), and those of the whole cluster, in the order of their tiers."""
    found = sorted(cluster.index.policies.values(), key=lambda one: one.order)
    chosen = [policy for policy in found if namespace in ("", policy.metadata.namespace) or not policy.metadata.namespace]
    return [Listed(policy, sum(1 for _ in cluster.index.selected(policy))) for policy in chosen]


def of_pod(cluster: Cluster, path: str, decided: Callable[[str], Decided | None] = lambda node: None) -> OfPod:
    """The policies of a pod; `decided` asks its node. LabError when it can have none."""
    pod = cluster.pods.get(path)
    if pod is None:
        raise LabError(f"there is no pod {path}{_of_that_workload(cluster, path)}")
    if pod.has_ended:
        raise LabError(f"pod {path} has ended ({cluster.states[path]}): no policy selects it any more")
    if pod.host_network:
        raise LabError(f"pod {path} is in its node's network: to policies it is its node, which none can select")
    policies = cluster.index.policies_of(path)
    return OfPod(path, pod.node, policies, decided(pod.node) if policies and pod.node else None)


def _of_that_workload(cluster: Cluster, path: str) -> str:
    """Pods whose names begin with that of what made them."""
    found = sorted(one for one in cluster.pods if one.startswith(f"{path}-"))
    return f": there is {some(found)}" if found else ""


def overview(found: Sequence[Listed], decided: Decided | None = None) -> str:
    """A line for each policy, those of the whole cluster first; with the connections that it allowed, and the packets that it denied."""
    parts = (
        (["TIER", "PRIORITY", "NAME", "SUBJECT"], [one for one in found if not one.policy.metadata.namespace]),
        (["NAMESPACE", "NAME", "SELECTOR"], [one for one in found if one.policy.metadata.namespace]),
    )
    return "\n\n".join(_overview(head, some, decided) for head, some in parts if some)


def _overview(head: list[str], found: Sequence[Listed], decided: Decided | None) -> str:
    rows = [[*head, "PODS", "INGRESS", "EGRESS"] + ([] if decided is None else ["ALLOWED", "DENIED"])]
    for one in found:
        policy = one.policy
        place = [*map(str, _place(policy).values())] or [policy.metadata.namespace]
        sides = [_summary(policy.rules(direction)) for direction in ("ingress", "egress")]
        counts = [] if decided is None else [f"{number:,}" for number in _decisions(policy, decided)]
        if decided is not None and (together := decided.together(policy.metadata.path)) is not None:
            counts[0] += f" + {together:,} of its group"
        rows.append(
            [*place, policy.metadata.name, _subjects(policy, short_selector_text) or ALL_PODS, str(one.pods), *sides, *counts]
        )
    return table(rows)


def _place(policy: Policy) -> Object:
    """Where it stands in the order of tiers; nothing of a NetworkPolicy."""
    return {} if isinstance(policy, NetworkPolicy) else {"tier": policy.tier, "priority": policy.priority}


def _subjects(policy: Policy, text: Callable[[LabelSelector], str] = selector_text) -> str:
    """The pods that it selects, as kubectl takes it; of the whole cluster in words."""
    return text(policy.pods) if isinstance(policy, NetworkPolicy) else peer_text(policy.subjects, "")


def _decisions(policy: Policy, decided: Decided) -> tuple[int, int]:
    """The connections that it allowed, and the packets that it denied."""
    path = policy.metadata.path
    if isinstance(policy, NetworkPolicy):
        return decided.allowed(path), decided.denied(path)
    counts = Counter[str]()
    for direction in DIRECTIONS:
        for _, number, rule in rules_of([policy], direction):
            counts[rule.action] += decided.rule(path, direction, number)
    return counts["Accept"], counts["Deny"]


def rules_document(policy: Policy, direction: Direction) -> list[str] | None:
    """A line for each rule; None when the policy says nothing about this direction."""
    rules = policy.rules(direction)
    return None if rules is None else [rule_text(rule, direction, policy) for rule in rules]


def _rules(policies: Sequence[Policy], direction: Direction, decided: Decided | None) -> Iterator[str]:
    for policy, number, rule in rules_of(policies, direction):
        what = "packet" if rule.action == "Deny" else "connection"
        times = "" if decided is None else f": {_times(policy.metadata.path, direction, number, what, decided)}"
        yield f"  {rule_text(rule, direction, policy)}   ({policy.text} {direction} rule {number}{times})"


def _times(path: str, direction: Direction, number: int, what: str, decided: Decided) -> str:
    """How often a rule decided."""
    alone = decided.rule(path, direction, number)
    if decided.together(path, direction) is None:
        return counted(alone, what)
    return f"{counted(alone, what)}, and {PER_GROUP}" if alone else PER_GROUP


def _summary(rules: Rules | None) -> str:
    if rules is None:
        return "-"
    if any(rule.peers is None and rule.ports is None and rule.action == "Accept" for rule in rules):
        return "everything"
    return counted(len(rules), "rule") if rules else "nothing"

"""Policies, and what they mean for one pod, as text and as documents. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cli.policy.cluster import Cluster
from podplane.cli.policy.counts import Decided
from podplane.cli.policy.show import plain_lines
from podplane.cli.tables import table
from podplane.lab.errors import LabError
from podplane.model.policy import DIRECTIONS, Direction, NetworkPolicy, Rules
from podplane.model.words import counted
from podplane.policy.words import rule_text, selector_text

Object = dict[str, Any]
ALL_PODS = "all pods"


@dataclass(frozen=True, slots=True)
class Listed:
    """A policy, and how many pods are under it now."""

    policy: NetworkPolicy
    pods: int

    def document(self, decided: Decided | None = None) -> Object:
        """For programs."""
        metadata = self.policy.metadata
        counts = {} if decided is None else self._counts(decided)
        return (
            {
                "namespace": metadata.namespace,
                "name": metadata.name,
                "selector": selector_text(self.policy.pods),
                "pods": self.pods,
            }
            | {direction: rules_document(self.policy, direction) for direction in DIRECTIONS}
            | counts
        )

    def _counts(self, decided: Decided) -> Object:
        path = self.policy.metadata.path
        return {"allowedConnections": decided.allowed(path), "deniedPackets": decided.denied(path)}


@dataclass(frozen=True, slots=True)
class OfPod:
    """The policies that select a pod."""

    pod: str
    node: str
    policies: tuple[NetworkPolicy, ...]
    decided: Decided | None = None
    """What its node counted, if it says it: of all its pods under these policies."""

    def document(self) -> Object:
        """For programs."""
        policies = [
            {"namespace": one.metadata.namespace, "name": one.metadata.name}
            | {direction: rules_document(one, direction) for direction in DIRECTIONS}
            | self._allowed(one)
            for one in self.policies
        ]
        isolated = {direction: self._is_isolated(direction) for direction in DIRECTIONS}
        found: Object = {"pod": self.pod, "node": self.node, "isolated": isolated, "policies": policies}
        if self.decided is not None:
            found["deniedPackets"] = {one: self._denied(one) for one in DIRECTIONS if isolated[one]}
        return found

    def _allowed(self, policy: NetworkPolicy) -> Object:
        """The connections that each of its rules allowed."""
        if self.decided is None:
            return {}
        path = policy.metadata.path
        rules = {one: range(1, 1 + len(policy.rules(one) or ())) for one in DIRECTIONS}
        counts = {one: [self.decided.rule(path, one, number) for number in numbers] for one, numbers in rules.items()}
        return {"allowedConnections": counts}

    def _denied(self, direction: Direction) -> int | None:
        isolating = tuple(one.metadata.path for one in self.policies if one.rules(direction) is not None)
        return None if self.decided is None else self.decided.denied_by(direction, isolating)

    def text(self) -> str:
        """For people."""
        if not self.policies:
            return f"No policy selects pod {self.pod}: everything is allowed, to it and from it."
        return plain_lines("\n".join(self._lines()))

    def _lines(self) -> Iterator[str]:
        names = ", ".join(one.metadata.path for one in self.policies)
        yield f"Pod {self.pod}: {counted(len(self.policies), 'policy', 'policies')} ({names})"
        for direction in DIRECTIONS:
            yield ""
            if not self._is_isolated(direction):
                yield f"{direction}: everything is allowed, as none of them says anything about it"
                continue
            yield f"{direction}: what is allowed"
            lines = [line for one in self.policies for line in _rules(one, direction, self.decided)]
            yield from lines or [
                "  nothing, but to the pod itself" + (" and from its own node" if direction == "ingress" else "")
            ]
            if self.decided is not None:
                yield f"  all else is denied: {counted(self._denied(direction) or 0, 'packet')}"

        if self.decided is not None:
            yield from ("", f"Counted on {self.node}, for all its pods under a policy, since the first of them is.")
        unread = [f"{one.metadata.path}: {what}: it allows nothing" for one in self.policies for what in one.unread]
        yield from ("", *unread) if unread else ()

    def _is_isolated(self, direction: Direction) -> bool:
        return any(one.rules(direction) is not None for one in self.policies)


def of_namespace(cluster: Cluster, namespace: str) -> list[Listed]:
    """The policies of a namespace, or of all ("")."""
    found = sorted(cluster.index.policies.items())
    chosen = [policy for _, policy in found if namespace in ("", policy.metadata.namespace)]
    return [Listed(policy, sum(1 for _ in cluster.index.selected(policy))) for policy in chosen]


def of_pod(cluster: Cluster, path: str, decided: Callable[[str], Decided | None] = lambda node: None) -> OfPod:
    """The policies of a pod; `decided` asks its node. LabError when it can have none."""
    pod = cluster.pods.get(path)
    if pod is None:
        raise LabError(f"there is no pod {path}")
    if pod.has_ended:
        raise LabError(f"pod {path} has ended ({cluster.states[path]}): no policy selects it any more")
    if pod.host_network:
        raise LabError(f"pod {path} is in its node's network: to policies it is its node, which none can select")
    policies = cluster.index.policies_of(path)
    return OfPod(path, pod.node, policies, decided(pod.node) if policies and pod.node else None)


def overview(found: Sequence[Listed], decided: Decided | None = None) -> str:
    """A line for each policy; with the connections that it allowed, and the packets that it denied."""
    rows = [["NAMESPACE", "NAME", "SELECTOR", "PODS", "INGRESS", "EGRESS"] + ([] if decided is None else ["ALLOWED", "DENIED"])]
    for one in found:
        metadata, selector = one.policy.metadata, selector_text(one.policy.pods) or ALL_PODS
        sides = [_summary(one.policy.rules(direction)) for direction in ("ingress", "egress")]
        path = metadata.path
        counts = [] if decided is None else [f"{decided.allowed(path):,}", f"{decided.denied(path):,}"]
        rows.append([metadata.namespace, metadata.name, selector, str(one.pods), *sides, *counts])
    return table(rows)


def rules_document(policy: NetworkPolicy, direction: Direction) -> list[str] | None:
    """A line for each rule; None when the policy says nothing about this direction."""
    rules = policy.rules(direction)
    return None if rules is None else [rule_text(rule, direction, policy.metadata.namespace) for rule in rules]


def _rules(policy: NetworkPolicy, direction: Direction, decided: Decided | None) -> Iterator[str]:
    path = policy.metadata.path
    for number, text in enumerate(rules_document(policy, direction) or (), 1):
        count = "" if decided is None else f": {counted(decided.rule(path, direction, number), 'connection')}"
        yield f"  {text}   ({path} {direction} rule {number}{count})"


def _summary(rules: Rules | None) -> str:
    if rules is None:
        return "-"
    if any(rule.peers is None and rule.ports is None for rule in rules):
        return "everything"
    return counted(len(rules), "rule") if rules else "nothing"

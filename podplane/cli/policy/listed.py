"""Policies, and what they mean for one pod, as text and as documents. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cli.policy.cluster import Cluster
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

    def document(self) -> Object:
        """For programs."""
        metadata = self.policy.metadata
        return {
            "namespace": metadata.namespace,
            "name": metadata.name,
            "selector": selector_text(self.policy.pods),
            "pods": self.pods,
        } | {direction: rules_document(self.policy, direction) for direction in DIRECTIONS}


@dataclass(frozen=True, slots=True)
class OfPod:
    """The policies that select a pod."""

    pod: str
    node: str
    policies: tuple[NetworkPolicy, ...]

    def document(self) -> Object:
        """For programs."""
        policies = [
            {"namespace": one.metadata.namespace, "name": one.metadata.name}
            | {direction: rules_document(one, direction) for direction in DIRECTIONS}
            for one in self.policies
        ]
        isolated = {direction: self._is_isolated(direction) for direction in DIRECTIONS}
        return {"pod": self.pod, "node": self.node, "isolated": isolated, "policies": policies}

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
            lines = [line for one in self.policies for line in _rules(one, direction)]
            yield from lines or [
                "  nothing, but to the pod itself" + (" and from its own node" if direction == "ingress" else "")
            ]

        unread = [f"{one.metadata.path}: {what}: it allows nothing" for one in self.policies for what in one.unread]
        yield from ("", *unread) if unread else ()

    def _is_isolated(self, direction: Direction) -> bool:
        return any(one.rules(direction) is not None for one in self.policies)


def of_namespace(cluster: Cluster, namespace: str) -> list[Listed]:
    """The policies of a namespace, or of all ("")."""
    found = sorted(cluster.index.policies.items())
    chosen = [policy for _, policy in found if namespace in ("", policy.metadata.namespace)]
    return [Listed(policy, sum(1 for _ in cluster.index.selected(policy))) for policy in chosen]


def of_pod(cluster: Cluster, path: str) -> OfPod:
    """The policies of a pod. LabError when it can have none."""
    pod = cluster.pods.get(path)
    if pod is None:
        raise LabError(f"there is no pod {path}")
    if pod.has_ended:
        raise LabError(f"pod {path} has ended ({cluster.states[path]}): no policy selects it any more")
    if pod.host_network:
        raise LabError(f"pod {path} is in its node's network: to policies it is its node, which none can select")
    return OfPod(path, pod.node, cluster.index.policies_of(path))


def overview(found: Sequence[Listed]) -> str:
    """A line for each policy."""
    rows = [["NAMESPACE", "NAME", "SELECTOR", "PODS", "INGRESS", "EGRESS"]]
    for one in found:
        metadata, selector = one.policy.metadata, selector_text(one.policy.pods) or ALL_PODS
        sides = [_summary(one.policy.rules(direction)) for direction in ("ingress", "egress")]
        rows.append([metadata.namespace, metadata.name, selector, str(one.pods), *sides])
    return table(rows)


def rules_document(policy: NetworkPolicy, direction: Direction) -> list[str] | None:
    """A line for each rule; None when the policy says nothing about this direction."""
    rules = policy.rules(direction)
    return None if rules is None else [rule_text(rule, direction, policy.metadata.namespace) for rule in rules]


def _rules(policy: NetworkPolicy, direction: Direction) -> Iterator[str]:
    for number, text in enumerate(rules_document(policy, direction) or (), 1):
        yield f"  {text}   ({policy.metadata.path} {direction} rule {number})"


def _summary(rules: Rules | None) -> str:
    if rules is None:
        return "-"
    if any(rule.peers is None and rule.ports is None for rule in rules):
        return "everything"
    return counted(len(rules), "rule") if rules else "nothing"

"""The scheduler: a node for each pod that has none, or the reason why there is none.

    all nodes → filters (each says why a node is out) → scores → the best; the same pods and nodes always give the same answer

Sources: kube-scheduler's plugins nodeaffinity, tainttoleration, noderesources, nodeports, and those of `neighbours`.
Preemption and priorities are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from podplane.apiserver.controllers.decision import Action, Bind, Controller, Note, Patch, View
from podplane.apiserver.controllers.neighbours import Neighbours
from podplane.apiserver.controllers.placement import fits_node, matches_term, taints_of, tolerates, untolerated
from podplane.apiserver.controllers.pods import condition_of, rfc3339, set_condition
from podplane.apiserver.controllers.usage import PODS, collides, host_ports, requests_of, thousandths
from podplane.controllers.objects import Key, Object, controller_of, key_of
from podplane.model.phases import ENDED

NAME = "default-scheduler"
ZONE = "topology.kubernetes.io/zone"
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
SPREAD_WEIGHT, ZONE_WEIGHT, NODE_WEIGHT = 20, 10, 100


def _waits(pod: Object) -> bool:
    """Is it this scheduler's to place, now?"""
    spec = pod["spec"]
    mine = not spec.get("nodeName") and spec.get("schedulerName", NAME) == NAME and not spec.get("schedulingGates")
    return mine and "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") not in ENDED


def _of_pod(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns itself while it waits; one that has a node concerns all that wait, since it may make or take room."""
    if not pod["spec"].get("nodeName"):
        yield key_of(pod)
    else:
        yield from _all_waiting(view, pod)


def _all_waiting(view: View, _: Object) -> Iterable[Key]:
    """Those that were tried; those that were not are in the queue."""
    return view.unschedulable()


def _of_a_pod(pod: Object) -> object:
    """What of a pod decides where it and others go."""
    metadata, ended = pod["metadata"], pod.get("status", {}).get("phase") in ENDED
    return pod["spec"], metadata.get("labels"), metadata.get("ownerReferences"), "deletionTimestamp" in metadata, ended


def _of_a_node(node: Object) -> object:
    """What of a node decides who goes there."""
    ready = condition_of(node, "Ready")
    return (
        node.get("spec"),
        node["metadata"].get("labels"),
        node.get("status", {}).get("allocatable"),
        ready and ready["status"],
    )


def _decide(view: View, key: Key) -> Iterator[Action]:
    pod = view.get("pods", key)
    if pod is None or not _waits(pod):
        return
    nodes = view.all("nodes")
    choice = _Choice(view, pod)
    refusals = {node["metadata"]["name"]: choice.refusals(node) for node in nodes}
    fitting = [node for node in nodes if not refusals[node["metadata"]["name"]]]
    if fitting:
        name = choice.best(fitting)
        yield Bind(pod, name)
        yield Note(pod, "Scheduled", f"Successfully assigned {key[0]}/{key[1]} to {name}")
        return
    message = explain(refusals)
    now, old = rfc3339(view.now), pod.get("status", {}).get("conditions", [])
    made = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    new = set_condition(old, made, now)
    if new != old:
        yield Patch("pods", pod, {"status": {"conditions": new}}, "status")
        yield Note(pod, "FailedScheduling", message, "Warning")


def explain(refusals: Mapping[str, Sequence[str]]) -> str:
    """Why no node takes the pod: how many for each reason, as the scheduler says it, then node by node."""
    if not refusals:
        return "no nodes available to schedule pods"
    counts = Counter(reason for reasons in refusals.values() for reason in reasons)
    text = f"0/{len(refusals)} nodes are available: {', '.join(sorted(f'{n} {reason}' for reason, n in counts.items()))}."
    if len(set(map(tuple, refusals.values()))) == 1:
        return text
    by_node = sorted(refusals.items(), key=lambda item: (len(item[0]), item[0]))
    detail = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in by_node[:20])
    return f"{text} By node: {detail}" + (f"; and {len(by_node) - 20} more." if len(by_node) > 20 else ".")


class _Choice:
    """One pod, and what it wants."""

    def __init__(self, view: View, pod: Object) -> None:
        self.view, self.pod, self.spec = view, pod, pod["spec"]
        self.requests = requests_of(self.spec)
        self.ports = list(host_ports(self.spec))
        self.neighbours = Neighbours(view, pod)
        owner = controller_of(pod)
        self.owner = owner["uid"] if owner is not None else ""
        self._kin = self._kin_by_zone()

    # Filters.

    def refusals(self, node: Object) -> Sequence[str]:
        """Why this node is out, nothing when it isn't; several reasons only if it lacks several resources."""
        why = fits_node(self.spec, node) or self._not_ready(node) or self._no_ports(node)
        if why:
            return (why,)
        if short := list(self._no_room(node)):
            return short
        why = self.neighbours.no_spread(node) or self.neighbours.no_company(node)
        return (why,) if why else ()

    def _not_ready(self, node: Object) -> str:
        """A node that is not ready is as good as tainted: the taint may be a moment late."""
        ready = condition_of(node, "Ready")
        if (ready is not None and ready["status"] == "True") or tolerates(self.spec, NOT_READY):
            return ""
        return untolerated(NOT_READY)

    def _no_room(self, node: Object) -> Iterator[str]:
        allocatable, used = node.get("status", {}).get("allocatable", {}), self.view.usage(node["metadata"]["name"]).requested
        for name, amount in self.requests.items():
            if amount and used[name] + amount > thousandths(allocatable.get(name, "0")):
                yield "Too many pods" if name == PODS else f"Insufficient {name}"

    def _no_ports(self, node: Object) -> str:
        if not self.ports:
            return ""
        used = [port for port, count in self.view.usage(node["metadata"]["name"]).ports.items() if count > 0]
        taken = any(collides(port, other) for port in self.ports for other in used)
        return "node(s) didn't have free ports for the requested pod ports" if taken else ""

    # Scores.

    def best(self, nodes: Sequence[Object]) -> str:
        """The node with the highest score; of equals the one with the fewest pods, then the first in natural order."""

        def order(node: Object) -> tuple[float, int, int, str]:
            name: str = node["metadata"]["name"]
            return -self.score(node), self.view.usage(name).requested[PODS], len(name), name

        return order(min(nodes, key=order))[3]

    def score(self, node: Object) -> float:
        """How well it suits: room, spread of pods of one controller, and what the pod prefers."""
        labels, usage = node["metadata"].get("labels", {}), self.view.usage(node["metadata"]["name"])
        total = self._free(node) - SPREAD_WEIGHT * usage.owners[self.owner] - ZONE_WEIGHT * self._kin[labels.get(ZONE, "")]
        total -= NODE_WEIGHT * sum(not tolerates(self.spec, taint) for taint in taints_of(node, "PreferNoSchedule"))
        for preference in (self.spec.get("affinity", {}).get("nodeAffinity") or {}).get(PREFERRED, ()):
            total += preference["weight"] * matches_term(preference["preference"], node)
        near = self.neighbours
        for affinity, sign in ((near.affinity, 1), (near.anti_affinity, -1)):
            for preference in affinity.get(PREFERRED, ()):
                term = preference["podAffinityTerm"]
                total += sign * preference["weight"] * bool(near.company(term)[labels.get(term["topologyKey"], "")])
        return total - SPREAD_WEIGHT * sum(near.crowd(constraint, node) for constraint in near.soft)

    def _kin_by_zone(self) -> Counter[str]:
        """How many pods of the same controller are in each zone; a pod that says itself how it is spread doesn't ask."""
        counts: Counter[str] = Counter()
        if self.owner and not self.spec.get("topologySpreadConstraints"):
            for node in self.view.all("nodes"):
                if zone := node["metadata"].get("labels", {}).get(ZONE):
                    counts[zone] += self.view.usage(node["metadata"]["name"]).owners[self.owner]
        return counts

    def _free(self, node: Object) -> float:
        """Percent of cpu and memory that would be left, the mean."""
        allocatable, used = node.get("status", {}).get("allocatable", {}), self.view.usage(node["metadata"]["name"]).requested
        shares = []
        for name in ("cpu", "memory"):
            there = thousandths(allocatable.get(name, "0"))
            if there:
                shares.append(100 * (there - used[name] - self.requests.get(name, 0)) / there)
        return sum(shares) / len(shares) if shares else 0.0


CONTROLLER = Controller(
    NAME, {"pods": _of_pod, "nodes": _all_waiting}, _decide, matters={"pods": _of_a_pod, "nodes": _of_a_node}
)

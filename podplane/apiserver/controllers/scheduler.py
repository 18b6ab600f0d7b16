"""The scheduler: a node for each pod that has none, or the reason why there is none.

    all nodes → filters (each says why a node is out) → scores → the best; the same pods and nodes always give the same answer

Sources: kube-scheduler's plugins nodeaffinity, tainttoleration, noderesources, nodeports, interpodaffinity, podtopologyspread.
Preemption and priorities are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from podplane.apiserver.controllers.decision import (
    Action,
    Bind,
    Controller,
    Key,
    Note,
    Object,
    Patch,
    View,
    controller_of,
    key_of,
)
from podplane.apiserver.controllers.placement import fits_node, is_chosen, matches_term, taints_of, tolerates
from podplane.apiserver.controllers.pods import ENDED, condition_of, rfc3339
from podplane.apiserver.controllers.usage import PODS, collides, host_ports, requests_of, thousandths
from podplane.apiserver.kinds.names import matches

NAME = "default-scheduler"
HOSTNAME = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
SPREAD_WEIGHT, NODE_WEIGHT = 20, 100


def _waits(pod: Object) -> bool:
    """Is it this scheduler's to place, now?"""
    spec = pod["spec"]
    mine = not spec.get("nodeName") and spec.get("schedulerName", NAME) == NAME and not spec.get("schedulingGates")
    return mine and "deletionTimestamp" not in pod["metadata"]


def _of_pod(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns itself while it waits; one that has a node concerns all that wait, since it may make or take room."""
    if not pod["spec"].get("nodeName"):
        yield key_of(pod)
    else:
        yield from _all_waiting(view, pod)


def _all_waiting(view: View, _: Object) -> Iterable[Key]:
    return map(key_of, view.unscheduled())


def _decide(view: View, key: Key) -> Iterator[Action]:
    pod = view.get("pods", key)
    if pod is None or not _waits(pod):
        return
    nodes = view.all("nodes")
    choice = _Choice(view, pod)
    refusals = {node["metadata"]["name"]: choice.refusal(node) for node in nodes}
    fitting = [node for node in nodes if not refusals[node["metadata"]["name"]]]
    if fitting:
        name = choice.best(fitting)
        yield Bind(pod, name)
        yield Note(pod, "Scheduled", f"Successfully assigned {key[0]}/{key[1]} to {name}")
        return
    message = explain(refusals)
    old = condition_of(pod, "PodScheduled")
    if old is None or old["status"] != "False" or old.get("message") != message:
        now = rfc3339(view.now)
        since = (
            old["lastTransitionTime"] if old is not None and old["status"] == "False" and "lastTransitionTime" in old else now
        )
        made = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": since,
        }
        others = [c for c in pod.get("status", {}).get("conditions", ()) if c["type"] != "PodScheduled"]
        yield Patch("pods", pod, {"status": {"conditions": [*others, made]}}, "status")
        yield Note(pod, "FailedScheduling", message, "Warning")


def explain(refusals: dict[str, str]) -> str:
    """Why no node takes the pod: how many for each reason, as the scheduler says it, then node by node."""
    if not refusals:
        return "no nodes available to schedule pods"
    counts = Counter(refusals.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: item[0]))
    text = f"0/{len(refusals)} nodes are available: {reasons}."
    if len(counts) == 1:
        return text
    by_node = sorted(refusals.items(), key=lambda item: (len(item[0]), item[0]))
    detail = "; ".join(f"{name}: {reason}" for name, reason in by_node[:20])
    return f"{text} By node: {detail}" + (f"; and {len(by_node) - 20} more." if len(by_node) > 20 else ".")


class _Choice:
    """One pod, and what it wants; what many nodes are asked about is worked out once."""

    def __init__(self, view: View, pod: Object) -> None:
        self.view, self.pod, self.spec = view, pod, pod["spec"]
        self.requests = requests_of(self.spec)
        self.ports = list(host_ports(self.spec))
        owner = controller_of(pod)
        self.owner = owner["uid"] if owner is not None else ""
        affinity = self.spec.get("affinity", {})
        self.affinity, self.anti_affinity = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        spread = self.spec.get("topologySpreadConstraints", ())
        self.hard = [c for c in spread if c.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"]
        self.soft = [c for c in spread if c.get("whenUnsatisfiable") == "ScheduleAnyway"]
        self._domains: dict[int, Counter[str]] = {}
        self._counts: dict[int, Counter[str]] = {}

    # Filters.

    def refusal(self, node: Object) -> str:
        """Why this node is out, "" when it isn't."""
        ready = condition_of(node, "Ready")
        if ready is None or ready["status"] != "True":
            return "node(s) were not ready"
        return (
            fits_node(self.spec, node)
            or self._no_room(node)
            or self._no_ports(node)
            or self._no_spread(node)
            or self._no_company(node)
        )

    def _no_room(self, node: Object) -> str:
        allocatable, used = node.get("status", {}).get("allocatable", {}), self.view.usage(node["metadata"]["name"]).requested
        for name, amount in self.requests.items():
            if amount and used[name] + amount > thousandths(allocatable.get(name, "0")):
                return "Too many pods" if name == PODS else f"Insufficient {name}"
        return ""

    def _no_ports(self, node: Object) -> str:
        if not self.ports:
            return ""
        used = [port for port, count in self.view.usage(node["metadata"]["name"]).ports.items() if count > 0]
        taken = any(collides(port, other) for port in self.ports for other in used)
        return "node(s) didn't have free ports for the requested pod ports" if taken else ""

    def _no_spread(self, node: Object) -> str:
        labels = node["metadata"].get("labels", {})
        for constraint in self.hard:
            if constraint["topologyKey"] not in labels:
                return "node(s) didn't match pod topology spread constraints (missing required label)"
            counts = self.spread_counts(constraint)
            few = len(counts) < constraint.get("minDomains", 1)
            lowest = 0 if few else min(counts.values(), default=0)
            own = bool(self._is_selected(constraint, self.pod))
            if counts[labels[constraint["topologyKey"]]] + own - lowest > constraint.get("maxSkew", 1):
                return "node(s) didn't match pod topology spread constraints"
        return ""

    def _no_company(self, node: Object) -> str:
        labels = node["metadata"].get("labels", {})
        for term in self.affinity.get(REQUIRED, ()):
            domain = self.company(term)
            alone = not domain and self._selects(term, self.pod)  # the first of those that want each other
            if not alone and not domain[labels.get(term["topologyKey"], "")]:
                return "node(s) didn't match pod affinity rules"
        for term in self.anti_affinity.get(REQUIRED, ()):
            if labels.get(term["topologyKey"]) is not None and self.company(term)[labels[term["topologyKey"]]]:
                return "node(s) didn't match pod anti-affinity rules"
        for other, term in self.view.shunning():
            there = self.view.get("nodes", ("", other["spec"]["nodeName"]))
            key = term["topologyKey"]
            same = there is not None and key in labels and there["metadata"].get("labels", {}).get(key) == labels[key]
            if same and self._selects(term, self.pod, other):
                return "node(s) didn't satisfy existing pods anti-affinity rules"
        return ""

    def _selects(self, term: Object, pod: Object, asking: Object | None = None) -> bool:
        """Does an affinity term of a pod choose another one?"""
        return bool(self._in_namespaces(term, pod, asking or self.pod) and matches_selector(term.get("labelSelector"), pod))

    def _in_namespaces(self, term: Object, pod: Object, asking: Object) -> bool:
        namespace = pod["metadata"]["namespace"]
        selector = term.get("namespaceSelector")
        if selector is not None:
            found = self.view.get("namespaces", ("", namespace))
            if found is not None and matches(selector, found["metadata"].get("labels", {})):
                return True
        elif not term.get("namespaces"):
            return bool(namespace == asking["metadata"]["namespace"])
        return namespace in term.get("namespaces", ())

    def company(self, term: Object) -> Counter[str]:
        """How many pods that a term chooses there are in each of its domains."""
        return self._tally(self._domains, term, term["topologyKey"], lambda pod: self._selects(term, pod))

    def spread_counts(self, constraint: Object) -> Counter[str]:
        """How many pods that a constraint chooses there are in each domain that the pod may go to."""
        key = constraint["topologyKey"]
        if id(constraint) not in self._counts:
            counts = self._tally(self._counts, constraint, key, lambda pod: self._is_selected(constraint, pod))
            eligible: Counter[str] = Counter()
            for node in self.view.all("nodes"):
                value = node["metadata"].get("labels", {}).get(key)
                if value is not None and is_chosen(self.spec, node):
                    eligible[value] = counts[value]
            self._counts[id(constraint)] = eligible
        return self._counts[id(constraint)]

    def _is_selected(self, constraint: Object, pod: Object) -> bool:
        same = pod["metadata"]["namespace"] == self.pod["metadata"]["namespace"]
        return bool(same and matches_selector(constraint.get("labelSelector"), pod))

    def _tally(self, memory: dict[int, Counter[str]], term: Object, key: str, wanted: Callable[[Object], bool]) -> Counter[str]:
        if id(term) not in memory:
            counts: Counter[str] = Counter()
            for node in self.view.all("nodes"):
                value = node["metadata"].get("labels", {}).get(key)
                if value is not None:
                    there = (p for p in self.view.on_node(node["metadata"]["name"]) if _counts(p))
                    counts[value] += sum(1 for pod in there if wanted(pod))
            memory[id(term)] = +counts
        return memory[id(term)]

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
        total = self._free(node) - SPREAD_WEIGHT * (usage.owners[self.owner] if self.owner else 0)
        total -= NODE_WEIGHT * sum(not tolerates(self.spec, taint) for taint in taints_of(node, "PreferNoSchedule"))
        for preference in (self.spec.get("affinity", {}).get("nodeAffinity") or {}).get(PREFERRED, ()):
            total += preference["weight"] * matches_term(preference["preference"], node)
        for terms, sign in ((self.affinity.get(PREFERRED, ()), 1), (self.anti_affinity.get(PREFERRED, ()), -1)):
            for preference in terms:
                term = preference["podAffinityTerm"]
                total += sign * preference["weight"] * bool(self.company(term)[labels.get(term["topologyKey"], "")])
        for constraint in self.soft:
            total -= SPREAD_WEIGHT * self.spread_counts(constraint)[labels.get(constraint["topologyKey"], "")]
        return total

    def _free(self, node: Object) -> float:
        """Percent of cpu and memory that would be left, the mean."""
        allocatable, used = node.get("status", {}).get("allocatable", {}), self.view.usage(node["metadata"]["name"]).requested
        shares = []
        for name in ("cpu", "memory"):
            there = thousandths(allocatable.get(name, "0"))
            if there:
                shares.append(100 * (there - used[name] - self.requests.get(name, 0)) / there)
        return sum(shares) / len(shares) if shares else 0.0


def _counts(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") not in ENDED


def matches_selector(selector: Object | None, pod: Object) -> bool:
    """Does a label selector choose a pod? None chooses nothing."""
    return selector is not None and matches(selector, pod["metadata"].get("labels", {}))


CONTROLLER = Controller(NAME, {"pods": _of_pod, "nodes": _all_waiting}, _decide)

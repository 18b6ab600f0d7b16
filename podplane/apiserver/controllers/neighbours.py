"""Which pods a pod wants near it, which it shuns, and how it wants to be spread among others of its kind. Pure.

Sources: kube-scheduler's plugins interpodaffinity and podtopologyspread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from podplane.apiserver.controllers.decision import View
from podplane.apiserver.controllers.placement import REFUSING, REQUIRED, is_chosen, taints_of, tolerates
from podplane.controllers.objects import Object, matches
from podplane.model.phases import ENDED


class Neighbours:
    """One pod among all others; what many nodes are asked about is worked out once."""

    def __init__(self, view: View, pod: Object) -> None:
        self.view, self.pod, self.spec = view, pod, pod["spec"]
        affinity = self.spec.get("affinity") or {}
        self.affinity, self.anti_affinity = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        spread = self.spec.get("topologySpreadConstraints", ())
        self.hard = [c for c in spread if c.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"]
        self.soft = [c for c in spread if c.get("whenUnsatisfiable") == "ScheduleAnyway"]
        self._nodes = view.all("nodes")
        self._tallies: dict[int, Counter[str]] = {}

    # Affinity.

    def no_company(self, node: Object) -> str:
        """ "", or why the pods near this node keep the pod away."""
        labels = node["metadata"].get("labels", {})
        if not self._is_attracted(labels):
            return "node(s) didn't match pod affinity rules"
        for term in self.anti_affinity.get(REQUIRED, ()):
            if term["topologyKey"] in labels and self.company(term)[labels[term["topologyKey"]]]:
                return "node(s) didn't match pod anti-affinity rules"
        if any(self._is_shunned(labels, other, term) for other, term in self.view.shunning()):
            return "node(s) didn't satisfy existing pods anti-affinity rules"
        return ""

    def _is_attracted(self, labels: Object) -> bool:
        """Is there a pod near that matches all terms, or is this the first of those that want each other?"""
        terms = self.affinity.get(REQUIRED, ())
        if any(term["topologyKey"] not in labels for term in terms):
            return False
        found = [self._tally(term, lambda pod: all(self._selects(each, pod) for each in terms)) for term in terms]
        if all(domains[labels[term["topologyKey"]]] for term, domains in zip(terms, found, strict=True)):
            return True
        return not any(found) and all(self._selects(term, self.pod) for term in terms)

    def _is_shunned(self, labels: Object, other: Object, term: Object) -> bool:
        """Does another pod, which has this anti-affinity, want the pod nowhere near?"""
        there, key = self.view.get("nodes", ("", other["spec"]["nodeName"])), term["topologyKey"]
        same = there is not None and key in labels and there["metadata"].get("labels", {}).get(key) == labels[key]
        return same and self._selects(term, self.pod, other)

    def company(self, term: Object) -> Counter[str]:
        """How many pods that a term chooses there are in each of its domains, those that are leaving among them."""
        return self._tally(term, lambda pod: self._selects(term, pod))

    def _selects(self, term: Object, pod: Object, asking: Object | None = None) -> bool:
        """Does an affinity term of a pod choose another one?"""
        asking = asking or self.pod
        return self._in_namespaces(term, pod, asking) and is_alike(term, pod, asking)

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

    def _tally(self, term: Object, wanted: Callable[[Object], bool]) -> Counter[str]:
        if id(term) not in self._tallies:
            counts: Counter[str] = Counter()
            for node in self._nodes:
                value = node["metadata"].get("labels", {}).get(term["topologyKey"])
                if value is not None:
                    counts[value] += sum(1 for pod in self._pods_on(node) if wanted(pod))
            self._tallies[id(term)] = +counts
        return self._tallies[id(term)]

    def _pods_on(self, node: Object) -> list[Object]:
        there = self.view.on_node(node["metadata"]["name"])
        return [pod for pod in there if pod.get("status", {}).get("phase") not in ENDED]

    # Spread.

    def no_spread(self, node: Object) -> str:
        """ "", or why the pod would stand too close to others of its kind there."""
        labels = node["metadata"].get("labels", {})
        for constraint in self.hard:
            if constraint["topologyKey"] not in labels:
                return "node(s) didn't match pod topology spread constraints (missing required label)"
            counts = self.spread_counts(constraint)
            few = len(counts) < constraint.get("minDomains", 1)
            lowest = 0 if few else min(counts.values(), default=0)
            own = self._is_selected(constraint, self.pod)
            if counts[labels[constraint["topologyKey"]]] + own - lowest > constraint.get("maxSkew", 1):
                return "node(s) didn't match pod topology spread constraints"
        return ""

    def crowd(self, constraint: Object, node: Object) -> int:
        """How many others are in this node's domain; without a domain it is worse than the fullest."""
        counts, value = self.spread_counts(constraint), node["metadata"].get("labels", {}).get(constraint["topologyKey"])
        return counts[value] if value is not None else 1 + max(counts.values(), default=0)

    def spread_counts(self, constraint: Object) -> Counter[str]:
        """How many pods that a constraint chooses there are in each domain; nodes that the pod may not go to are none of it."""
        if id(constraint) not in self._tallies:
            counts: Counter[str] = Counter()
            for node in filter(lambda node: self._is_eligible(constraint, node), self._nodes):
                there = (pod for pod in self._pods_on(node) if "deletionTimestamp" not in pod["metadata"])
                chosen = sum(self._is_selected(constraint, pod) for pod in there)
                counts[node["metadata"]["labels"][constraint["topologyKey"]]] += chosen
            self._tallies[id(constraint)] = counts
        return self._tallies[id(constraint)]

    def _is_eligible(self, constraint: Object, node: Object) -> bool:
        """Does the pod count this node? One that lacks the key of any constraint is left out (KEP-3094 for the policies)."""
        labels = node["metadata"].get("labels", {})
        if any(each["topologyKey"] not in labels for each in (*self.hard, constraint)):
            return False
        if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not is_chosen(self.spec, node):
            return False
        honors = constraint.get("nodeTaintsPolicy", "Ignore") == "Honor"
        return not honors or all(tolerates(self.spec, taint) for taint in taints_of(node, *REFUSING))

    def _is_selected(self, constraint: Object, pod: Object) -> bool:
        same = pod["metadata"]["namespace"] == self.pod["metadata"]["namespace"]
        return bool(same and is_alike(constraint, pod, self.pod))


def is_alike(term: Object, pod: Object, asking: Object) -> bool:
    """Does a term's selector choose a pod, and has it the labels that the asking one has of the keys that it names (KEP-3243, KEP-3633)?"""
    selector, labels, own = term.get("labelSelector"), pod["metadata"].get("labels", {}), asking["metadata"].get("labels", {})
    if selector is None or not matches(selector, labels):
        return False
    same = all(labels.get(key) == own[key] for key in term.get("matchLabelKeys", ()) if key in own)
    return same and all(labels.get(key) != own[key] for key in term.get("mismatchLabelKeys", ()) if key in own)

"""The view of the stored objects that controllers decide from, with the indices that decisions need."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import TypeVar

from podplane.apiserver.controllers import topology_hints
from podplane.apiserver.controllers.allocated import Allocated
from podplane.apiserver.controllers.contents import Content, Contents
from podplane.apiserver.controllers.pods import condition_of
from podplane.apiserver.controllers.usage import NodeUsage, Usage
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.store import Store
from podplane.controllers.load_balancers import LoadBalancers
from podplane.controllers.objects import Key, Object, controller_of, is_related_alike, key_of, matches
from podplane.model.config import NODE_GRACE_SECONDS
from podplane.model.phases import ENDED

At = TypeVar("At")
ADOPTED = ("pods", "replicasets.apps", "controllerrevisions.apps")
"""What controllers adopt when it has no controller."""
SERVICES = "services"
SELECTING = (SERVICES, "replicasets.apps", "jobs.batch")
"""Whose selectors are indexed: of these, a change of any pod asks which choose it."""
ANY_LABELS = ("", "")
"""Stands for a selector of expressions only."""
NONE: frozenset[Key] = frozenset()
BREAK_SECONDS = 5.0
"""A clock that leaps so far ahead tells of a suspension."""


class StoredView:
    """`View` over a store; `observe` keeps its indices current."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime.datetime],
        elapsed: Callable[[], float] = time.monotonic,
        node_grace: float = NODE_GRACE_SECONDS,
    ) -> None:
        self.node_grace = node_grace
        self._store = store
        self._clock = clock
        self._elapsed = elapsed
        self._awake_since, self._woke, self._refusals = clock(), elapsed(), store.refusals
        self._controlled: dict[tuple[str, Key, str], set[Key]] = {}
        self._selecting: dict[tuple[str, str, tuple[str, str]], set[Key]] = {}
        self._orphans: dict[tuple[str, str], set[Key]] = {}
        self._labelled: dict[tuple[str, str, str], set[Key]] = {}
        self._on_node: dict[str, set[Key]] = {}
        self._shunning: set[Key] = set()
        self._unschedulable: set[Key] = set()
        self._usage = Usage()
        self._hinted: set[Key] = set()
        self._load_balancers = LoadBalancers()
        self._contents = Contents()
        self._allocated = Allocated()
        for resource in store.resources():
            for stored in store.all(resource):
                self._index(resource, stored.object, add=True)

    @property
    def now(self) -> datetime.datetime:
        """The time."""
        return self._clock()

    @property
    def awake_since(self) -> datetime.datetime:
        """Since when it is looked without a break. Time that passes without the machine's own (CLOCK_MONOTONIC) is one, and so is a time
        in which nobody could write a sign of life."""
        now, elapsed, refusals = self._clock(), self._elapsed(), self._store.refusals
        if (now - self._awake_since).total_seconds() - (elapsed - self._woke) > BREAK_SECONDS or refusals != self._refusals:
            self._awake_since, self._woke, self._refusals = now, elapsed, refusals
        return self._awake_since

    def get(self, resource: str, key: Key) -> Object | None:
        """One object."""
        stored = self._store.get(resource, key)
        return stored.object if stored is not None else None

    def all(self, resource: str, namespace: str = "") -> list[Object]:
        """All objects of a resource, or of one namespace, by name."""
        return [stored.object for stored in self._store.all(resource, namespace)]

    def controlled(self, resource: str, owner: Object) -> list[Object]:
        """The objects whose controller this one is, by name."""
        found = self.controlled_by_name(resource, owner["kind"], key_of(owner))
        return [object_ for object_ in found if _controller_uid(object_) == owner["metadata"]["uid"]]

    def controlled_by_name(self, resource: str, kind: str, key: Key) -> list[Object]:
        """The objects of a namespace whose controller has this kind and name, whichever its uid, by name."""
        return self._these(resource, self._controlled.get((resource, key, kind), ()))

    def may_select(self, resource: str, namespace: str, labels: Mapping[str, str]) -> list[Object]:
        """The objects of a namespace whose selectors may choose a pod with these labels, by name."""
        found = (self._selecting.get((resource, namespace, pair), NONE) for pair in (*labels.items(), ANY_LABELS))
        return self._these(resource, NONE.union(*found))

    def orphans(self, resource: str, namespace: str) -> list[Object]:
        """The objects of a namespace that have no controller, of the resources that are adopted."""
        return self._these(resource, self._orphans.get((resource, namespace), ()))

    def unowned(self, namespace: str, selector: Object) -> list[Object]:
        """The pods of a namespace that have no controller and that a selector chooses, by name."""
        pairs = selector.get("matchLabels", {}).items()
        sets = [self._orphans.get(("pods", namespace), NONE), *(self._labelled.get((namespace, *pair), NONE) for pair in pairs)]
        first, *others = sorted(sets, key=len)
        found = self._these("pods", first.intersection(*others))
        return [pod for pod in found if matches(selector, pod["metadata"].get("labels", {}))]

    def content(self, namespace: str) -> Content:
        """How much is in a namespace, and what holds it."""
        return self._contents.of(namespace)

    def allocated(self) -> Allocated:
        """The addresses that Services have."""
        return self._allocated

    def labelled(self, namespace: str, selector: Mapping[str, str]) -> list[Object]:
        """The pods of a namespace that have all these labels, by name."""
        sets = sorted((self._labelled.get((namespace, *pair), NONE) for pair in selector.items()), key=len)
        return self._these("pods", sets[0].intersection(*sets[1:])) if sets else []

    def on_node(self, node: str) -> list[Object]:
        """The pods that were given to this node."""
        return self._these("pods", self._on_node.get(node, ()))

    def unschedulable(self) -> Iterable[Key]:
        """The pods that no node was found for."""
        return self._unschedulable

    def hinted(self) -> Iterable[Key]:
        """The Services that ask for hints by zone."""
        return sorted(self._hinted)

    def usage(self, node: str) -> NodeUsage:
        """What the pods of a node use."""
        return self._usage.of(node)

    def load_balancers(self) -> LoadBalancers:
        """Load balancers, and who has which address."""
        return self._load_balancers

    def shunning(self) -> Iterator[tuple[Object, Object]]:
        """The required anti-affinities of pods that have a node."""
        for pod in self._these("pods", self._shunning):
            for term in terms_of_anti_affinity(pod):
                yield pod, term

    def _these(self, resource: str, keys: Set[Key] | tuple[()]) -> list[Object]:
        found = (self._store.get(resource, key) for key in sorted(keys))
        return [stored.object for stored in found if stored is not None]

    def observe(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """A write."""
        if resource.id == "pods" and old is not None and new is not None and _is_indexed_alike(old, new):
            return
        if old is not None:
            self._index(resource.id, old, add=False)
        if new is not None:
            self._index(resource.id, new, add=True)

    def _index(self, resource: str, object_: Object, *, add: bool) -> None:
        owner = controller_of(object_)
        if owner is not None:
            controller = (object_["metadata"].get("namespace", ""), owner["name"])
            _change(self._controlled, (resource, controller, owner["kind"]), key_of(object_), add=add)
        elif resource in ADOPTED:
            _change(self._orphans, (resource, object_["metadata"]["namespace"]), key_of(object_), add=add)
        if (pair := indexed_label(resource, object_)) is not None:
            _change(self._selecting, (resource, object_["metadata"]["namespace"], pair), key_of(object_), add=add)
        for index in (self._load_balancers, self._contents, self._allocated):
            index.observe(resource, object_, add=add)
        if resource == SERVICES and topology_hints.is_wanted(object_):
            (self._hinted.add if add else self._hinted.discard)(key_of(object_))
        if resource == "pods":
            self._usage.observe(None if add else object_, object_ if add else None)
            if object_["spec"].get("nodeName") and terms_of_anti_affinity(object_):
                (self._shunning.add if add else self._shunning.discard)(key_of(object_))
            if is_unschedulable(object_):
                (self._unschedulable.add if add else self._unschedulable.discard)(key_of(object_))
            for pair in object_["metadata"].get("labels", {}).items():
                _change(self._labelled, (object_["metadata"]["namespace"], *pair), key_of(object_), add=add)
            _change(self._on_node, object_["spec"].get("nodeName", ""), key_of(object_), add=add)


def indexed_label(resource: str, object_: Object) -> tuple[str, str] | None:
    """The label under which a selector is found: one of those that each pod that it chooses has, or `ANY_LABELS`; None without one."""
    if resource not in SELECTING:
        return None
    selector = object_["spec"].get("selector") or {}
    pairs: dict[str, str] = selector if resource == SERVICES else selector.get("matchLabels", {})
    if pairs:
        return min(pairs.items())
    return None if resource == SERVICES else ANY_LABELS  # a Service without a selector chooses nothing


def _is_indexed_alike(old: Object, new: Object) -> bool:
    """Do two versions of a pod say the same to the indices? Most writes of a pod change nothing but its conditions."""
    before, now = (pod.get("status", {}).get("phase") in ENDED for pod in (old, new))
    return is_related_alike(old, new) and before == now and is_unschedulable(old) == is_unschedulable(new)


def _controller_uid(object_: Object) -> str | None:
    owner = controller_of(object_)
    return owner["uid"] if owner is not None else None


def is_unschedulable(pod: Object) -> bool:
    """Has the scheduler found no node for it yet?"""
    tried = condition_of(pod, "PodScheduled") if not pod["spec"].get("nodeName") else None
    return tried is not None and tried["status"] == "False" and tried.get("reason") == "Unschedulable"


def terms_of_anti_affinity(pod: Object) -> list[Object]:
    """The terms of a pod's required anti-affinity, while it counts."""
    if pod.get("status", {}).get("phase") in ENDED:
        return []
    affinity = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    found: list[Object] = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [])
    return found


def _change(index: dict[At, set[Key]], at: At, key: Key, *, add: bool) -> None:
    if add:
        index.setdefault(at, set()).add(key)
    elif at in index:
        index[at].discard(key)
        if not index[at]:
            del index[at]

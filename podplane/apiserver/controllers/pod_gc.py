"""Pods whose node is gone: nobody will end them, so they are deleted.

Source: Kubernetes' controller-manager (pod-garbage-collector).
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator

import msgspec

from podplane.apiserver.controllers.decision import Action, Again, Controller, Delete, Patch, View
from podplane.apiserver.controllers.pods import rfc3339
from podplane.apiserver.kinds.disruption import BY_POD_GC, disrupted
from podplane.controllers.objects import Key, Object, key_of
from podplane.model.phases import ENDED

QUARANTINE_SECONDS = 40.0
"""So long a node may be away: it may register again."""
PERIOD_SECONDS = 20.0
"""So old a pod is at the least. Kubernetes collects once in this time: an owner that makes pods for a missing node makes one each time."""


class Missing(msgspec.Struct):
    """A node that is not there: since when that is known, and which pods name it."""

    since: datetime.datetime
    pods: set[Key] = msgspec.field(default_factory=set)


class PodCollector:
    """The missing nodes, each until it is back or no pod names it any more: one that goes again is waited for again.

    That is remembered here only: whoever starts anew waits anew.
    """

    def __init__(self, machines: Collection[str] = ()) -> None:
        self._machines = machines
        self._missing: dict[str, Missing] = {}

    def decide(self, view: View, key: Key) -> Iterable[Action]:
        """Delete a pod whose node is missing for too long."""
        pod = view.get("pods", key)
        name = pod["spec"].get("nodeName") if pod is not None else None
        if pod is None or not name or name in self._machines:
            return
        if view.get("nodes", ("", name)) is not None:
            return
        missing = self._missing.setdefault(name, Missing(view.now))
        missing.pods.add(key)
        made = datetime.datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
        left = max(
            QUARANTINE_SECONDS - (view.now - missing.since).total_seconds(), PERIOD_SECONDS - (view.now - made).total_seconds()
        )
        if left > 0:
            yield Again(left)
        else:
            yield from _end(pod, view.now)

    def pods_of(self, view: View, node: Object) -> Iterable[Key]:
        """A node that goes, or comes back, concerns its pods."""
        name = node["metadata"]["name"]
        moved = view.get("nodes", ("", name)) is None or self._missing.pop(name, None) is not None
        return map(key_of, view.on_node(name)) if moved else ()

    def itself(self, view: View, pod: Object) -> Iterable[Key]:
        """A pod is concerned when its node is not there; the last that goes takes with it what is known of the node."""
        name, key = pod["spec"].get("nodeName"), key_of(pod)
        if not name or view.get("nodes", ("", name)) is not None:
            return
        if (missing := self._missing.get(name)) is not None and view.get("pods", key) is None:
            missing.pods.discard(key)
            if not missing.pods:
                del self._missing[name]
        yield key


def _end(pod: Object, now: datetime.datetime) -> Iterator[Action]:
    """Nobody will say any more how it ended: it has failed. Whoever keeps its object by a finalizer sees that."""
    status: Object = {"conditions": disrupted(pod, BY_POD_GC, rfc3339(now))}
    if pod.get("status", {}).get("phase") not in ENDED:
        status["phase"] = "Failed"
    yield Patch("pods", pod, {"status": status}, "status")
    yield Delete("pods", pod, 0)


def controller(machines: Collection[str] = ()) -> Controller:
    """The controller; pods of `machines` need no node."""
    collector = PodCollector(machines)
    return Controller("pod-garbage-collector", {"nodes": collector.pods_of, "pods": collector.itself}, collector.decide)

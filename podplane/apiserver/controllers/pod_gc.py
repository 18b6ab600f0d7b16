"""Pods whose node is gone: nobody will end them, so they are deleted.

Source: Kubernetes' controller-manager (pod-garbage-collector).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from podplane.apiserver.controllers.decision import Action, Again, Controller, Delete, Key, Object, View, itself

QUARANTINE_SECONDS = 40.0
"""So long a node may be away: it may register again."""


class PodCollector:
    """Since when nodes that have pods are missing. That is remembered here only: whoever starts anew waits anew."""

    def __init__(self) -> None:
        self._missing: dict[str, datetime.datetime] = {}

    def decide(self, view: View, key: Key) -> Iterable[Action]:
        """Delete the pods of a node that is missing for too long."""
        name = key[1]
        pods = view.on_node(name)
        if not pods or view.get("nodes", key) is not None:
            self._missing.pop(name, None)
            return
        since = self._missing.setdefault(name, view.now)
        left = QUARANTINE_SECONDS - (view.now - since).total_seconds()
        if left > 0:
            yield Again(left)
            return
        for pod in pods:
            yield Delete("pods", pod, 0)


def _its_node(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns its node, if that is not there."""
    name = pod["spec"].get("nodeName")
    if name and view.get("nodes", ("", name)) is None:
        yield "", name


def controller() -> Controller:
    """The controller."""
    return Controller("pod-garbage-collector", {"nodes": itself, "pods": _its_node}, PodCollector().decide)

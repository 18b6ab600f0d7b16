"""How many objects each namespace has, and which finalizers they have: so that what remains of one is not counted by walking it."""

from __future__ import annotations

from collections import Counter

import msgspec

from podplane.controllers.objects import Object


class Content(msgspec.Struct):
    """Of one namespace: how many objects of each resource, and how many times each finalizer."""

    resources: Counter[str] = msgspec.field(default_factory=Counter)
    finalizers: Counter[str] = msgspec.field(default_factory=Counter)


class Contents:
    """What is in all namespaces, by name. Kept current by observing writes."""

    def __init__(self) -> None:
        self._namespaces: dict[str, Content] = {}

    def of(self, namespace: str) -> Content:
        """What is in a namespace."""
        return self._namespaces.get(namespace) or Content()

    def observe(self, resource: str, object_: Object, *, add: bool) -> None:
        """An object comes or goes."""
        namespace = object_["metadata"].get("namespace")
        if not namespace:
            return
        content = self._namespaces.setdefault(namespace, Content())
        _count(content.resources, resource, 1 if add else -1)
        for finalizer in object_["metadata"].get("finalizers", ()):
            _count(content.finalizers, finalizer, 1 if add else -1)
        if not content.resources:
            del self._namespaces[namespace]


def _count(counter: Counter[str], name: str, sign: int) -> None:
    counter[name] += sign
    if not counter[name]:
        del counter[name]

"""The objects of a cluster as its controllers see them: what watches tell, and, at once, what the controllers wrote themselves.

    list, watch ──► Informer ──► take ──► indices, observer (`Manager.observe`)
    a write's answer ─────────► written ──┘

A watch tells of a write some time after its answer, and until then of what was before it. So what a write made of an object counts until
the watch has caught up with it, AHEAD_SECONDS at most. (Who leads begins anew when a store was restored, whose versions are those of
another history.) Of each object only what controllers read is kept (`parts`).
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

from podplane.controllers.load_balancers import LoadBalancers, is_indexed_alike
from podplane.controllers.node_blocks import NodeBlocks
from podplane.controllers.objects import Key, Object, key_of
from podplane.controllers.parts import PARTS, Part, Seen
from podplane.kubeapi.client import Client
from podplane.kubeapi.currency import number
from podplane.kubeapi.informer import Informer

AHEAD_SECONDS = 60.0
Observer = Callable[[Part, Object | None, Object | None], None]


class Watched:
    """A view of a cluster (`decision.Cluster`); `observer` is told each change, once it is set."""

    def __init__(self, node_blocks: NodeBlocks, clock: Callable[[], float] = time.monotonic) -> None:
        self.observer: Observer = _nobody
        self._load_balancers, self._node_blocks = LoadBalancers(), node_blocks
        self._clock = clock
        self._objects: dict[str, dict[Key, Object]] = {resource: {} for resource in PARTS}
        self._ahead: dict[tuple[str, Key], tuple[int, float]] = {}
        """Version of what was written here, and until when it counts."""

    def get(self, resource: str, key: Key) -> Object | None:
        """One object."""
        return self._objects[resource].get(key)

    def all(self, resource: str, namespace: str = "") -> list[Object]:
        """All objects of a resource, or of one namespace, by name."""
        found = self._objects[resource]
        return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def load_balancers(self) -> LoadBalancers:
        """Load balancers, and who has which address."""
        return self._load_balancers

    @property
    def now(self) -> datetime.datetime:
        """The time of the clock."""
        return datetime.datetime.now(datetime.UTC)

    def node_blocks(self) -> NodeBlocks:
        """Which Node has which block."""
        return self._node_blocks

    def informers(self, client: Client) -> Iterator[Informer[Seen]]:
        """What keeps this current, once each is listed and watched."""
        for resource, part in PARTS.items():
            informer: Informer[Seen] = Informer(client, resource, cast("type[Seen]", part), **part.selection)
            informer.subscribe(partial(self._told, resource))
            yield informer

    def _told(self, resource: str, old: Seen | None, new: Seen | None) -> None:
        """The watch tells of an object."""
        if new is not None:
            self.take(resource, new.object)
        elif old is not None:
            self._forget(resource, old.object)

    def take(self, resource: str, object_: Object) -> None:
        """An object is like this now."""
        key = key_of(object_)
        known, (version, until) = self.get(resource, key), self._ahead.get((resource, key), (0, 0.0))
        is_same = known is not None and known["metadata"]["uid"] == object_["metadata"]["uid"]
        if is_same and _version(object_) < version and self._clock() < until:
            return  # what it was before it was written here
        self._ahead.pop((resource, key), None)
        self._change(resource, key, known, object_)

    def written(self, resource: str, answer: Mapping[str, Any]) -> None:
        """A write from here was answered with this."""
        part = PARTS.get(resource)
        if part is None:
            return
        object_ = part.of(answer)
        key = key_of(object_)
        known = self.get(resource, key)
        if known is None or known["metadata"]["uid"] != object_["metadata"]["uid"]:
            return  # it is gone by now
        if _version(object_) > _version(known):
            self._change(resource, key, known, object_)
            self._ahead[resource, key] = _version(object_), self._clock() + AHEAD_SECONDS

    def _forget(self, resource: str, object_: Object) -> None:
        key = key_of(object_)
        known = self.get(resource, key)
        if known is not None and known["metadata"]["uid"] == object_["metadata"]["uid"]:
            self._ahead.pop((resource, key), None)
            self._change(resource, key, known, None)

    def _change(self, resource: str, key: Key, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or not is_indexed_alike(resource, old, new):
            for index in (self._load_balancers, self._node_blocks):
                if old is not None:
                    index.observe(resource, old, add=False)
                if new is not None:
                    index.observe(resource, new, add=True)
        if new is not None:
            self._objects[resource][key] = new
        elif old is not None:
            del self._objects[resource][key]
            self._node_blocks.forget(resource, old)
        self.observer(PARTS[resource], old, new)


def _version(object_: Object) -> int:
    return number(object_["metadata"].get("resourceVersion", ""))


def _nobody(part: Part, old: Object | None, new: Object | None) -> None:
    """Until somebody is to be told."""

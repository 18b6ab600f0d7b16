"""What is stored, and who is told: one transaction around the writes of a request, and its changes published once it is on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from podplane.apiserver.kinds.resource import Object, Resource
from podplane.apiserver.ordered import Key
from podplane.apiserver.store import Store, Stored
from podplane.apiserver.watch import Change, Hub

Observer = Callable[[Resource, Object | None, Object | None], None]
"""(resource, old, new) of each write as it is made, and the other way round when it is taken back."""


class Records:
    """The store and the watches over it."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self.store = store
        self.hub = hub
        self._observers: list[Observer] = []
        self._undone: list[Callable[[], None]] = []
        self._done: list[tuple[Resource, Object | None, Object | None]] = []
        self._changes: list[Change] = []
        self._open = False

    def observe(self, observer: Observer) -> None:
        """Tell this one of every write."""
        self._observers.append(observer)

    def on_rollback(self, listener: Callable[[], None]) -> None:
        """Call this after a transaction that failed, when everything is as it was before it."""
        self._undone.append(listener)

    @property
    def is_open(self) -> bool:
        """Is there a transaction? Then nothing may wait."""
        return self._open

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes within are stored together, or none is; then they are published."""
        if self._open:
            yield
            return
        self._open = True
        try:
            with self.store.transaction():
                yield
        except BaseException:
            for resource, old, new in reversed(self._done):
                self._tell(resource, new, old)
            self._changes.clear()
            for listener in self._undone:
                listener()
            raise
        finally:
            self._open = False
            self._done.clear()
        changes, self._changes = self._changes, []
        for change in changes:
            self.hub.publish(change)

    def put(self, resource: Resource, key: Key, new: Object, old: Object | None) -> Stored:
        """Store a version."""
        with self.transaction():
            stored = self.store.put(resource.id, key, new)
            self._note(resource, "ADDED" if old is None else "MODIFIED", stored, old)
        return stored

    def remove(self, resource: Resource, key: Key) -> Stored:
        """Remove an object; as it was last."""
        with self.transaction():
            old = self.store.get(resource.id, key)
            gone = self.store.remove(resource.id, key)
            self._note(resource, "DELETED", gone, old.object if old else None)
        return gone

    def _note(self, resource: Resource, kind: str, stored: Stored, old: Object | None) -> None:
        new: Any = None if kind == "DELETED" else stored.object
        self._tell(resource, old, new)
        self._done.append((resource, old, new))
        self._changes.append(Change(self.store.version, resource.id, kind, stored, old))

    def _tell(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        for observer in self._observers:
            observer(resource, old, new)

"""Objects of one kind by path, with indices over them, and subscribers that are told each change.

Readers get views: a mapping that follows the cache and can't be written. A change costs what the changed object's own index keys
cost, whatever the number of objects. Indices are current before any subscriber is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from podplane.kubeapi.retry import FailureLog

log = logging.getLogger(__name__)


class Named(Protocol):
    """What a cache reads of an object's metadata."""

    @property
    def path(self) -> str:
        """`namespace/name`, or the name alone of a cluster-scoped object."""

    @property
    def uid(self) -> str:
        """Tells an object from a later one of the same name."""


class HasMetadata(Protocol):
    """Every model of an API object."""

    @property
    def metadata(self) -> Named:
        """Its ObjectMeta."""


M = TypeVar("M", bound=HasMetadata)
Subscriber = Callable[[M | None, M | None], None]
"""(old, new): None as old for an object that was added, None as new for one that was removed."""
Keys = Callable[[M], Iterable[Hashable]]
"""The index keys of an object: a pure function of it."""
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Index(Generic[M]):
    """The objects of a cache by keys of their own; an object may have any number of keys.

    A key that one object has costs no container: an index by address has a key for each pod.
    """

    def __init__(self, keys: Keys[M], failures: FailureLog) -> None:
        self._keys = keys
        self._failures = failures
        self._one: dict[Hashable, M] = {}
        self._many: dict[Hashable, dict[str, M]] = {}

    def get(self, key: Hashable) -> Mapping[str, M]:
        """The objects with this key, by path: a view that is right until the next change."""
        if (many := self._many.get(key)) is not None:
            return MappingProxyType(many)
        one = self._one.get(key)
        return EMPTY if one is None else MappingProxyType({one.metadata.path: one})

    def __len__(self) -> int:
        """The number of keys that any object has."""
        return len(self._one) + len(self._many)

    def update(self, path: str, old: M | None, new: M | None) -> None:
        """Called by the cache with each change."""
        after = self._keys_of(new)
        if old is not None:
            for key in self._keys_of(old) - after:
                self._discard(key, path)
        if new is not None:
            for key in after:
                self._put(key, path, new)

    def _put(self, key: Hashable, path: str, model: M) -> None:
        if (many := self._many.get(key)) is not None:
            many[path] = model
        elif (one := self._one.get(key)) is None or one.metadata.path == path:
            self._one[key] = model
        else:
            self._many[key] = {one.metadata.path: one, path: model}
            del self._one[key]

    def _discard(self, key: Hashable, path: str) -> None:
        many = self._many.get(key)
        if many is None:
            self._one.pop(key, None)
            return
        many.pop(path, None)
        if len(many) == 1:
            (self._one[key],) = self._many.pop(key).values()

    def _keys_of(self, model: M | None) -> frozenset[Hashable]:
        """An object whose keys can't be had (the function raises) is under no key."""
        if model is None:
            return frozenset()
        try:
            return frozenset(self._keys(model))
        except Exception as error:
            self._failures.note(f"index {type(error).__name__}", repr(error), time.monotonic(), error)
            return frozenset()


class Cache(Generic[M]):
    """Objects of one kind. `name` is for the log; `failures` counts exceptions of subscribers and of index functions by kind."""

    def __init__(self, name: str = "") -> None:
        self._objects: dict[str, M] = {}
        self._subscribers: list[Subscriber[M]] = []
        self._indices: list[Index[M]] = []
        self._failures = FailureLog(log, f"cache resource={name}")
        self.objects: Mapping[str, M] = MappingProxyType(self._objects)
        """All objects by path: a view that follows the cache."""

    @property
    def failures(self) -> Mapping[str, int]:
        """The number of exceptions of subscribers and index functions, by kind."""
        return self._failures.counts

    def subscribe(self, subscriber: Subscriber[M]) -> None:
        """Tell this one of every change from now on. What it raises is logged and counted, and keeps nothing from the others."""
        self._subscribers.append(subscriber)

    def index(self, keys: Keys[M]) -> Index[M]:
        """A new index, built of what is cached now and kept current from now on."""
        index = Index(keys, self._failures)
        for path, model in self._objects.items():
            index.update(path, None, model)
        self._indices.append(index)
        return index

    def set(self, model: M) -> bool:
        """Add or replace an object; did that change anything? Nobody is told of one that is equal to the cached one.

        An object with another uid under the same path is another object: the former one is removed first.
        """
        path = model.metadata.path
        old = self._objects.get(path)
        if old is not None and old.metadata.uid != model.metadata.uid:
            self.remove(path)
            old = None
        if old == model:
            return False
        self._objects[path] = model
        self._changed(path, old, model)
        return True

    def remove(self, path: str) -> None:
        """Remove an object; nothing happens when there is none."""
        old = self._objects.pop(path, None)
        if old is not None:
            self._changed(path, old, None)

    def _changed(self, path: str, old: M | None, new: M | None) -> None:
        for index in self._indices:
            index.update(path, old, new)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(old, new)
            except Exception as error:
                name = getattr(subscriber, "__qualname__", type(subscriber).__name__)
                kind = f"subscriber {name} {type(error).__name__}"
                self._failures.note(kind, f"{path}: {error!r}", time.monotonic(), error)

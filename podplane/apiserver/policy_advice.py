"""Warnings about NetworkPolicies and the labels that they read: which flows a dry run would change.

The cluster is read when the first write asks for it, after that only what was written since; until then no write costs anything more.
All of it happens in a thread, for as long as an answer may wait. What is not read by then is read for the next write that asks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.ordered import Key
from podplane.apiserver.store import Store
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.policy.difference import differences
from podplane.policy.edits import Edit
from podplane.policy.told import told
from podplane.policy.world import NAMESPACES, PODS, POLICIES, RESOURCES, World

log = logging.getLogger(__name__)
Object = dict[str, Any]
ADVISED = (POLICIES, NAMESPACES, PODS)
"""Kinds whose writes may change verdicts."""
DRY_RUN_SECONDS = 2.0
TICKS = 32
"""The clock is read once in so many steps."""
TOO_LARGE = (
    f"the cluster is too large to find out within {DRY_RUN_SECONDS:.0f} s which flows this would change; "
    "`podplane policy diff -f FILE` shows all of them"
)


class Change(NamedTuple):
    """A write that is tried: the object before and after it; None of one that is not there."""

    resource: str
    old: Object | None
    new: Object | None


class TooLongError(Exception):
    """An answer can't wait any longer."""


class PolicyAdvice:
    """What there is to say about writes; see the head of the module."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._world: World | None = None
        self._written: dict[tuple[str, Key], Object | None] = {}
        self._unread: deque[Iterator[tuple[str, Key, Object | None]]] = deque()
        self._lock = threading.Lock()

    def observe(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """A write."""
        if self._world is not None and resource.id in RESOURCES:
            known = new if new is not None else old
            assert known is not None
            self._written[resource.id, _key(known)] = new

    async def of_dry_run(self, changes: Sequence[Change]) -> list[str]:
        """Sentences about the flows that these would change; none when there are none."""
        edits = [edit for change in changes if (edit := _edit(change)) is not None]
        return await self._asked(lambda world, tick: _flows(world, edits, tick), DRY_RUN_SECONDS) if edits else []

    async def _asked(self, ask: Callable[[World, Callable[[], None]], list[str]], seconds: float) -> list[str]:
        """The answer to a question about the cluster as it is now."""
        end, world = self._clock() + seconds, self._begin()
        try:
            return await asyncio.to_thread(self._answer, world, ask, end)
        except TooLongError:
            return [TOO_LARGE]
        except Exception:
            log.exception("warnings about policies failed")
            return []

    def _begin(self) -> World:
        """Leave what was written to whoever reads it next."""
        if self._world is None:
            self._world = World()
            self._unread.extend(map(self._all, RESOURCES))
        elif self._written:
            self._unread.append(((resource, key, new) for (resource, key), new in self._written.items()))
            self._written = {}
        return self._world

    def _all(self, resource: str) -> Iterator[tuple[str, Key, Object | None]]:
        snapshot = self._store.snapshot(resource)
        return ((resource, key, stored.object) for key, stored in snapshot)

    def _answer(self, world: World, ask: Callable[[World, Callable[[], None]], list[str]], end: float) -> list[str]:
        steps = itertools.count(1)

        def tick() -> None:
            if next(steps) % TICKS == 0 and self._clock() > end:
                raise TooLongError

        if not self._lock.acquire(timeout=max(0.0, end - self._clock())):
            raise TooLongError
        try:
            self._read(world, tick)
            return ask(world, tick)
        finally:
            self._lock.release()

    def _read(self, world: World, tick: Callable[[], None]) -> None:
        while self._unread:
            for resource, key, object_ in self._unread[0]:
                try:
                    world.set(resource, "/".join(filter(None, key)), object_)
                except msgspec.MsgspecError as error:
                    log.warning("warnings about policies leave out %s %s why=%s", resource, "/".join(key), error)
                tick()
            self._unread.popleft()


def _flows(world: World, edits: Sequence[Edit], tick: Callable[[], None]) -> list[str]:
    found = differences(world.index, world.pods(), list(world.nodes.values()), edits, tick)
    return [one.sentence() for one in told(found)]


def _edit(change: Change) -> Edit | None:
    """What a write means to verdicts; None when it means nothing."""
    known = change.new if change.new is not None else change.old
    if known is None:
        return None
    path, raw = "/".join(filter(None, _key(known))), msgspec.json.encode(known)
    if change.resource == POLICIES:
        new = None if change.new is None else NetworkPolicy.from_json(raw)
        unchanged = change.old is not None and new == NetworkPolicy.from_json(msgspec.json.encode(change.old))
        return None if unchanged else Edit(NetworkPolicy, path, new)
    if change.old is None or change.new is None or _labels(change.old) == _labels(change.new):
        return None  # no pod has an address in a new namespace, nor has a new pod one; and those of a namespace that goes, go
    if change.resource == NAMESPACES:
        return Edit(NamespaceInfo, path, NamespaceInfo.from_json(raw))
    return Edit(PodInfo, path, PodInfo.from_json(raw)) if change.resource == PODS else None


def _labels(object_: Object) -> dict[str, str]:
    found: dict[str, str] = object_["metadata"].get("labels") or {}
    return found


def _key(object_: Object) -> Key:
    metadata = object_["metadata"]
    return metadata.get("namespace", ""), metadata["name"]

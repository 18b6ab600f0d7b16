"""Watches: every change is published once, and handed to each watcher that it concerns, as the line that goes out to it.

A watch is of a topic: a resource, and a namespace and a name or any. A change is published to the topics of its object, which are four
at most, so it costs nothing to watchers of other names and namespaces. A line is made once for all watchers that see the same event in
the same form.

A short history, kept by topic, lets a watch begin in the past, and a list go on as it was; a version from before it is answered with 410
Gone and the client lists again. A watcher that doesn't read is cut off after a bounded number of bytes rather than filling the memory; it
resumes by itself.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Collection, Hashable, Iterable, Iterator
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.ordered import Key
from podplane.apiserver.pace import Pace
from podplane.apiserver.problems import Problem
from podplane.apiserver.registry import CRDS
from podplane.apiserver.representation import Whole
from podplane.apiserver.selectors import Predicate, Selection
from podplane.apiserver.slices import chunks
from podplane.apiserver.store import Stored

HISTORY, HISTORY_BYTES = 5_000, 64 * 1024 * 1024
"""So many changes are remembered, or fewer large ones."""
AGED_SECONDS, AGED_BYTES = 30.0, 2 * 1024 * 1024
"""Of changes that are older, fewer are remembered: a burst of large objects does not stay in memory."""
BACKLOG_BYTES = 16 * 1024 * 1024
"""A watch that leaves so much unread is closed; the client begins again where it was."""
TOTAL_BACKLOG_BYTES = 64 * 1024 * 1024
"""What all watches together may leave unread, where a line that waits for several counts once. Then those with most are closed, until half
of it is left."""
LINE_BYTES = 64
"""What a line counts for each watch that it waits for, beside its bytes: an entry, and the time that it takes to drop it."""
CHUNK_BYTES = 32 * 1024
"""Of lines that wait, so many are handed on at once, or one longer line: what is handed on is no longer shared."""
BOOKMARK_SECONDS = 60.0
INITIAL_END = {"k8s.io/initial-events-end": "true"}
"""Annotation of the bookmark that ends the initial events (KEP-3157)."""


Topic = tuple[str, str, str]
"""(resource, namespace, name); "" is any namespace, any name."""


class Line(msgspec.Struct, eq=False):
    """What goes out for a change, and how many watches it waits for."""

    data: bytes
    readers: int = 0


class Backlog(msgspec.Struct):
    """What waits for all watches: a line counts while it has readers."""

    bytes: int = 0

    def add(self, line: Line) -> None:
        """It waits for one watch more."""
        self.bytes += LINE_BYTES if line.readers else LINE_BYTES + len(line.data)
        line.readers += 1

    def remove(self, lines: Collection[Line]) -> None:
        """These wait for one watch less."""
        self.bytes -= LINE_BYTES * len(lines)
        for line in lines:
            line.readers -= 1
            if not line.readers:
                self.bytes -= len(line.data)


Lines = dict[Hashable, Line]
"""The lines that one change has made so far, by event and form."""
LEFT = "LEFT"
"""A change that takes an object out of a selection: the watcher is told DELETED."""


def topics(resource: str, key: Key) -> tuple[Topic, ...]:
    """Those that a change of this object is published to."""
    namespace, name = key
    every = (resource, "", ""), (resource, "", name)
    return (*every, (resource, namespace, ""), (resource, namespace, name)) if namespace else every


class Change(msgspec.Struct, frozen=True):
    """One published change: `old` is the version before, None for a new object."""

    version: int
    resource: str
    type: str
    new: Stored
    old: dict[str, Any] | None

    @property
    def key(self) -> Key:
        """Where the object is, or was."""
        metadata = self.new.object["metadata"]
        return metadata.get("namespace", ""), metadata["name"]

    @property
    def alters_spec(self) -> bool:
        """Does it change the spec of an object that was there, or remove it?"""
        return self.old is not None and (self.type == "DELETED" or self.old.get("spec") != self.new.object.get("spec"))

    def seen(self, wanted: Predicate | None) -> str | None:
        """The event as this selector sees it: an object that enters its view is added, one that leaves it `LEFT`."""
        if wanted is None:
            return self.type
        before = self.old is not None and wanted(self.old)
        after = self.type != "DELETED" and wanted(self.new.object)
        if after:
            return "MODIFIED" if before else "ADDED"
        if before:
            return self.type if self.type == "DELETED" else LEFT
        return None

    def line(self, event: str, form: Whole) -> bytes:
        """What goes out for an event that `seen` said."""
        if event != LEFT or self.old is None:
            return form.event(event, self.new)
        # As it was last in the view, at the version of this change.
        left = {**self.old, "metadata": {**self.old["metadata"], "resourceVersion": str(self.version)}}
        return form.event("DELETED", Stored(left, msgspec.json.encode(left)))


class Watcher(msgspec.Struct, eq=False):
    """One open watch: what it wants of its topic, how it wants it, and the lines that wait for it to read."""

    topic: Topic
    wanted: Predicate | None
    form: Whole
    backlog: Backlog = msgspec.field(default_factory=Backlog)
    pace: Pace | None = None
    """What it has to wait for before it sends; None when it never waits."""
    lines: deque[Line] = msgspec.field(default_factory=deque)
    waiting: int = 0
    overrun: bool = False
    ended: bool = False
    """Is there nothing more to come but the lines that wait?"""
    sleeper: asyncio.Future[None] | None = None
    is_called: bool = False
    """Is the sleeper's turn on its way?"""

    def offer(self, change: Change, lines: Lines) -> None:
        """Queue the change if it concerns this watch; `lines` are what other watches made of it, and then this one too."""
        event = change.seen(self.wanted)
        if event is None:
            return
        shared = self.form.shared
        line = lines.get((event, shared)) if shared is not None else None
        if line is None:
            line = Line(change.line(event, self.form))
            if shared is not None:
                lines[event, shared] = line
        self._queue(line)

    def replay(self, changes: Iterable[Change]) -> Iterator[bytes]:
        """The lines of changes that were before this watch, as they are asked for; an empty one for what does not concern it."""
        for change in changes:
            event = change.seen(self.wanted)
            yield change.line(event, self.form) if event is not None else b""

    def _queue(self, line: Line) -> None:
        if self.waiting > BACKLOG_BYTES or self.overrun:
            self.cut_off()
            return
        self.lines.append(line)
        self.backlog.add(line)
        self.waiting += LINE_BYTES + len(line.data)
        if self.sleeper is not None and not self.is_called:
            self.is_called = True
            if self.pace is None:
                _wake(self.sleeper)
            else:
                self.pace.call(self.sleeper)

    def cut_off(self) -> None:
        """It does not read: nothing waits for it any more. Idempotent."""
        self.overrun = True
        self.forget()
        if self.sleeper is not None:
            _wake(self.sleeper)

    def forget(self) -> None:
        """Nothing waits for it."""
        self.backlog.remove(self.lines)
        self.lines.clear()
        self.waiting = 0

    def end(self) -> None:
        """What is watched is served no longer as it was."""
        self.ended = True
        if self.sleeper is not None:
            _wake(self.sleeper)

    async def turn(self) -> bool:
        """Wait until it may send the first of its lines; False when none is left by then."""
        if self.pace is not None:
            await self.pace.turn(max(len(self.lines[0].data), min(self.waiting, CHUNK_BYTES)))
        return bool(self.lines)

    def take(self) -> bytes:
        """Lines that wait, the first of them: CHUNK_BYTES, or one that is longer."""
        if self.waiting <= CHUNK_BYTES:
            taken = list(self.lines)
            self.forget()
        else:
            taken, size = [self.lines.popleft()], 0
            while self.lines and (size := size + len(taken[-1].data)) + len(self.lines[0].data) <= CHUNK_BYTES:
                taken.append(self.lines.popleft())
            self.waiting -= sum(LINE_BYTES + len(line.data) for line in taken)
            self.backlog.remove(taken)
        return b"".join([line.data for line in taken]) if len(taken) > 1 else taken[0].data

    async def sleep(self, seconds: float) -> bool:
        """Wait for a line; False when none came in time. (A timer and a future: no task, no lock.)"""
        loop = asyncio.get_running_loop()
        self.sleeper, self.is_called = loop.create_future(), False
        timer = loop.call_later(seconds, _wake, self.sleeper)
        try:
            await self.sleeper
        finally:
            timer.cancel()
            self.sleeper = None
        return bool(self.lines) or self.overrun or self.ended


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class Hub:
    """Where changes are published and watches are opened."""

    def __init__(self, version: int) -> None:
        self._history: deque[Change] = deque()
        self._of_topic: dict[Topic, list[Change]] = {}
        self._history_bytes = 0
        self._oldest = version
        self.version = version
        """Of the last published change."""
        self._watchers: dict[Topic, set[Watcher]] = {}
        self._backlog, self.pace = Backlog(), Pace()
        self._ages: deque[tuple[float, int]] = deque()
        """Times and the version that was the last then."""

    def age(self, now: float) -> None:
        """Forget of what is old all but some; to be called every few seconds, with the time of any clock that never goes back."""
        self._ages.append((now, self.version))
        aged = 0
        while self._ages and self._ages[0][0] <= now - AGED_SECONDS:
            aged = self._ages[0][1]
            if len(self._ages) > 1 and self._ages[1][0] > now - AGED_SECONDS:
                break
            self._ages.popleft()
        while self._history_bytes > AGED_BYTES and self._history and self._history[0].version <= aged:
            self._forget_oldest()

    def publish(self, change: Change) -> None:
        """Tell the watchers of the object's topics."""
        self._history.append(change)
        self._history_bytes += len(change.new.raw)
        while len(self._history) > HISTORY or self._history_bytes > HISTORY_BYTES:
            self._forget_oldest()
        self.version = change.version
        lines: Lines = {}
        for topic in topics(change.resource, change.key):
            if change.version > self._oldest:
                self._of_topic.setdefault(topic, []).append(change)
            for watcher in self._watchers.get(topic, ()):
                watcher.offer(change, lines)
        if self._backlog.bytes > TOTAL_BACKLOG_BYTES:
            self._cut_off_slowest()
        if change.resource == CRDS and change.alters_spec:
            self._end_all(change.new.object["metadata"]["name"])

    def _cut_off_slowest(self) -> None:
        """Close those watches for which most waits, until half of what may wait does."""
        every = itertools.chain.from_iterable(self._watchers.values())
        for watcher in sorted(every, key=attrgetter("waiting"), reverse=True):
            if self._backlog.bytes <= TOTAL_BACKLOG_BYTES / 2:
                return
            watcher.cut_off()

    def _end_all(self, resource: str) -> None:
        """End the watches of custom resources whose definition, which has their name, went or changed: who watches on asks for what is
        served now."""
        for (own, _, _), watchers in self._watchers.items():
            if own == resource:
                for watcher in watchers:
                    watcher.end()

    def _forget_oldest(self) -> None:
        change = self._history.popleft()
        self._history_bytes -= len(change.new.raw)
        self._oldest = change.version
        for topic in topics(change.resource, change.key):
            if kept := self._of_topic.get(topic):  # the oldest of all is the first of its topics
                del kept[0]
                if not kept:
                    del self._of_topic[topic]

    def _since(self, topic: Topic, version: int) -> list[Change]:
        """The changes of a topic after a version, the oldest first."""
        history = self._of_topic.get(topic, [])
        return history[bisect_right(history, version, key=attrgetter("version")) :]

    def check(self, since: int) -> None:
        """Problem when this version is too long ago, or yet to come."""
        if since < self._oldest:
            raise Problem("Expired", f"too old resource version: {since} ({self._oldest})")
        if since > self.version:
            details = {
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            }
            raise Problem("Timeout", f"Too large resource version: {since}, current: {self.version}", details)

    def before(self, topic: Topic, version: int) -> dict[Key, Stored | None]:
        """The objects of a topic that changed since a version, as they were then; None for one that was not there.

        Problem when that is too long ago, or yet to come.
        """
        self.check(version)
        found: dict[Key, dict[str, Any] | None] = {}
        for change in self._since(topic, version):
            found.setdefault(change.key, change.old)
        return {key: Stored(old, msgspec.json.encode(old)) if old is not None else None for key, old in found.items()}

    def open(
        self,
        form: Whole,
        selection: Selection,
        since: int,
        seconds: float | None = None,
        *,
        bookmarks: bool = False,
        first: Iterable[bytes] = (),
        pace: Pace | None = None,
    ) -> AsyncIterator[bytes]:
        """A watch of all changes after version `since`; ends after `seconds`. Problem when that is too long ago, or yet to come.

        `first` are parts that are sent before all else, made as they are sent. With `bookmarks`, it says how far it is when nothing
        else does. With a `pace`, it waits for its turn before it sends something. Nothing is kept for a watch before it is first read.
        """
        self.check(since)
        topic = form.resource.id, selection.namespace, selection.name
        watcher = Watcher(topic, selection.wanted, form, self._backlog, pace)
        return self._lines(watcher, since, seconds, bookmarks, first)

    async def _lines(
        self, watcher: Watcher, since: int, seconds: float | None, bookmarks: bool, first: Iterable[bytes]
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + (math.inf if seconds is None else seconds)
        if since < self._oldest:
            return  # so much happened before the first read
        self._watchers.setdefault(watcher.topic, set()).add(watcher)
        try:
            missed = self._since(watcher.topic, since)
            for parts in (first, watcher.replay(missed)):
                async for chunk in chunks(parts, watcher.pace):
                    yield chunk
            while not watcher.overrun:
                if watcher.lines and await watcher.turn():
                    yield watcher.take()
                    if loop.time() < end:
                        continue
                if watcher.ended:
                    return
                patience = min(BOOKMARK_SECONDS, end - loop.time())
                if patience <= 0:
                    return
                if not await watcher.sleep(patience) and bookmarks:
                    yield watcher.form.bookmark({"resourceVersion": str(self.version)})
        finally:
            self._close(watcher)

    def watched(self) -> Iterator[tuple[Resource, str]]:
        """The resource of each open watch, and its scope: a resource's, a namespace's or the whole cluster's."""
        for (_, namespace, name), watchers in self._watchers.items():
            scope = "resource" if name else "namespace" if namespace else "cluster"
            yield from ((watcher.form.resource, scope) for watcher in watchers)

    def _close(self, watcher: Watcher) -> None:
        watcher.forget()
        watchers = self._watchers[watcher.topic]
        watchers.discard(watcher)
        if not watchers:
            del self._watchers[watcher.topic]


def overlaid(now: Iterable[tuple[Key, Stored]], before: dict[Key, Stored | None]) -> Iterator[tuple[Key, Stored]]:
    """Objects in the order of their keys, with those that changed since (`Hub.before`) as they were."""
    unchanged = ((key, stored) for key, stored in now if key not in before)
    changed = sorted((key, stored) for key, stored in before.items() if stored is not None)
    return heapq.merge(unchanged, changed, key=itemgetter(0))

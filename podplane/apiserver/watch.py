"""Watches: every change is published once, and handed to each watcher that it concerns, as the line that goes out to it.

A short history lets a watch begin in the past, and a list go on as it was; a version from before it is answered with 410 Gone and the
client lists again. A watcher that doesn't read is cut off after a bounded number of bytes rather than filling the memory; it resumes
by itself.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from podplane.apiserver.problems import Problem
from podplane.apiserver.representation import Whole
from podplane.apiserver.selectors import Predicate
from podplane.apiserver.store import Key, Stored

HISTORY, HISTORY_BYTES = 5_000, 64 * 1024 * 1024
"""So many changes are remembered, or fewer large ones."""
BACKLOG_BYTES = 16 * 1024 * 1024
"""A watch that leaves so much unread is closed; the client begins again where it was."""
REPLAY_BYTES = 64 * 1024
BOOKMARK_SECONDS = 60.0
INITIAL_END = {"k8s.io/initial-events-end": "true"}
"""Annotation of the bookmark that ends the initial events (KEP-3157)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One published change: `old` is the version before, None for a new object."""

    version: int
    resource: str
    type: str
    new: Stored
    old: dict[str, Any] | None

    def seen(self, wanted: Predicate | None) -> tuple[str, Stored] | None:
        """The event as this selector sees it: an object that enters its view is added, one that leaves it deleted."""
        if wanted is None:
            return self.type, self.new
        before = self.old is not None and wanted(self.old)
        after = self.type != "DELETED" and wanted(self.new.object)
        if after:
            return ("MODIFIED" if before else "ADDED"), self.new
        if before and self.old is not None:
            return "DELETED", self.new if self.type == "DELETED" else self._as_it_left(self.old)
        return None

    def _as_it_left(self, old: dict[str, Any]) -> Stored:
        """The object as it was last in the view, at the version of this change."""
        left = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        return Stored(left, msgspec.json.encode(left))


@dataclass(slots=True, eq=False)
class Watcher:
    """One open watch: what it wants, how it wants it, and the lines that wait for it to read."""

    resource: str
    namespace: str
    wanted: Predicate | None
    form: Whole
    lines: deque[bytes]
    waiting: int = 0
    overrun: bool = False
    sleeper: asyncio.Future[None] | None = None

    def offer(self, change: Change, line: bytes | None = None) -> bytes | None:
        """Queue the change if it concerns this watch; `line` is what another watch of the same form made of it, if any did."""
        if not self._concerns(change):
            return line
        if self.wanted is None and self.form.is_stored_form:
            line = line or self.form.event(change.type, change.new)
            self._queue(line)
            return line
        seen = change.seen(self.wanted)
        if seen is not None:
            self._queue(self.form.event(*seen))
        return line

    def replay(self, changes: Iterable[Change]) -> Iterator[bytes]:
        """The lines of changes that were before this watch, in chunks as they are read: however many there are, none waits."""
        chunk = b""
        for change in changes:
            seen = change.seen(self.wanted) if self._concerns(change) else None
            chunk += self.form.event(*seen) if seen is not None else b""
            if len(chunk) > REPLAY_BYTES:
                yield chunk
                chunk = b""
        if chunk:
            yield chunk

    def _concerns(self, change: Change) -> bool:
        return not self.namespace or change.new.object["metadata"].get("namespace") == self.namespace

    def _queue(self, line: bytes) -> None:
        if self.waiting > BACKLOG_BYTES:
            self.overrun = True
        else:
            self.lines.append(line)
            self.waiting += len(line)
        if self.sleeper is not None and not self.sleeper.done():
            self.sleeper.set_result(None)

    def take(self) -> bytes:
        """All lines that wait."""
        chunk = b"".join(self.lines)
        self.lines.clear()
        self.waiting = 0
        return chunk

    async def sleep(self, seconds: float) -> bool:
        """Wait for a line; False when none came in time. (A timer and a future: no task, no lock.)"""
        loop = asyncio.get_running_loop()
        self.sleeper = loop.create_future()
        timer = loop.call_later(seconds, _wake, self.sleeper)
        try:
            await self.sleeper
        finally:
            timer.cancel()
            self.sleeper = None
        return bool(self.lines) or self.overrun


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class Hub:
    """Where changes are published and watches are opened."""

    def __init__(self, version: int) -> None:
        self._history: deque[Change] = deque()
        self._history_bytes = 0
        self._oldest = version
        self.version = version
        """Of the last published change."""
        self._watchers: dict[str, set[Watcher]] = {}

    def publish(self, change: Change) -> None:
        """Tell all watchers."""
        self._history.append(change)
        self._history_bytes += len(change.new.raw)
        while len(self._history) > HISTORY or self._history_bytes > HISTORY_BYTES:
            forgotten = self._history.popleft()
            self._history_bytes -= len(forgotten.new.raw)
            self._oldest = forgotten.version
        self.version = change.version
        line: bytes | None = None
        for watcher in self._watchers.get(change.resource, ()):
            line = watcher.offer(change, line)

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

    def as_of(self, resource: str, found: Iterable[tuple[Key, Stored]], version: int) -> list[tuple[Key, Stored]]:
        """The objects of a resource as they were at a version, made of those that are there now. Problem when it is too long ago."""
        self.check(version)
        then: dict[Key, Stored] = dict(found)
        for change in reversed(self._history):
            if change.version <= version:
                break
            if change.resource == resource:
                metadata = change.new.object["metadata"]
                key = (metadata.get("namespace", ""), metadata["name"])
                if change.old is None:
                    then.pop(key, None)
                else:
                    then[key] = Stored(change.old, msgspec.json.encode(change.old))
        return sorted(then.items())

    def open(
        self,
        form: Whole,
        namespace: str,
        wanted: Predicate | None,
        since: int,
        seconds: float | None = None,
        *,
        bookmarks: bool = False,
        first: bytes = b"",
    ) -> AsyncIterator[bytes]:
        """A watch of all changes after version `since`; ends after `seconds`. Problem when that is too long ago, or yet to come.

        `first` is sent before all else. With `bookmarks`, it says how far it is when nothing else does. Nothing is kept for a watch
        before it is first read.
        """
        self.check(since)
        watcher = Watcher(form.resource.id, namespace, wanted, form, deque())
        return self._lines(watcher, since, seconds, bookmarks, first)

    async def _lines(
        self, watcher: Watcher, since: int, seconds: float | None, bookmarks: bool, first: bytes
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + (math.inf if seconds is None else seconds)
        if since < self._oldest:
            return  # so much happened before the first read
        watchers = self._watchers.setdefault(watcher.resource, set())
        watchers.add(watcher)
        try:
            missed = [change for change in self._history if change.version > since and change.resource == watcher.resource]
            if first:
                yield first
            for chunk in watcher.replay(missed):
                yield chunk
            while not watcher.overrun:
                if watcher.lines:
                    yield watcher.take()
                    if loop.time() < end:
                        continue
                patience = min(BOOKMARK_SECONDS, end - loop.time())
                if patience <= 0:
                    return
                if not await watcher.sleep(patience) and bookmarks:
                    yield watcher.form.bookmark({"resourceVersion": str(self.version)})
        finally:
            watchers.discard(watcher)

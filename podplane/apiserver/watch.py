"""Watches: every change is published once, as the line that goes out, and handed to each watcher that it concerns.

A short history lets a watch begin in the past; a version from before it is answered with 410 Gone and the client lists again.
A watcher that doesn't read is cut off after a bounded number of events rather than filling the memory; it resumes by itself.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from podplane.apiserver.problems import Problem
from podplane.apiserver.selectors import Predicate
from podplane.apiserver.store import Stored

HISTORY = 5_000
BACKLOG = 50_000
BOOKMARK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """One published change: `old` is the version before, None for a new object."""

    version: int
    resource: str
    type: str
    new: Stored
    old: dict[str, Any] | None

    def line(self, wanted: Predicate | None) -> bytes | None:
        """The event as this selector sees it: an object that enters its view is added, one that leaves it deleted."""
        if wanted is None:
            return _line(self.type, self.new.raw)
        before = self.old is not None and wanted(self.old)
        after = self.type != "DELETED" and wanted(self.new.object)
        if after:
            return _line("MODIFIED" if before else "ADDED", self.new.raw)
        if before and self.old is not None:
            return _line("DELETED", self.new.raw if self.type == "DELETED" else self._as_it_left(self.old))
        return None

    def _as_it_left(self, old: dict[str, Any]) -> bytes:
        """The object as it was last in the view, at the version of this change."""
        return msgspec.json.encode({**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}})


def _line(kind: str, raw: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), raw)


@dataclass(slots=True, eq=False)
class Watcher:
    """One open watch."""

    resource: str
    namespace: str
    wanted: Predicate | None
    lines: deque[bytes]
    wake: asyncio.Event
    overrun: bool = False

    def offer(self, change: Change) -> None:
        """Queue the change if it concerns this watch."""
        if change.resource != self.resource:
            return
        if self.namespace and change.new.object["metadata"].get("namespace") != self.namespace:
            return
        line = change.line(self.wanted)
        if line is None:
            return
        if len(self.lines) >= BACKLOG:
            self.overrun = True
        else:
            self.lines.append(line)
        self.wake.set()


class Hub:
    """Where changes are published and watches are opened."""

    def __init__(self, version: int) -> None:
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._oldest = version
        self._version = version
        self._watchers: set[Watcher] = set()

    def publish(self, change: Change) -> None:
        """Tell all watchers."""
        if len(self._history) == HISTORY:
            self._oldest = self._history[0].version
        self._history.append(change)
        self._version = change.version
        for watcher in self._watchers:
            watcher.offer(change)

    def open(
        self, resource: str, namespace: str, wanted: Predicate | None, since: int, seconds: float | None, bookmarks: str = ""
    ) -> AsyncIterator[bytes]:
        """A watch of all changes after version `since`; ends after `seconds`. Problem when that is too long ago, or yet to come.

        `bookmarks` is the kind of the objects that say how far it is when nothing else does; without, none are sent. Nothing is
        kept for a watch before it is first read.
        """
        if since < self._oldest:
            raise Problem("Expired", f"too old resource version: {since} ({self._oldest})")
        if since > self._version:
            raise Problem("Timeout", f"Too large resource version: {since}, current: {self._version}")
        watcher = Watcher(resource, namespace, wanted, deque(), asyncio.Event())
        return self._lines(watcher, since, seconds, bookmarks)

    async def _lines(self, watcher: Watcher, since: int, seconds: float | None, bookmarks: str) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + (math.inf if seconds is None else seconds)
        if since < self._oldest:
            return  # so much happened before the first read
        self._watchers.add(watcher)
        try:
            for change in self._history:
                if change.version > since:
                    watcher.offer(change)
            while not watcher.overrun:
                if watcher.lines:
                    chunk = b"".join(watcher.lines)
                    watcher.lines.clear()
                    yield chunk
                    if loop.time() < end:
                        continue
                patience = min(BOOKMARK_SECONDS, end - loop.time())
                if patience <= 0:
                    return
                watcher.wake.clear()
                try:
                    await asyncio.wait_for(watcher.wake.wait(), patience)
                except TimeoutError:
                    if bookmarks and not watcher.lines:
                        yield self._bookmark(bookmarks)
        finally:
            self._watchers.discard(watcher)

    def _bookmark(self, kind: str) -> bytes:
        return _line("BOOKMARK", msgspec.json.encode(bookmark(kind, self._version)))


def bookmark(kind: str, version: int) -> dict[str, Any]:
    """An object that says only how far the watch is."""
    return {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}}

"""What containers say is read a piece at a time, of each in turn, in a part of the time of the event loop: a pod that writes without end
waits for its own pipe, as on a cluster, and nobody else does."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

TURN_SECONDS = 0.002
"""So long it reads at a time."""
PART = 1 / 5
"""Of the loop's time, at most."""

Read = Callable[[], object]
"""Reads a piece of what is there."""


class Readers:
    """Descriptors that are read when there is something, and their places in the queue. To be used on an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.perf_counter) -> None:
        self._loop, self._clock = loop, clock
        self._reads: dict[int, Read] = {}
        self._ready: deque[int] = deque()
        self._not_before = 0.0
        self._turn_handle: asyncio.Handle | None = None

    def add(self, fd: int, read: Read) -> None:
        """Read it from now on, whenever there is something."""
        self._reads[fd] = read
        self._loop.add_reader(fd, self._is_ready, fd)

    def remove(self, fd: int) -> None:
        """Read it no more; idempotent."""
        if self._reads.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
            if fd in self._ready:
                self._ready.remove(fd)

    def _is_ready(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        self._ready.append(fd)
        if self._turn_handle is None:
            self._turn_handle = self._loop.call_at(self._not_before, self._turn)

    def _turn(self) -> None:
        began = now = self._clock()
        while self._ready and now - began < TURN_SECONDS:
            fd = self._ready.popleft()
            read = self._reads[fd]
            read()
            if self._reads.get(fd) is read:
                self._loop.add_reader(fd, self._is_ready, fd)
            now = self._clock()
        self._not_before = self._loop.time() + (now - began) * (1 / PART - 1)
        self._turn_handle = self._loop.call_at(self._not_before, self._turn) if self._ready else None


_OF_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, Readers] = WeakKeyDictionary()


def of_this_loop() -> Readers:
    """That of the running event loop: all containers share it."""
    loop = asyncio.get_running_loop()
    if loop not in _OF_LOOPS:
        _OF_LOOPS[loop] = Readers(loop)
    return _OF_LOOPS[loop]

"""Memory that a burst of work took goes back to the machine: the C library keeps what is freed, in case that it is wanted again.

A process that serves for weeks has bursts (a thousand connections, a list of a hundred MB) and long times without. So some seconds after
its resident memory has grown by much and no longer grows, what is free is given back (malloc_trim(3)), in a thread: it takes some
milliseconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import time
from collections.abc import Callable

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
GROWTH, GROWTH_BYTES = 1.1, 8 * 1024 * 1024
"""From the least that it was, by so much at least: else there is little to give back."""
LITTLE_BYTES = 1024 * 1024
REST_SECONDS = 20.0
"""After a time in vain."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE_BYTES = 128 * 1024
"""Blocks of more are mappings of their own, which go when they are freed. It is glibc's default; but by default glibc raises it to the
size of whatever large block was freed (mallopt(3))."""


LIBRARY = ctypes.CDLL(None)
"""The C library. One for all: each of these objects is garbage that refers to itself."""


def keep_large_blocks_apart() -> None:
    """For a process that serves: large blocks go back to the machine when they are freed. Nothing where the C library has other ways."""
    if (mallopt := getattr(LIBRARY, "mallopt", None)) is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, 4 * LARGE_BYTES)


def resident() -> int:
    """The resident memory of this process in bytes (proc_pid_statm(5))."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Give back what is free. Nothing happens where the C library has no such call."""
    if (malloc_trim := getattr(LIBRARY, "malloc_trim", None)) is not None:
        malloc_trim(0)


class Trimming:
    """Looks at the memory, and gives back what is free while there is more than there was once, and nothing came of it lately.

    `relieve` is called before each look: it lets go of what nobody needs any longer. What is freed shows nowhere until it is given back.
    """

    def __init__(
        self,
        relieve: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        measure: Callable[[], int] = resident,
        give_back: Callable[[], None] = trim,
    ) -> None:
        self._relieve, self._clock, self._measure, self._give_back = relieve, clock, measure, give_back
        self._last = self._least = 0
        self._rest_until = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        self._last = self._least = self._measure()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._relieve()
            await self.look()

    async def look(self) -> None:
        """Give back what is free if there may be much, and if the memory does not grow just now."""
        now, last = self._measure(), self._last
        self._last, self._least = now, min(self._least, now)
        is_large = now > max(self._least * GROWTH, self._least + GROWTH_BYTES)
        if not is_large or now > last + LITTLE_BYTES or self._clock() < self._rest_until:
            return
        await asyncio.to_thread(self._give_back)
        self._last = self._measure()
        if now - self._last < LITTLE_BYTES:
            self._rest_until = self._clock() + REST_SECONDS

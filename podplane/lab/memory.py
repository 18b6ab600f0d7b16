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
from collections.abc import Callable

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
GROWTH, GROWTH_BYTES = 1.1, 8 * 1024 * 1024
"""From what it was when nothing came of it, by so much at least: else there is little to give back."""
LITTLE_BYTES = 1024 * 1024
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE_BYTES = 128 * 1024
"""Blocks of more are mappings of their own, which go when they are freed. It is glibc's default; but by default glibc raises it to the
size of whatever large block was freed (mallopt(3))."""


def keep_large_blocks_apart() -> None:
    """For a process that serves: large blocks go back to the machine when they are freed. Nothing where the C library has other ways."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, 4 * LARGE_BYTES)


def resident() -> int:
    """The resident memory of this process in bytes (proc_pid_statm(5))."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Give back what is free. Nothing happens where the C library has no such call."""
    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)


class Trimming:
    """Looks at the memory, and gives back what is free after it has grown by much, until nothing comes of it any more.

    `relieve` is called before each look: it lets go of what nobody needs any longer.
    """

    def __init__(
        self, relieve: Callable[[], None], measure: Callable[[], int] = resident, give_back: Callable[[], None] = trim
    ) -> None:
        self._relieve, self._measure, self._give_back = relieve, measure, give_back
        self._last = self._settled = 0
        self._is_due = False

    async def run(self) -> None:
        """Look until cancelled."""
        self._last = self._settled = self._measure()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._relieve()
            await self.look()

    async def look(self) -> None:
        """Give back what is free if there may be much, and if the memory does not grow just now."""
        now, last = self._measure(), self._last
        self._last = now
        self._is_due = self._is_due or now > max(self._settled * GROWTH, self._settled + GROWTH_BYTES)
        if not self._is_due or now > last:
            return
        await asyncio.to_thread(self._give_back)
        self._last = self._measure()
        if now - self._last < LITTLE_BYTES:
            self._settled, self._is_due = self._last, False

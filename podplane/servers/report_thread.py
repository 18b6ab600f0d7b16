"""A thread for what reads much of the kernel because somebody asked, apart from the pool that the kernel door uses.

One thread, so that many questions at once take no more than one core's time in all, and none of the pool's. It lives as long as there
is work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LIMIT = 8
"""So much work may wait and be done."""


class Busy(Exception):
    """There is too much work already."""


class ReportThread:
    """Its methods run on one event loop."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._pending = 0
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Do the work in the thread, after what was there before. Busy when too much is.

        Work whose caller is cancelled is dropped if it has not begun; if it has, it counts until it is done.
        """
        if self._pending >= self._limit:
            raise Busy
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "report")
        self._pending += 1
        future, loop = self._pool.submit(work), asyncio.get_running_loop()

        def done(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._done)

        future.add_done_callback(done)
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._pending -= 1
        if not self._pending and self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

"""Long work on an event loop in short turns, or beside it: nobody else waits longer than some milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

TURN_SECONDS = 0.008
"""So long may work go on in one turn: well below the 20 ms that a turn may take in all, for one step of the work is not interrupted."""


SOME = 1000
"""To go through so many objects takes some milliseconds at most."""


async def beside(size: int, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function that goes through so many objects: in a thread, or at once where they are few, which spares two ways to a thread."""
    if size <= SOME:
        return function(*arguments, **named)
    return await asyncio.to_thread(function, *arguments, **named)


class Pause:
    """Awaited between the steps of long work: gives other tasks a turn when this one has lasted long enough."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, seconds: float | None = None) -> None:
        """`seconds`: so long in one turn, instead of TURN_SECONDS."""
        self._clock = clock
        self._seconds = TURN_SECONDS if seconds is None else seconds
        self._began = clock()

    async def __call__(self) -> None:
        """Go on at once, or after other tasks had a turn."""
        if self._clock() - self._began >= self._seconds:
            await asyncio.sleep(0)
            self._began = self._clock()

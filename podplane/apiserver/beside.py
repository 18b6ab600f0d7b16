"""Writes in steps: what reads nothing but an object (decoding, shape, rules) happens beside the event loop if the object is large.

A write is a generator. It reads and changes the store between its steps, and yields work that does not, as a function, whose result it is
sent. `at_once` runs all of it in one turn. `Beside` runs the work in a thread: others write meanwhile, and a write that is based on
something that they changed raises Outdated before it changes anything, and begins again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[], Any]
Steps = Generator[Work, Any, T]
THREADS = 2
"""More would not be quicker: they share one interpreter."""
LARGE_BYTES = 16 * 1024
"""Objects of more take longer than an event loop should wait: some 0.5 µs a byte."""


class Outdated(Exception):
    """What a write is based on was changed by another one."""


def at_once(steps: Steps[T]) -> T:
    """The result of these steps, without others in between."""
    try:
        work = next(steps)
        while True:
            work = steps.send(work())
    except StopIteration as end:
        result: T = end.value
        return result


class Beside:
    """A few of the event loop's threads for work that needs no store."""

    def __init__(self) -> None:
        self._threads = asyncio.Semaphore(THREADS)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of this work."""
        async with self._threads:
            return await asyncio.to_thread(work)

    async def carry_out(self, steps: Steps[T], check: Callable[[], None]) -> T:
        """The result of these steps, with their work in threads. `check` is called after each, before the write goes on."""
        try:
            work = next(steps)
            while True:
                result = await self.run(work)
                check()
                work = steps.send(result)
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            steps.close()

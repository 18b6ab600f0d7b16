"""Long work in slices, so that no turn of the event loop is long: what walks many objects gives the loop up every few milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TypeVar

from podplane.apiserver.pace import TURN_BYTES, Pace

T = TypeVar("T")
SLICE_SECONDS = 0.005
SLICE_BYTES = 256 * 1024
"""A slice ends after so much time or so many bytes: a chunk is also copied, encrypted and sent in one turn."""


def sliced(
    items: Iterable[T],
    size: Callable[[T], int] = lambda _: 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[list[T]]:
    """The items in lists, each of what came within `SLICE_SECONDS`, or has `SLICE_BYTES` by `size`; the items are taken lazily."""
    found: list[T] = []
    total, end = 0, clock() + SLICE_SECONDS
    for item in items:
        found.append(item)
        total += size(item)
        if total >= SLICE_BYTES or clock() >= end:
            yield found
            found, total, end = [], 0, clock() + SLICE_SECONDS
    if found:
        yield found


async def paced(items: Iterable[T], size: Callable[[T], int] = lambda _: 0, pace: Pace | None = None) -> AsyncIterator[list[T]]:
    """As `sliced`, and others run between two slices; so do, with a `pace`, all whose turn it is before."""
    for number, found in enumerate(sliced(items, size)):
        if number:
            await asyncio.sleep(0)
            if pace is not None:
                await pace.turn(TURN_BYTES)  # a slice takes as long as a turn may
        yield found


async def chunks(parts: Iterable[bytes], pace: Pace | None = None) -> AsyncIterator[bytes]:
    """Parts joined to chunks, one a slice; a slice of nothing but empty parts makes no chunk."""
    async for found in paced(parts, len, pace):
        if chunk := b"".join(found):
            yield chunk

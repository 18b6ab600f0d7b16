"""What a burst took goes back, once the memory grows no more, until nothing comes of it."""

from __future__ import annotations

import itertools

from podplane.lab import memory
from podplane.lab.memory import Trimming

MB = 1024 * 1024


async def test_what_was_freed_goes_back_after_a_burst() -> None:
    sizes, given = (
        itertools.chain([100, 100, 105, 180, 250, 250, 150, 120, 110, 110, 111, 111], itertools.repeat(111)),
        list[int](),
    )
    looked = iter(sizes)

    def give_back() -> None:
        given.append(looks)

    trimming = Trimming(lambda: None, lambda: next(looked) * MB, give_back)
    trimming._last = trimming._settled = 100 * MB
    for looks in range(12):  # noqa: B007
        await trimming.look()
    assert given == [5, 6, 7], "not while it grows, and not when nothing comes of it any more"


def test_the_c_library_is_asked() -> None:
    memory.keep_large_blocks_apart()
    before = memory.resident()
    assert before > MB
    held = [bytearray(64 * 1024) for _ in range(500)]
    assert memory.resident() > before
    del held
    memory.trim()
    assert memory.resident() < before + 16 * MB

"""What a burst took goes back, once the memory grows no more."""

from __future__ import annotations

from podplane.lab import memory
from podplane.lab.memory import Trimming

MB = 1024 * 1024


async def test_what_was_freed_goes_back_after_a_burst() -> None:
    sizes = iter([100, 100, 105, 180, 250, 250, 150, 120, 119, 119, 119, 119, 119, 110])
    given, now = list[int](), 0.0

    def give_back() -> None:
        given.append(looks)

    trimming = Trimming(lambda: None, lambda: now, lambda: next(sizes) * MB, give_back)
    trimming._last = trimming._least = 100 * MB
    for looks in range(9):  # noqa: B007
        now += 5
        await trimming.look()
    assert given == [5, 6, 7], "not while it grows, and not again at once when nothing came of it"
    now += 20
    looks = 9
    await trimming.look()
    assert given == [5, 6, 7, 9], "but later: what was freed meanwhile shows nowhere"


def test_the_c_library_is_asked() -> None:
    memory.keep_large_blocks_apart()
    memory.trim()  # what is free here would be used first
    before = memory.resident()
    assert before > MB
    held = [bytearray(64 * 1024) for _ in range(500)]
    assert memory.resident() > before
    del held
    memory.trim()
    assert memory.resident() < before + 16 * MB

"""Reading what containers say: each in turn, and in a part of the time of the loop, on a loop whose time the test moves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, cast

import pytest

from podplane.runtime import reading
from podplane.runtime.reading import PART, TURN_SECONDS, Readers

PIECE_SECONDS = TURN_SECONDS / 4


class Loop:
    """An event loop where all descriptors are ready whenever somebody listens."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readers: dict[int, tuple[Callable[[int], None], int]] = {}
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, function: Callable[[int], None], argument: int) -> None:
        self.readers[fd] = (function, argument)

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def call_at(self, when: float, function: Callable[[], None]) -> object:
        self.due.append((when, function))
        return object()

    def turn(self) -> float:
        """What is ready, and then the timer that is due next: the seconds that the loop had for others before."""
        for function, argument in list(self.readers.values()):
            function(argument)
        assert len(self.due) == 1
        when, function = self.due.pop()
        free = max(0.0, when - self.now)
        self.now += free
        function()
        return free


class Rig:
    """Readers, and which descriptors they read; each piece takes a while."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.readers = Readers(cast(Any, self.loop), self.loop.time)
        self.read: list[int] = []

    def add(self, *fds: int) -> None:
        for fd in fds:
            self.readers.add(fd, lambda fd=fd: self.piece(fd))  # type: ignore[misc]

    def piece(self, fd: int) -> None:
        self.read.append(fd)
        self.loop.now += PIECE_SECONDS


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_each_is_read_in_turn(rig: Rig) -> None:
    rig.add(1, 2, 3)
    for _ in range(30):
        rig.loop.turn()
    counts = [rig.read.count(fd) for fd in (1, 2, 3)]
    assert max(counts) - min(counts) <= 1 and sum(counts) >= 30


@pytest.mark.parametrize("writers", [1, 50])
def test_others_have_most_of_the_time(rig: Rig, writers: int) -> None:
    rig.add(*range(writers))
    for _ in range(100):
        before = rig.loop.now
        free = rig.loop.turn()
        assert rig.loop.now - before - free <= TURN_SECONDS + PIECE_SECONDS, "no turn is longer"
    assert len(rig.read) * PIECE_SECONDS <= rig.loop.now * PART + 2 * TURN_SECONDS


def test_who_says_little_is_read_at_once(rig: Rig) -> None:
    rig.add(1)
    assert rig.loop.turn() == 0.0 and rig.read == [1]
    rig.loop.now += 1.0
    assert rig.loop.turn() == 0.0 and rig.read == [1, 1]


def test_what_is_removed_is_read_no_more(rig: Rig) -> None:
    rig.add(1, 2)
    for function, argument in list(rig.loop.readers.values()):
        function(argument)
    rig.readers.remove(1)
    rig.readers.remove(1)
    rig.loop.turn()
    assert rig.read == [2] and set(rig.loop.readers) == {2}


def test_a_descriptor_that_is_closed_while_it_is_read_is_not_listened_to(rig: Rig) -> None:
    rig.readers.add(1, lambda: rig.readers.remove(1))
    rig.loop.turn()
    assert rig.loop.readers == {}


async def test_all_of_a_loop_share_one() -> None:
    assert reading.of_this_loop() is reading.of_this_loop()
    heard, (ours, theirs) = asyncio.Event(), os.pipe()
    reading.of_this_loop().add(ours, heard.set)
    os.write(theirs, b"x")
    async with asyncio.timeout(5):
        await heard.wait()
    reading.of_this_loop().remove(ours)
    for fd in (ours, theirs):
        os.close(fd)

"""Turns of streams: so many bytes in each turn of the loop, in order, and nobody waits who need not."""

from __future__ import annotations

import asyncio

import pytest

from podplane.apiserver import pace
from podplane.apiserver.pace import PART_BYTES, TURN_BYTES, Pace
from podplane.apiserver.slices import chunks

HALF = TURN_BYTES // 2


async def send(turns: Pace, name: str, size: int, sent: list[str]) -> None:
    await turns.turn(size)
    sent.append(name)


async def test_what_fits_into_a_turn_goes_at_once_and_in_order() -> None:
    turns, sent = Pace(), list[str]()
    tasks = [asyncio.ensure_future(send(turns, name, HALF, sent)) for name in "abcdef"]
    seen = []
    for _ in range(4):
        await asyncio.sleep(0)
        seen.append("".join(sent))
    assert "".join(sent) == "abcdef"[: len(sent)]
    assert [len(after) - len(before) for before, after in zip(["", *seen], seen, strict=False)] == [2, 0, 2, 2]
    await asyncio.gather(*tasks)


async def test_a_part_that_is_larger_than_a_turn_goes_alone() -> None:
    turns = Pace()
    assert turns.take(10 * TURN_BYTES)
    assert not turns.take(1)
    await asyncio.sleep(0)
    assert turns.take(1)


async def test_parts_count_more_than_their_bytes() -> None:
    turns = Pace()
    taken = 0
    while turns.take(0):
        taken += 1
    assert taken == -(-TURN_BYTES // PART_BYTES)


async def test_who_gave_up_takes_no_turn() -> None:
    turns, sent = Pace(), list[str]()
    tasks = [asyncio.ensure_future(send(turns, name, TURN_BYTES, sent)) for name in "abcd"]
    await asyncio.sleep(0)
    assert sent == ["a"]
    tasks[1].cancel()
    tasks[2].cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert sent == ["a", "d"]


async def test_a_future_is_called_now_or_when_its_turn_comes() -> None:
    turns, loop = Pace(), asyncio.get_running_loop()
    now, later, gone = loop.create_future(), loop.create_future(), loop.create_future()
    turns.call(now)
    assert now.done()
    assert turns.take(TURN_BYTES)
    turns.call(gone)
    turns.call(later)
    gone.set_result(None)
    assert not later.done()
    await asyncio.wait_for(later, 1)


async def test_nothing_runs_while_nobody_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, counted = Pace(), list[int]()
    inner = turns._turn
    monkeypatch.setattr(turns, "_turn", lambda: (counted.append(1), inner()))
    await turns.turn(1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(counted) <= 2
    await turns.turn(1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(counted) <= 4


async def test_of_long_answers_one_slice_goes_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice takes the time of a turn: ten lists at once do not make the turns ten times as long."""
    turns, now = Pace(), [0]

    async def read() -> list[int]:
        return [now[0] async for _ in chunks((b"x" * pace.TURN_BYTES for _ in range(3)), turns)]

    tasks = [asyncio.ensure_future(read()) for _ in range(10)]
    while not all(task.done() for task in tasks):
        now[0] += 1
        await asyncio.sleep(0)
    later = [turn for task in tasks for turn in task.result()[1:]]
    assert len(later) == len(set(later)) == 20

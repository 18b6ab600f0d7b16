"""Slices: bounded in time and bytes, lazy, and nothing is lost between them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import slices
from podplane.apiserver.slices import SLICE_BYTES, SLICE_SECONDS, chunks, paced, sliced


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much each time that it is read."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += seconds
        return now

    return clock


def test_a_slice_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 4)
    found = list(sliced(range(20), clock=ticking(1)))
    assert [len(each) for each in found] == [4] * 5
    assert list(itertools.chain(*found)) == list(range(20))


def test_a_slice_ends_after_its_bytes() -> None:
    found = list(sliced([b"x" * (SLICE_BYTES // 2)] * 5, len, ticking(0)))
    assert [len(each) for each in found] == [2, 2, 1]


def test_items_are_taken_when_their_slice_is() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    found = sliced(items(), clock=ticking(SLICE_SECONDS))
    assert (next(found), taken) == ([0], [0])
    assert (next(found), taken) == ([1], [0, 1])


@given(st.lists(st.binary(max_size=3)), st.floats(0, 2 * SLICE_SECONDS))
def test_nothing_is_lost(parts: list[bytes], seconds: float) -> None:
    found = list(sliced(parts, len, ticking(seconds)))
    assert list(itertools.chain(*found)) == parts
    assert all(found)


async def test_others_run_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    assert [found async for found in paced(range(5))] == [[0], [1], [2], [3], [4]]
    assert turns == 4
    task.cancel()


async def test_empty_parts_make_no_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0)
    assert [chunk async for chunk in chunks([b"", b"a", b"", b"b"])] == [b"a", b"b"]
    assert [chunk async for chunk in chunks([])] == []

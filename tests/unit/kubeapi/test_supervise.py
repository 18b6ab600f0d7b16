"""Supervised tasks: whatever ends one, it comes back, is counted, and the others never notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.kubeapi.supervise import Supervisor, TaskReport
from tests.unit.virtual_time import virtual


def supervisor() -> Supervisor:
    loop = asyncio.get_running_loop()
    return Supervisor(clock=lambda: round(loop.time() - 1000, 1), random=lambda: 0.0)


async def for_ever() -> None:
    await asyncio.sleep(10**9)


class Work:
    """A task that ends in the given ways, one start after the other, and lasts when there are no more."""

    def __init__(self, *ends: str, lasts: float = 0.0) -> None:
        self.ends, self.starts, self.lasts = list(ends), 0, lasts
        self.cancelled = False

    async def __call__(self) -> None:
        self.starts += 1
        await asyncio.sleep(self.lasts)
        if not self.ends:
            try:
                await for_ever()
            finally:
                self.cancelled = True
        await self._end(self.ends.pop(0))

    async def _end(self, how: str) -> None:
        if how == "raise":
            raise ValueError("broken")
        if how == "cancelled within":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        if how == "group":
            raise ExceptionGroup("two", [ValueError(), OSError()])


ENDS = ["raise", "return", "cancelled within", "group"]


@settings(max_examples=30)
@given(st.lists(st.sampled_from(ENDS), max_size=6), st.lists(st.sampled_from(ENDS), max_size=6))
@virtual
async def test_a_task_that_ends_is_started_again_and_the_others_go_on(first: list[str], second: list[str]) -> None:
    tasks, steady = supervisor(), Work()
    works = {"first": Work(*first), "second": Work(*second)}
    tasks.add("steady", steady)
    for name, work in works.items():
        tasks.add(name, work)
    await asyncio.sleep(600)
    for name, ends in (("first", first), ("second", second)):
        assert works[name].starts == len(ends) + 1
        assert tasks.report()[name][:2] == (True, len(ends))
    assert (steady.starts, tasks.report()["steady"]) == (1, TaskReport(True, 0, "", 0.0))
    await tasks.close()
    assert all(work.cancelled for work in (steady, *works.values()))
    assert not tasks.report()


@virtual
async def test_the_report_says_why_and_since_when() -> None:
    tasks = supervisor()
    tasks.add("a", Work("raise", "return", lasts=10))
    await asyncio.sleep(10.1)
    assert tasks.report() == {"a": TaskReport(False, 0, "ValueError('broken')", 10.0)}
    await asyncio.sleep(0.2)
    assert tasks.report() == {"a": TaskReport(True, 1, "ValueError('broken')", 10.2)}
    await asyncio.sleep(10)
    assert tasks.report() == {"a": TaskReport(False, 1, "it returned", 20.2)}
    await tasks.close()


@virtual
async def test_a_task_that_can_not_stay_is_started_ever_more_seldom_and_logged_now_and_then() -> None:
    tasks, work = supervisor(), Work(*["raise"] * 10_000)
    tasks.add("a", work)
    await asyncio.sleep(3600)
    assert 200 < work.starts < 260  # every 15 seconds: half of the highest delay, as nothing random is added here
    await tasks.close()


def test_a_failure_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    @virtual
    async def fail() -> None:
        tasks = supervisor()
        tasks.add("watch pods", Work("raise", "raise", "raise"))
        await asyncio.sleep(30)
        await tasks.close()

    with caplog.at_level(logging.WARNING):
        fail()
    (record,) = caplog.records
    assert record.getMessage().startswith("task name=watch pods failure='ValueError' count=1")
    assert "in _end" in caplog.text


@virtual
async def test_cancelling_run_ends_all() -> None:
    tasks, works = supervisor(), [Work(), Work("raise")]
    for number, work in enumerate(works):
        tasks.add(str(number), work)
    run = asyncio.ensure_future(tasks.run())
    await asyncio.sleep(0.1)  # the second waits to be started again
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (works[0].cancelled, works[1].starts) == (True, 1)
    await asyncio.sleep(60)
    assert works[1].starts == 1
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_a_task_can_be_removed_and_its_name_used_again() -> None:
    tasks, first, second = supervisor(), Work(), Work()
    tasks.add("a", first)
    await asyncio.sleep(1)
    with pytest.raises(ValueError, match="'a' already"):
        tasks.add("a", second)
    await tasks.remove("a")
    await tasks.remove("a")
    assert first.cancelled
    tasks.add("a", second)
    await asyncio.sleep(1)
    assert (second.starts, list(tasks.report())) == (1, ["a"])
    await tasks.close()


@virtual
async def test_one_that_does_not_heed_its_cancellation_does_not_come_back() -> None:
    starts, successor = [0], Work()

    async def stubborn() -> None:
        starts[0] += 1
        try:
            await for_ever()
        except asyncio.CancelledError:
            await asyncio.sleep(1)

    tasks = supervisor()
    tasks.add("a", stubborn)
    await asyncio.sleep(1)
    removed = asyncio.ensure_future(tasks.remove("a"))
    await asyncio.sleep(0)
    tasks.add("a", successor)  # of the same name, while the former one still ends
    await removed
    await asyncio.sleep(100)
    assert (starts, successor.starts, tasks.report()["a"].restarts) == ([1], 1, 0)
    await tasks.close()


@virtual
async def test_one_whose_cancellation_is_lost_is_cancelled_again() -> None:
    """asyncio.wait_for returns what came together with its cancellation, before Python 3.12."""
    something = asyncio.Event()

    async def waits() -> None:
        while True:
            await asyncio.wait_for(something.wait(), 10**9)
            something.clear()

    tasks = supervisor()
    tasks.add("a", waits)
    await asyncio.sleep(1)
    something.set()
    await asyncio.wait_for(tasks.close(), 60)
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_a_factory_that_raises_at_once_is_a_failure_too() -> None:
    def broken() -> Awaitable[None]:
        raise KeyError("no such node")

    factory: Callable[[], Awaitable[None]] = broken
    tasks = supervisor()
    tasks.add("a", factory)
    await asyncio.sleep(0.1)
    assert tasks.report()["a"].last_error == "KeyError('no such node')"
    await tasks.close()

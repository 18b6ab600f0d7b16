"""The thread for what somebody asked for: one piece of work at a time, a bounded number waits, and nothing stays."""

from __future__ import annotations

import asyncio
import threading

import pytest

from podplane.servers.report_thread import Busy, ReportThread
from tests.unit.agent.rig import until


async def until_free(thread: ReportThread) -> None:
    await until(lambda: thread._pool is None)


async def test_work_is_done_one_after_another_in_a_thread_of_its_own() -> None:
    thread, running = ReportThread(), []

    def work() -> int:
        running.append(threading.current_thread().name)
        return len(running)

    assert await asyncio.gather(*(thread.run(work) for _ in range(5))) == [1, 2, 3, 4, 5]
    assert len(set(running)) == 1 and running[0].startswith("report")
    await until_free(thread)


async def test_too_much_is_refused_until_something_is_done() -> None:
    thread, gate = ReportThread(limit=2), threading.Event()
    waiting = [asyncio.ensure_future(thread.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await thread.run(gate.wait)
    gate.set()
    assert await asyncio.gather(*waiting) == [True, True]
    await until_free(thread)
    assert await thread.run(lambda: 7) == 7
    await until_free(thread)


async def test_work_that_goes_on_without_its_caller_counts_until_it_is_done() -> None:
    thread, gate, begun = ReportThread(limit=2), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait()

    runs, waits = (asyncio.ensure_future(thread.run(work)) for _ in range(2))
    await asyncio.to_thread(begun.wait)
    waits.cancel()
    runs.cancel()
    await asyncio.gather(runs, waits, return_exceptions=True)
    await asyncio.sleep(0)
    third = asyncio.ensure_future(thread.run(lambda: 3))  # the one that had not begun made room, the one that runs has not
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await thread.run(lambda: 4)
    gate.set()
    assert await third == 3
    await until_free(thread)


async def test_a_failure_is_the_callers() -> None:
    thread = ReportThread()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    await until_free(thread)

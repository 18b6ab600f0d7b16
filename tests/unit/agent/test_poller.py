"""One timer for the looks of many agents."""

from __future__ import annotations

import asyncio
import functools
import time

from podplane.agent import poller
from podplane.agent.poller import POLL_SECONDS, Poller
from tests.unit.virtual_time import virtual


@virtual
async def test_each_look_is_called_once_a_period() -> None:
    loop, polls = asyncio.get_running_loop(), Poller()
    calls: list[list[float]] = [[] for _ in range(3 * poller.IN_ONE_TURN)]
    looks = [functools.partial(_note_time, loop, times) for times in calls]
    for look in looks:
        polls.add(look)
    began = loop.time()
    await asyncio.sleep(10.5 * POLL_SECONDS)
    for times in calls:
        assert [round((at - began) / POLL_SECONDS) for at in times] == list(range(1, 11))
    for look in looks:
        polls.remove(look)
    await asyncio.sleep(10 * POLL_SECONDS)
    assert all(len(times) == 10 for times in calls)


@virtual
async def test_the_period_may_be_changed() -> None:
    loop, polls, times = asyncio.get_running_loop(), Poller(1.0), list[float]()
    polls.add(look := functools.partial(_note_time, loop, times))
    began = loop.time()
    await asyncio.sleep(1.5)
    polls.seconds = 0.1
    await asyncio.sleep(0.75)
    assert [round(at - began, 2) for at in times] == [1.0, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1, 2.2]
    polls.remove(look)


def _note_time(loop: asyncio.AbstractEventLoop, times: list[float]) -> None:
    times.append(loop.time())


@virtual
async def test_a_look_that_fails_or_is_removed_by_another_one_disturbs_no_other() -> None:
    polls, removed, other = Poller(), asyncio.Event(), asyncio.Event()

    def fail() -> None:
        polls.remove(removed.set)
        raise RuntimeError("this look fails")

    for look in (fail, removed.set, other.set):
        polls.add(look)
    await asyncio.sleep(1.5 * POLL_SECONDS)
    assert other.is_set()
    assert not removed.is_set()
    polls.remove(fail)
    polls.remove(other.set)


async def test_on_a_loop_that_is_late_looks_give_way() -> None:
    """Real time: the loop is held up by a call that blocks."""
    polls, looked = Poller(), asyncio.Event()
    polls.add(looked.set)
    loop = asyncio.get_running_loop()
    loop.call_later(POLL_SECONDS - 0.01, time.sleep, 0.06)
    began = loop.time()
    await looked.wait()
    polls.remove(looked.set)
    assert loop.time() - began > POLL_SECONDS + 0.06 + poller.LATE_SECONDS * poller.GIVE_WAY

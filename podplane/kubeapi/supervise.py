"""Runs tasks that shall never end, and starts one again that does.

A task is a name and a coroutine function. When it ends for a reason that nobody asked for (an exception, a return, a cancellation from
within), that is logged and counted, and it is started again after a back-off. The other tasks go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn

import msgspec

from podplane.kubeapi.retry import Backoff, FailureLog

log = logging.getLogger(__name__)
AGAIN_SECONDS = 2.0
"""A task that has not ended so long after its cancellation is cancelled again."""
Factory = Callable[[], Awaitable[object]]
"""Starts the work anew each time it is called."""


class TaskReport(NamedTuple):
    """What is known of one task. `since`: when it was started, or when it ended (`is_running` says which), as a Unix time."""

    is_running: bool
    restarts: int
    last_error: str
    since: float


class _Supervised(msgspec.Struct):
    """One task, and what is reported of it."""

    report: TaskReport
    failures: FailureLog
    task: asyncio.Task[None]


class Supervisor:
    """Tasks by name. Everything happens on the event loop that `add` is called on.

    `clock` gives Unix times for the report; `random` and `sleep` are those of the back-off.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._tasks: dict[str, _Supervised] = {}
        self._clock, self._random, self._sleep = clock, random, sleep

    def add(self, name: str, factory: Factory) -> None:
        """Start a task now, and keep it running. ValueError when there is one of this name."""
        if name in self._tasks:
            raise ValueError(f"there is a task {name!r} already")
        task = asyncio.get_running_loop().create_task(self._keep(name, factory), name=name)
        report = TaskReport(True, 0, "", self._clock())
        self._tasks[name] = _Supervised(report, FailureLog(log, f"task name={name}"), task)

    async def remove(self, name: str) -> None:
        """Cancel a task and wait for its end; nothing happens when there is none of this name."""
        if supervised := self._tasks.pop(name, None):
            await end([supervised.task])

    async def run(self) -> NoReturn:
        """Wait until cancelled, then end all tasks."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()
        raise AssertionError("nobody ends this future")

    async def close(self) -> None:
        """Cancel all tasks and wait for their end; idempotent."""
        tasks = [supervised.task for supervised in self._tasks.values()]
        self._tasks.clear()
        await end(tasks)

    def report(self) -> Mapping[str, TaskReport]:
        """Every task, in the order of their starts."""
        return {name: supervised.report for name, supervised in self._tasks.items()}

    async def _keep(self, name: str, factory: Factory) -> None:
        backoff, loop = Backoff(random=self._random), asyncio.get_running_loop()
        while True:
            error = await _ended(factory)
            supervised = self._tasks.get(name)
            if supervised is None or supervised.task is not asyncio.current_task():
                return  # it was removed, and did not heed its cancellation
            why = repr(error) if error else "it returned"
            restarts = supervised.report.restarts
            supervised.report = TaskReport(False, restarts, why, self._clock())
            supervised.failures.note(type(error).__name__ if error else "return", why, loop.time(), error)
            await self._sleep(backoff.delay(loop.time()))
            supervised.report = TaskReport(True, restarts + 1, why, self._clock())


async def _ended(factory: Factory) -> BaseException | None:
    """Run the work; why it ended, None when it returned. CancelledError when this task is cancelled."""
    try:
        await factory()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return error  # something that the work waits for was cancelled, not the work
    except Exception as error:
        return error
    return None


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel these, and wait for their ends. A cancellation may be lost that comes together with what the task waits for (asyncio.wait_for
    before Python 3.12): then it is cancelled again."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)

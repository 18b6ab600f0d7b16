"""Requests to the API in flight: begun without waiting for their answers, with a limit at once and a time limit each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class InFlight(Generic[K, T]):
    """At most one request for each key; its methods run on one event loop."""

    limit: int
    seconds: float
    """The time limit of one request."""
    answered: Callable[[], None]
    """Called when a request is over: answered, failed or timed out."""
    _tasks: dict[K, asyncio.Task[T]] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.limit)

    def __contains__(self, key: K) -> bool:
        return key in self._tasks

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._tasks))

    def begin(self, key: K, request: Callable[[], Awaitable[T]], *, at_once: bool = False) -> None:
        """Send a request when the limit allows it, or `at_once`; nothing happens when one of this key is in flight."""
        if key not in self._tasks:
            task = self._tasks[key] = asyncio.create_task(self._send(request) if at_once else self._queue(request))
            task.add_done_callback(lambda _: self.answered())

    def take_answers(self) -> list[tuple[K, T | Exception]]:
        """The requests that are over since the last call: each with its result or its error."""
        done = [(key, task) for key, task in self._tasks.items() if task.done()]
        return [(key, _outcome(self._tasks.pop(key))) for key, _ in done]

    def abandon(self, key: K) -> None:
        """Cancel a request. It may have an effect all the same."""
        self._tasks.pop(key).cancel()

    def close(self) -> None:
        """Cancel all."""
        for key in self:
            self.abandon(key)

    async def _queue(self, request: Callable[[], Awaitable[T]]) -> T:
        async with self._slots:
            return await self._send(request)

    async def _send(self, request: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(self.seconds):
            return await request()


def _outcome(task: asyncio.Task[T]) -> T | Exception:
    error = task.exception()
    if isinstance(error, TimeoutError):
        return TimeoutError("the API does not answer")
    if error is None:
        return task.result()
    if isinstance(error, Exception):
        return error
    raise error

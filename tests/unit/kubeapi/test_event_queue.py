"""The queue before an event recorder: nobody waits for it, and what is not written is counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from podplane.kubeapi.event_queue import FULL, LEFT, REFUSED, EventQueue


class Writes:
    """A recorder that writes when it may, and refuses what is `bad`."""

    def __init__(self) -> None:
        self.may, self.written = asyncio.Event(), list[str]()

    async def record(
        self, kind: str, about: Mapping[str, Any], reason: str, message: str, type_: str = "Normal", part: str = ""
    ) -> bool:
        await self.may.wait()
        if message == "unforeseen":
            raise ValueError(message)
        if message != "bad":
            self.written.append(message)
        return message != "bad"


async def told(queue: EventQueue, *messages: str) -> list[bool]:
    return [await queue.record("v1/Service", {"name": "web"}, "Told", message) for message in messages]


async def running(queue: EventQueue) -> BaseException | None:
    """Let it write all that it can; why it ended, if it did."""
    task = asyncio.create_task(queue.run())
    for _ in range(10):
        await asyncio.sleep(0)
    error = task.exception() if task.done() else None
    task.cancel()
    with suppress(asyncio.CancelledError, ValueError):
        await task
    return error


async def test_they_are_written_in_order_and_nobody_waits_for_it() -> None:
    recorder = Writes()
    queue = EventQueue(recorder)
    assert await told(queue, "a", "b", "c") == [True] * 3
    recorder.may.set()
    await running(queue)
    queue.close()
    assert (recorder.written, queue.lost) == (["a", "b", "c"], {})


async def test_each_that_is_not_written_is_counted_by_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Writes()
    queue = EventQueue(recorder, most=3)
    assert await told(queue, "a", "bad", "b", "too many", "too many") == [True, True, True, False, False]
    recorder.may.set()
    await running(queue)
    await told(queue, "late")
    with caplog.at_level(logging.WARNING):
        queue.close()
    assert recorder.written == ["a", "b"]
    assert queue.lost == {FULL: 2, REFUSED: 1, LEFT: 1}
    assert "events not_written=4" in caplog.text


async def test_what_ends_the_task_costs_one_event() -> None:
    recorder = Writes()
    recorder.may.set()
    queue = EventQueue(recorder)
    await told(queue, "unforeseen", "next")
    assert isinstance(await running(queue), ValueError)
    await running(queue)  # as its supervisor does
    assert (recorder.written, queue.lost) == (["next"], {REFUSED: 1})


async def test_at_an_orderly_end_what_waits_is_written_if_the_api_takes_it() -> None:
    recorder = Writes()
    queue = EventQueue(recorder)
    await told(queue, "a", "bad", "b")
    task = asyncio.create_task(queue.run())
    await queue.settled(0.01)
    assert recorder.written == [], "it does not wait for ever"
    recorder.may.set()
    await queue.settled()
    assert recorder.written == ["a", "b"]
    task.cancel()
    queue.close()
    assert queue.lost == {REFUSED: 1}


async def test_who_is_ended_while_it_writes_counts_that_event() -> None:
    queue = EventQueue(Writes())
    await told(queue, "a", "b")
    await running(queue)
    queue.close()
    assert queue.lost == {REFUSED: 1, LEFT: 1}

"""The loop of a task that keeps objects of the API."""

from __future__ import annotations

import asyncio
import logging

import pytest

from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.keeping import keep
from podplane.kubeapi.retry import FailureLog
from tests.unit.agent.test_node import until


async def test_it_reconciles_when_it_is_woken_when_it_is_time_and_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.kubeapi.retry.Backoff.delay", lambda self, now: 0.0)
    wake, calls = asyncio.Event(), 0
    answers: list[float | ApiError | None] = [ApiError(503, "ServiceUnavailable", "away"), 0.001, None, None]

    async def reconcile(now: float) -> float | None:
        nonlocal calls
        calls += 1
        answer = answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return answer

    failures = FailureLog(logging.getLogger("test"), "test")
    task = asyncio.create_task(keep(wake, reconcile, failures))
    await until(lambda: calls == 3)
    await asyncio.sleep(0.01)
    assert calls == 3 and dict(failures.counts) == {"ApiError": 1}, "nothing is due, and nothing woke it"
    wake.set()
    await until(lambda: calls == 4)
    assert not task.done()
    task.cancel()


async def test_what_was_not_foreseen_ends_it_for_its_supervisor() -> None:
    async def reconcile(now: float) -> float | None:
        raise KeyError("nobody foresaw this")

    with pytest.raises(KeyError):
        await keep(asyncio.Event(), reconcile, FailureLog(logging.getLogger("test"), "test"))

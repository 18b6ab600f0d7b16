"""Requests on their way: one for each key, not too many at once, none for ever."""

from __future__ import annotations

import asyncio

from podplane.agent.inflight import InFlight
from tests.unit.virtual_time import virtual


@virtual
async def test_they_are_sent_a_few_at_a_time_and_looked_at_when_answered() -> None:
    wake, running, most = asyncio.Event(), 0, 0

    async def request() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.5)
        running -= 1
        return "answer"

    requests: InFlight[str, str] = InFlight(2, 1.0, wake.set)
    for key in "abcdea":
        requests.begin(key, request)
    assert set(requests) == set("abcde") and requests.take_answers() == []
    await wake.wait()
    await asyncio.sleep(5)
    assert most == 2
    assert sorted(requests.take_answers()) == [(key, "answer") for key in "abcde"]
    assert list(requests) == []


@virtual
async def test_one_that_is_never_answered_fails_and_those_that_wait_for_it_are_sent_then() -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    async def fails() -> str:
        raise ValueError("no")

    requests: InFlight[str, str] = InFlight(1, 1.0, lambda: None)
    requests.begin("never", never)
    requests.begin("fails", fails)
    requests.begin("at once", fails, at_once=True)
    await asyncio.sleep(0.5)
    assert [key for key, _ in requests.take_answers()] == ["at once"]
    await asyncio.sleep(1)
    answers = dict(requests.take_answers())
    assert isinstance(answers["never"], TimeoutError) and isinstance(answers["fails"], ValueError)


@virtual
async def test_what_is_abandoned_is_not_answered() -> None:
    requests: InFlight[str, None] = InFlight(1, 1.0, lambda: None)
    requests.begin("a", lambda: asyncio.sleep(0.1))
    requests.begin("b", lambda: asyncio.sleep(0.1))
    requests.abandon("a")
    assert "a" not in requests and "b" in requests
    requests.close()
    await asyncio.sleep(3)
    assert requests.take_answers() == []

"""Values that are known later."""

from __future__ import annotations

import asyncio

import pytest

from podplane.servers.later import Later


def test_who_waits_is_called_at_once_and_once() -> None:
    later: Later[int] = Later()
    heard: list[object] = []
    later.then(heard.append)
    later.map(lambda value: value + 1).then(heard.append)
    assert (heard, later.is_set) == ([], False)
    later.set(1)
    later.then(heard.append)
    assert (heard, later.is_set) == ([1, 2, 1], True)


def test_of_one_that_fails_the_others_notice_nothing(caplog: pytest.LogCaptureFixture) -> None:
    later: Later[int] = Later()
    heard: list[int] = []
    for one in (heard.append, [].remove, heard.append):  # there is nothing to remove
        later.then(one)
    later.set(7)
    assert heard == [7, 7] and "who waited for 7" in caplog.text


async def test_it_may_be_awaited_before_and_after_it_is_known() -> None:
    later: Later[int] = Later()
    waiting = [asyncio.ensure_future(later) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    later.set(7)
    assert await asyncio.gather(*waiting[1:], later) == [7, 7, 7]
    assert waiting[0].cancelled()

"""Both directions at once: the end of one, however it comes, is the end of the other."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from podplane.apiserver.together import until_one_ends


@pytest.mark.parametrize("fails", [False, True])
async def test_the_first_end_ends_the_others_and_waits_for_them(fails: bool) -> None:
    ended: list[str] = []

    async def short() -> None:
        if fails:
            raise ValueError("broken")

    async def long() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append("long")

    await until_one_ends(long(), short())
    assert ended == ["long"]


async def test_whoever_is_cancelled_cancels_all() -> None:
    ended: list[int] = []

    async def long(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(number)

    task = asyncio.ensure_future(until_one_ends(long(1), long(2)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert sorted(ended) == [1, 2]

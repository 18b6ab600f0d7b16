"""Answers of the zygote, and how long they are waited for."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
ANSWER_SECONDS = 30.0
"""A zygote that says nothing for so long is not waited for."""


class Silent(TimeoutError):
    """The zygote does not answer, for so long that nobody waits any more; one line that says so."""


Silence = Callable[[], str]
"""Why an answer is awaited no longer; "" while it may come."""


async def answered(future: asyncio.Future[T], silence: Silence) -> T:
    """What comes of an answer of the zygote. Silent when it says nothing at all for ANSWER_SECONDS."""
    while not future.done():
        done, _ = await asyncio.wait([future], timeout=ANSWER_SECONDS)
        if not done and (why := silence()):
            raise Silent(errno.ETIMEDOUT, why)
    return future.result()


def close_all(descriptors: Iterable[int]) -> None:
    """Close what came with an answer."""
    for fd in descriptors:
        os.close(fd)

"""The loop of a task that keeps objects of the API as they shall be: woken by changes, and tried again when the API takes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.retry import Backoff, FailureLog

HIGHEST_SECONDS = 5.0
"""The longest wait between two tries."""


async def keep(wake: asyncio.Event, reconcile: Callable[[float], Awaitable[float | None]], failures: FailureLog) -> NoReturn:
    """Reconcile whenever `wake` is set, until cancelled.

    `reconcile(now)` does what is due at this time of the loop; so many seconds later it is called again, None: only when `wake` is set. An
    ApiError is logged, and it is called again after a while that grows up to HIGHEST_SECONDS.
    """
    backoff, loop = Backoff(highest=HIGHEST_SECONDS), asyncio.get_running_loop()
    while True:
        wake.clear()
        delay: float | None = None
        try:
            delay = await reconcile(loop.time())
        except ApiError as error:
            failures.note(type(error).__name__, error, loop.time())
            delay = backoff.delay(loop.time())
        try:
            async with asyncio.timeout(delay):
                await wake.wait()
        except TimeoutError:
            pass

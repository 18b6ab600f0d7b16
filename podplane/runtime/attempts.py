"""Attempts at work of a pod that may fail for a reason that nobody thought of: it is logged with its traceback (so it counts as unforeseen,
see `apiserver.unforeseen`), told as an event, and tried again, later each time. Nothing of it ends for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from podplane.kubeapi.errors import described
from podplane.kubeapi.retry import Backoff

log = logging.getLogger(__name__)
FAILED = "FailedSync"
"""The reason of the event, as kubelets have it (kubelet/events)."""
Tell = Callable[[str, str], Awaitable[None]]
"""(reason, message) of an event."""


class NotYet(Exception):
    """Work that can't be done now, for a reason that is nobody's oversight: `reason` of the event, and a sentence for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Attempts(msgspec.Struct, eq=False):
    """Attempts at one thing. `due_at`: when the next one is due after one that failed, by `clock`; None when none is."""

    what: str
    tell: Tell
    clock: Callable[[], float]
    due_at: float | None = None
    _backoff: Backoff = msgspec.field(default_factory=Backoff)

    async def succeeds(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Try it now. Whatever is wrong, all others go on."""
        self.due_at = None
        try:
            await work()
        except NotYet as error:
            log.warning("%s %s", self.what, error)
            await self._again(error.reason, str(error))
            return False
        except Exception as error:
            log.exception("%s failed", self.what)
            await self._again(FAILED, f"error syncing pod: {described(error, with_paths=False)}")
            return False
        return True

    async def _again(self, reason: str, message: str) -> None:
        self.due_at = self.clock() + self._backoff.delay(self.clock())
        try:
            await self.tell(reason, message)
        except Exception:
            log.exception("event of %s failed", self.what)

    async def until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        """Try until it is done."""
        while True:
            if await self.succeeds(work):
                return
            await asyncio.sleep(max(0.0, (self.due_at or 0.0) - self.clock()))

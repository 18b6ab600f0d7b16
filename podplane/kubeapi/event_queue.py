"""A queue before an event recorder: who has something to tell does not wait until the API has stored it.

    record ──► queue, of MOST events at most ──► run: one after the other ──► Recorder ──► API

As client-go's EventBroadcaster has it (tools/record/event.go). An event that is not written is counted by its reason, and that is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from podplane.kubeapi.events import LAST_SECONDS, NORMAL, Events
from podplane.kubeapi.retry import FailureLog

log = logging.getLogger(__name__)
MOST = 4096
FULL, REFUSED, LEFT = "queue full", "refused", "left at the end"
"""Why an event is not written; the API refuses one, or its object has had too many."""


class _Event(NamedTuple):
    """As `Recorder.record` takes it."""

    kind: str
    about: Mapping[str, Any]
    reason: str
    message: str
    type_: str
    part: str

    def __str__(self) -> str:
        return f"{self.reason} of {self.about['name']}: {self.message}"


class EventQueue:
    """Events that wait for `recorder`; everything happens on one event loop."""

    def __init__(self, recorder: Events, most: int = MOST) -> None:
        self._recorder = recorder
        self._waiting: asyncio.Queue[_Event] = asyncio.Queue(most)
        self._failures = FailureLog(log, "events")

    @property
    def lost(self) -> Mapping[str, int]:
        """The number of events that were not written, by reason."""
        return self._failures.counts

    async def record(
        self, kind: str, about: Mapping[str, Any], reason: str, message: str, type_: str = NORMAL, part: str = ""
    ) -> bool:
        """Have an event written, soon; False when too many wait."""
        event = _Event(kind, about, reason, message, type_, part)
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            self._lose(FULL, event)
            return False
        return True

    async def run(self) -> NoReturn:
        """Write what waits, until cancelled."""
        while True:
            event = await self._waiting.get()
            is_written = False
            try:
                is_written = await self._recorder.record(*event)
            finally:
                self._waiting.task_done()
                if not is_written:
                    self._lose(REFUSED, event)

    async def settled(self, seconds: float = LAST_SECONDS) -> None:
        """Wait until `run` has written what waits, so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._waiting.join()

    def close(self) -> None:
        """Nothing is written any more: what waits is lost."""
        while not self._waiting.empty():
            self._lose(LEFT, self._waiting.get_nowait())
        if self.lost:
            log.warning("events not_written=%d why=%s", sum(self.lost.values()), dict(self.lost))

    def _lose(self, why: str, event: _Event) -> None:
        self._failures.note(why, event, asyncio.get_running_loop().time())

"""Retries: how long to wait after a failure, and how often to log one that repeats."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

LOWEST_SECONDS, HIGHEST_SECONDS = 0.2, 30.0
RESET_SECONDS = 120.0
"""After so long without a failure the next one is a first one again (as client-go's reflector has it)."""
SILENCE_SECONDS = 300.0
"""A failure of one kind is logged once in this time."""


class Backoff(msgspec.Struct):
    """Delays between retries. They double with each failure, and the upper half of each is random, so that clients which
    failed together don't retry together.
    """

    lowest: float = LOWEST_SECONDS
    highest: float = HIGHEST_SECONDS
    random: Callable[[], float] = random.random
    _ceiling: float = 0.0
    _last: float | None = None

    def delay(self, now: float) -> float:
        """Seconds to wait after a failure at `now` (seconds of a monotonic clock): between `lowest` and `highest`."""
        if self._last is None or now - self._last > RESET_SECONDS:
            self._ceiling = self.lowest
        self._ceiling = min(self.highest, 2 * self._ceiling)
        seconds = self._ceiling * (0.5 + 0.5 * self.random())
        self._last = now + seconds
        return seconds


class FailureLog(msgspec.Struct):
    """Counts failures by kind, and logs each kind once in `SILENCE_SECONDS`, with the number that was not logged.

    A kind is a short text out of a small set (the phase and the class of the exception), never a text from outside.
    """

    log: logging.Logger
    subject: str
    _counts: Counter[str] = msgspec.field(default_factory=Counter)
    _logged: dict[str, tuple[float, int]] = msgspec.field(default_factory=dict)

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of failures of each kind, since the start."""
        return MappingProxyType(self._counts)

    def note(self, kind: str, why: object, now: float, exception: BaseException | None = None) -> None:
        """Count a failure, and log it (with the traceback of `exception`) unless one of its kind was logged lately.

        `now` is of a monotonic clock.
        """
        self._counts[kind] += 1
        at, count = self._logged.get(kind, (now - SILENCE_SECONDS, 0))
        if now - at < SILENCE_SECONDS:
            return
        missed = self._counts[kind] - count - 1
        self._logged[kind] = now, self._counts[kind]
        text = "%s failure=%r count=%d not_logged=%d error=%.300s"
        self.log.warning(text, self.subject, kind, self._counts[kind], missed, why, exc_info=exception)

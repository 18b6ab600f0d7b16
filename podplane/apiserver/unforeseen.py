"""What went wrong in this process for a reason that nobody thought of: each record of the log that has a traceback is one.

They are counted by the module that logged them, for `/metrics` and for `/debug/unforeseen`, which `podplane status` reads. A traceback that
repeats is written to the log once in a minute, so that what fails each second fills no disk.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from podplane.kubeapi.errors import described

PATH = "/debug/unforeseen"
SILENCE_SECONDS = 60.0
MAX_TEXT = 300
PACKAGE = "podplane."


class Unforeseen(logging.Filter):
    """A filter of a handler of the log, which lets everything pass. `clock` gives Unix times."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self.counts: Counter[str] = Counter()
        """By module, as `runtime.pod`."""
        self._last: dict[str, Any] | None = None
        self._written: dict[tuple[str, str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Count it if it has a traceback, which goes when it was written lately."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        module, now, text = record.name.removeprefix(PACKAGE), self._clock(), described(error)[:MAX_TEXT]
        self.counts[module] += 1
        self._last = {"module": module, "message": record.getMessage()[:MAX_TEXT], "error": text, "at": now}
        kind = (record.name, str(record.msg), type(error).__name__)
        if now - self._written.get(kind, -SILENCE_SECONDS) < SILENCE_SECONDS:
            record.msg, record.args, record.exc_info = "%s: %s", (record.getMessage()[:MAX_TEXT], text), None
        else:
            self._written[kind] = now
        return True

    def report(self) -> dict[str, Any]:
        """How many there were since the start, by module, and the last of them: where, what failed, how and when (a Unix time)."""
        return {"counts": dict(self.counts), "last": self._last}

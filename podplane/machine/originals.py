"""What sysctls were before podplane set them, kept in the journal: an agent that starts again finds its own values in the kernel."""

from __future__ import annotations

import logging

from podplane.kernel.sysctl import FormerSysctls
from podplane.machine.journal import Journal, Original

log = logging.getLogger(__name__)


class KeptSysctls(FormerSysctls):
    """`FormerSysctls` of a journal. What it can't take is known to this process alone."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal
        self.values |= {name: one.was for name, one in journal.originals.items() if one.was is not None}

    def note(self, name: str, was: str, wanted: str) -> None:
        """It is in the journal when this returns."""
        super().note(name, was, wanted)
        self._write(Original(name, was, wanted))

    def take(self, name: str, default: str) -> str:
        """It is in the journal no longer."""
        if name in self.values:
            self._write(Original(name))
        return super().take(name, default)

    def _write(self, original: Original) -> None:
        try:
            self._journal.note(original)
        except OSError as error:
            log.warning("journal path=%s sysctl=%s error=%s", error.filename, original.sysctl, error.strerror)

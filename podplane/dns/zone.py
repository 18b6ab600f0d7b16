"""What a zone is to the server: a source of records, asked by question."""

from __future__ import annotations

from typing import Protocol

from podplane.dns.message import Answer, Question


class Zone(Protocol):
    """A source of records."""

    def answer(self, question: Question) -> Answer | None:
        """What this zone says; None when the name is none of its own."""

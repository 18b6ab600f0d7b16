"""What a zone is to the server: a source of records, asked by question."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from podplane.dns.message import Answer, Name, Question


class Zone(Protocol):
    """A source of records."""

    @property
    def ends(self) -> Collection[Name]:
        """What all names end with that this zone may have an answer to."""

    def answer(self, question: Question) -> Answer | None:
        """What this zone says; None when the name is none of its own."""

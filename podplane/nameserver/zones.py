"""Zones as sources of the resolver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podplane.dns.message import Answer, Query, Question
from podplane.dns.zone import Zone
from podplane.nameserver.resolver import Client


@dataclass(frozen=True, slots=True)
class Zones:
    """Zones that this server has itself."""

    zones: Sequence[Zone]

    def answer(self, question: Question, client: Client, query: Query) -> Answer | None:
        """What the first zone says that the name belongs to."""
        for zone in self.zones:
            if (answer := zone.answer(question)) is not None:
                return answer
        return None

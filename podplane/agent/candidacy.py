"""What a node does about one Service's election: the decision alone. Pure.

    the Service's Lease names   this node may answer, and                    what this node does
    this node                   it wrote that in its present life            answer
    this node                   it was cut off since then                    take: write it again, unless somebody else wrote meanwhile
    this node                   it may not answer any more                   fall silent, then give back: the next one has it at once
    nobody                                                                   take, after a moment: the preferred node tries first
    another node                that was seen to live within 3 s             wait
    another node                that was not                                 ask the API: did it really give no sign since?
    another node                that gave none                               take, after a moment
    another node                that lives, but was cut off since it wrote   take, unless it has written again within a second
    any other                   it may not answer                            wait

A life is a time without a gap in which a node gives signs of life (see `election`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from podplane.agent.leases import LIFE
from podplane.agent.liveness import RENEW_SECONDS
from podplane.model.lease import Lease
from podplane.services.announce import preference

HASTE_SECONDS = 0.2
"""How long the least preferred node waits for better ones."""
REMINDERS = 2
"""So often the neighbours are told again, once a second: a first word may get lost."""


class Step(enum.Enum):
    """What a node does about a Service."""

    WAIT, ANSWER, ASK, TAKE, GIVE_BACK = range(5)


class Holder(enum.Enum):
    """How it is with the node that a Lease names."""

    NOBODY, LIVES, SILENT, DEAD, REBORN, SELF, CONFIRMED = range(7)


def decide(holder: Holder, *, able: bool) -> Step:
    """The table above; `able` says that this node may answer."""
    if not able:
        return Step.GIVE_BACK if holder in (Holder.SELF, Holder.CONFIRMED) else Step.WAIT
    match holder:
        case Holder.CONFIRMED:
            return Step.ANSWER
        case Holder.LIVES:
            return Step.WAIT
        case Holder.SILENT:
            return Step.ASK
    return Step.TAKE


@dataclass(slots=True)
class Candidacy:
    """What a node knows of one Service's election."""

    lease: Lease | None = None
    attempt_at: float | None = None
    """When it tries to take it."""
    ips: tuple[str, ...] = ()
    """The addresses for which the neighbours know that it answers."""
    reminders: int = 0
    remind_at: float = 0.0

    @property
    def holder(self) -> str:
        """Who has it, as far as is known; "" for nobody."""
        return self.lease.holder if self.lease else ""

    @property
    def life(self) -> str:
        """In which of its lives the holder took it."""
        return self.lease.metadata.annotations.get(LIFE, "") if self.lease else ""

    def wait(self, path: str, node: str, now: float, *, is_reborn: bool) -> float:
        """Seconds until this node may try to take it: the more it is preferred the sooner, and what was its own at once."""
        if self.attempt_at is None:
            grace = RENEW_SECONDS if is_reborn else 0.0
            self.attempt_at = now + (0.0 if self.holder == node else grace + HASTE_SECONDS * preference(path, node))
        return self.attempt_at - now

    def has_news(self, ips: tuple[str, ...], now: float) -> bool:
        """Are the neighbours to be told now, of other addresses or once more?"""
        if self.ips != ips:
            self.ips, self.reminders = ips, REMINDERS
        elif self.reminders and now >= self.remind_at:
            self.reminders -= 1
        else:
            return False
        self.remind_at = now + RENEW_SECONDS
        return True

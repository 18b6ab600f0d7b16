"""What a node does about the election of one Service: the decision alone. Pure.

    holder in the Service's Lease                     this node may advertise     what this node does
    this node, in its present lease term              yes                         advertise
    this node, in a former lease term                 yes                         acquire again; another node may have written meanwhile
    this node                                         no                          withdraw, then release: the next holder need not wait
    none                                              yes                         acquire, after the candidate delay
    another node, heartbeat less than 3 s ago         yes                         wait
    another node, heartbeat older than that           yes                         read its heartbeat Lease: the watch may lag
    another node, the API has no newer heartbeat      yes                         acquire, after the candidate delay
    another node, but in a former term of that node   yes                         acquire, unless it acquires again within a second
    any other                                         no                          wait

A lease term is a time in which a node renewed its heartbeat Lease without a gap (see `liveness`).
"""

from __future__ import annotations

import enum

import msgspec

from podplane.agent.leases import TERM
from podplane.agent.liveness import RENEW_SECONDS
from podplane.model.lease import Lease
from podplane.services.announce import preference

MAX_CANDIDATE_DELAY_SECONDS = 0.2
"""The least preferred node waits so long before it acquires a Lease, so that preferred nodes come first."""
ANNOUNCEMENT_REPEATS = 2
"""The addresses are announced again so often, once a second: an announcement may get lost."""


class Step(enum.Enum):
    """What a node does about a Service."""

    WAIT, ADVERTISE, READ_HEARTBEAT, ACQUIRE, RELEASE = range(5)


class Holder(enum.Enum):
    """The holder that a Service's Lease names, as this node sees it.

    SUSPECTED: its heartbeat is older than the lease duration; EXPIRED: the API confirmed that. NEW_TERM: it is live, but acquired the
    Lease in a former lease term. SELF: this node, in its present term; SELF_FORMER_TERM: this node, in another one.
    """

    NONE, LIVE, SUSPECTED, EXPIRED, NEW_TERM, SELF_FORMER_TERM, SELF = range(7)


def decide(holder: Holder, *, eligible: bool) -> Step:
    """The table above; `eligible` says that this node may advertise the Service."""
    if not eligible:
        return Step.RELEASE if holder in (Holder.SELF, Holder.SELF_FORMER_TERM) else Step.WAIT
    match holder:
        case Holder.SELF:
            return Step.ADVERTISE
        case Holder.LIVE:
            return Step.WAIT
        case Holder.SUSPECTED:
            return Step.READ_HEARTBEAT
    return Step.ACQUIRE


class Candidacy(msgspec.Struct):
    """What a node knows of the election of one Service."""

    lease: Lease | None = None
    acquire_at: float | None = None
    """When this node tries to acquire the Lease; None while it does not want to."""
    announced_ips: tuple[str, ...] = ()
    """The addresses that this node announced to its neighbours last."""
    repeats_left: int = 0
    repeat_at: float = 0.0

    @property
    def holder(self) -> str:
        """The holder, as far as is known; "" when there is none."""
        return self.lease.holder if self.lease else ""

    @property
    def term(self) -> str:
        """The lease term of the holder in which it acquired the Lease."""
        return self.lease.metadata.annotations.get(TERM, "") if self.lease else ""

    def seconds_to_acquire(self, path: str, node: str, now: float, *, is_new_term: bool) -> float:
        """Seconds until this node may try to acquire the Lease: the candidate delay, which is shorter the more the node is preferred.

        What this node held in a former term it acquires again at once; a live holder in a new term (`is_new_term`) gets a second to do so.
        """
        if self.acquire_at is None:
            grace = RENEW_SECONDS if is_new_term else 0.0
            delay = MAX_CANDIDATE_DELAY_SECONDS * preference(path, node)
            self.acquire_at = now + (0.0 if self.holder == node else grace + delay)
        return self.acquire_at - now

    def take_announcement(self, ips: tuple[str, ...], now: float) -> bool:
        """Are the addresses to be announced now, for the first time or once more? It counts as done."""
        if self.announced_ips != ips:
            self.announced_ips, self.repeats_left = ips, ANNOUNCEMENT_REPEATS
        elif self.repeats_left and now >= self.repeat_at:
            self.repeats_left -= 1
        else:
            return False
        self.repeat_at = now + RENEW_SECONDS
        return True

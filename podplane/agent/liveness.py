"""Who lives: this node, as far as it may rely on that itself, and others, as far as they were seen to.

A node counts on its own sign of life for SILENT_SECONDS from before it was sent; others count on it for DURATION_SECONDS from when they saw
it, and then ask the API whether there is a newer one, for a watch may lag. So a node that can't renew it is silent before anybody
else may have what it held, whatever becomes of its requests. All times are of the own clock: those of machines differ.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from podplane.agent.leases import DURATION_SECONDS
from podplane.model.lease import Lease

RENEW_SECONDS, SILENT_SECONDS = 1.0, 2.5
FORGET_SECONDS = 60.0
"""So long it is remembered when a node that has no Lease was seen."""


def boot_clock() -> float:
    """Seconds that pass while the machine sleeps, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class LeaseTerm:
    """This node's own: until when it may answer, and when it is to be renewed."""

    until: float = -math.inf
    renew_at: float = -math.inf
    sent: float = -math.inf
    anew: bool = True
    name: str = ""
    """What stands in Leases for the present life, or the one that is to begin."""

    def is_over(self, now: float) -> bool:
        """May this node not answer?"""
        return now >= self.until

    def begin_renewal(self, now: float, stamp: str) -> str:
        """A renewal is sent now; of which life, which may be a new one."""
        self.sent, self.anew = now, self.is_over(now)
        if self.anew:
            self.name = stamp
        return self.name

    def renewed(self, now: float) -> bool:
        """The renewal was written. Does a life begin by it? One that was to continue a life that is over meanwhile counts for nothing."""
        was_over = self.is_over(now)
        if was_over and not self.anew:
            self.renew_at = now
            return False
        self.until, self.renew_at = self.sent + SILENT_SECONDS, self.sent + RENEW_SECONDS
        return was_over

    def failed(self, now: float) -> None:
        """It may not have been written."""
        self.renew_at = max(now, self.sent + RENEW_SECONDS / 2)

    def resume(self, lease: Lease, now: float, wall: datetime.datetime) -> bool:
        """Go on where this node's former agent ended, if it lived: its Lease says when it was renewed by the clock of this machine."""
        age = (wall - datetime.datetime.fromisoformat(lease.spec.renew_time or "1970-01-01T00:00:00Z")).total_seconds()
        if 0 <= age < SILENT_SECONDS:
            self.until, self.name = now - age + SILENT_SECONDS, lease.spec.acquire_time or ""
        return not self.is_over(now)


@dataclass(slots=True)
class Heartbeat:
    """When a node was seen to live last, by which Lease; and whether the API said since that there is no newer one."""

    lease: Lease | None
    at: float
    is_last: bool = False


@dataclass(slots=True)
class PeerHeartbeats:
    """The signs of life of all nodes."""

    clock: Callable[[], float]
    _heartbeats: dict[str, Heartbeat] = field(default_factory=dict)

    def lease(self, node: str) -> Lease | None:
        """A node's Lease as far as it is known."""
        return self._heartbeats[node].lease if node in self._heartbeats else None

    def seen(self, node: str, lease: Lease) -> None:
        """A node's Lease as somebody saw it; an old one is no sign."""
        known = self.lease(node)
        if known is None or lease.is_newer(known):
            self._note(node, lease)

    def gone(self, node: str, lease: Lease) -> None:
        """A node's Lease was deleted. That is no sign, and no proof of death either: a node that lives makes it again."""
        sign = self._heartbeats.get(node)
        if sign is not None and sign.lease is not None and sign.lease.metadata.uid == lease.metadata.uid:
            sign.lease = None

    def asked(self, node: str, found: Lease | None) -> None:
        """What the API answered when it was asked for a node's Lease: is the last sign really the last one?"""
        sign = self._heartbeats.get(node)
        if sign is None or (found is None) != (sign.lease is None) or (found and sign.lease and found.is_newer(sign.lease)):
            self._note(node, found)
        elif found is None or (sign.lease and found.metadata.resource_version == sign.lease.metadata.resource_version):
            sign.is_last = self.clock() >= sign.at + DURATION_SECONDS

    def silent_at(self, node: str) -> float:
        """When a node will have been silent for too long. A node of which nothing was seen yet may have given a sign just now."""
        if node not in self._heartbeats:
            self._note(node, None)
        return self._heartbeats[node].at + DURATION_SECONDS

    def is_dead(self, node: str) -> bool:
        """Is it certain that the node itself knows that it was silent for too long?"""
        return node in self._heartbeats and self._heartbeats[node].is_last

    def _note(self, node: str, lease: Lease | None) -> None:
        now = self.clock()
        if lease is None:
            old = [name for name, sign in self._heartbeats.items() if sign.lease is None and now > sign.at + FORGET_SECONDS]
            for name in old:
                del self._heartbeats[name]
        self._heartbeats[node] = Heartbeat(lease, now)

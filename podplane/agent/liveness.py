"""Liveness of nodes: the lease term of this node, and the heartbeats of its peers.

A node renews a heartbeat Lease of its own. It relies on a renewal for RENEW_DEADLINE_SECONDS from before it was sent; its peers rely on
it for DURATION_SECONDS from when they saw it, and then ask the API whether there is a newer one, for a watch may lag. So a node that
can't renew its Lease withdraws before another node may acquire what it held, whatever becomes of its requests. All times are of the
node's own clock: clocks of machines differ.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from podplane.agent.leases import DURATION_SECONDS, RENEWED
from podplane.model.lease import Lease

RENEW_SECONDS, RENEW_DEADLINE_SECONDS = 1.0, 2.5
"""From one renewal to the next; from the last successful renewal to the end of the lease term (client-go: RenewDeadline)."""
KEEP_SECONDS = 60.0
"""A node without a heartbeat Lease is remembered for so long."""


def boot_clock() -> float:
    """Seconds that also pass while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Tells one boot of the machine from another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Moment(NamedTuple):
    """A time by `boot_clock`, in one boot of a machine: it says how long ago it was, whatever becomes of the wall clock."""

    boot: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.boot} {self.seconds:.6f}"

    @classmethod
    def of(cls, text: str) -> Moment:
        """From its text. ValueError for what is none."""
        boot, _, seconds = text.partition(" ")
        return cls(boot, float(seconds))


class LeaseTerm(msgspec.Struct):
    """The lease term of this node: a time in which its heartbeat Lease was renewed without a gap. Only in it the node advertises."""

    expires_at: float = -math.inf
    renew_at: float = -math.inf
    sent_at: float = -math.inf
    """When the last renewal was sent."""
    begins_new: bool = True
    """Does that renewal begin a new term?"""
    name: str = ""
    """What identifies the present term in Leases, or the next one before it begins."""

    def is_expired(self, now: float) -> bool:
        """Must this node not advertise?"""
        return now >= self.expires_at

    def begin_renewal(self, now: float, timestamp: str) -> str:
        """A renewal is sent now; the name of its term: the present one's, or, when that expired, `timestamp`."""
        self.sent_at, self.begins_new = now, self.is_expired(now)
        if self.begins_new:
            self.name = timestamp
        return self.name

    def renewed(self, now: float) -> bool:
        """The renewal was written. Does a term begin by it? A renewal of a term that expired meanwhile is void."""
        was_expired = self.is_expired(now)
        if was_expired and not self.begins_new:
            self.renew_at = now
            return False
        self.expires_at, self.renew_at = self.sent_at + RENEW_DEADLINE_SECONDS, self.sent_at + RENEW_SECONDS
        return was_expired

    def failed(self, now: float) -> None:
        """The renewal failed, or it is not known whether it was written."""
        self.renew_at = max(now, self.sent_at + RENEW_SECONDS / 2)

    def resume(self, lease: Lease, now: Moment) -> bool:
        """Continue the term of the agent that ran on this node before, unless it expired: the Lease has the time of its last renewal."""
        try:
            renewed = Moment.of(lease.metadata.annotations.get(RENEWED, ""))
        except ValueError:
            return False
        if renewed.boot == now.boot and 0 <= now.seconds - renewed.seconds < RENEW_DEADLINE_SECONDS:
            self.expires_at, self.name = renewed.seconds + RENEW_DEADLINE_SECONDS, lease.spec.acquire_time or ""
        return not self.is_expired(now.seconds)


class Heartbeat(msgspec.Struct):
    """The newest heartbeat Lease of a node, and when it was seen first; `is_last`: later, the API had no newer one."""

    lease: Lease | None
    at: float
    is_last: bool = False


class PeerHeartbeats(msgspec.Struct):
    """The heartbeats of all nodes."""

    clock: Callable[[], float]
    _heartbeats: dict[str, Heartbeat] = msgspec.field(default_factory=dict)

    def lease(self, node: str) -> Lease | None:
        """The heartbeat Lease of a node as far as it is known."""
        return self._heartbeats[node].lease if node in self._heartbeats else None

    def observe(self, node: str, lease: Lease) -> None:
        """A version of a node's heartbeat Lease was seen, which counts when it is newer than the known one."""
        known = self.lease(node)
        if known is None or lease.is_newer(known):
            self._note(node, lease)

    def deleted(self, node: str, lease: Lease) -> None:
        """A node's heartbeat Lease was deleted: neither a heartbeat nor a proof that the node is down. A live node creates it again."""
        heartbeat = self._heartbeats.get(node)
        if heartbeat is not None and heartbeat.lease is not None and heartbeat.lease.metadata.uid == lease.metadata.uid:
            heartbeat.lease = None

    def confirm(self, node: str, found: Lease | None) -> None:
        """The API was asked for a node's heartbeat Lease, and has `found`: a newer heartbeat, or a proof that there is none."""
        known = self._heartbeats.get(node)
        if known is None or (found is None) != (known.lease is None) or (found and known.lease and found.is_newer(known.lease)):
            self._note(node, found)
        elif found is None or (known.lease and found.metadata.resource_version == known.lease.metadata.resource_version):
            known.is_last = self.clock() >= known.at + DURATION_SECONDS

    def suspected_at(self, node: str) -> float:
        """When the last heartbeat of a node will be older than the lease duration. One that was never seen may have sent one just now."""
        if node not in self._heartbeats:
            self._note(node, None)
        return self._heartbeats[node].at + DURATION_SECONDS

    def is_expired(self, node: str) -> bool:
        """Is it certain that the lease term of the node expired, by its own clock too?"""
        return node in self._heartbeats and self._heartbeats[node].is_last

    def _note(self, node: str, lease: Lease | None) -> None:
        now = self.clock()
        if lease is None:
            old = [name for name, one in self._heartbeats.items() if one.lease is None and now > one.at + KEEP_SECONDS]
            for name in old:
                del self._heartbeats[name]
        self._heartbeats[node] = Heartbeat(lease, now)

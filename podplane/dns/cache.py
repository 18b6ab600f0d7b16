"""Answers of other servers, kept as long as they are true, and longer for the time when no server answers (RFC 2308, RFC 8767).

What is kept is bounded by bytes; what was not asked for longest goes first. Times are seconds of any one clock. What makes an answer
another one is part of its key (`asking.Ask`): the DNSSEC bits, and whether recursion is desired.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from podplane.dns import config
from podplane.dns.asking import Ask
from podplane.dns.message import Alias
from podplane.dns.relay import aged, with_ttl
from podplane.dns.responses import Reply

STALE_TTL = 30
"""Of an answer that is not true for sure (RFC 8767, 4)."""
OVERHEAD_BYTES, TTL_BYTES, ALIAS_BYTES = 500, 40, 120
"""What an answer costs beside its message and its question, each place of a TTL, and each alias (measured on CPython 3.11, 64 bits)."""
EVICTED_AT_ONCE = 256
"""A smaller bound is reached by and by: nobody waits for ten thousand evictions."""
LEAD_PART, LEAD_SECONDS = 60, 10
"""An answer is given as it is for this part of the time that is left to it, and so many seconds at most: a question that is answered
without looking here costs a tenth."""
POPULAR_HITS = 3
PREFETCH_PART, PREFETCH_LEAST = 0.1, 1.0
"""An answer is asked for again in the last tenth of its time, and in its last second."""


class Found(NamedTuple):
    """What the cache has. `seconds`: so long it may be given as it is, and when that is more than one, its TTLs are less by so much, so
    that no client keeps it for too long; else they are right to the nearest second. `refresh`: it should be asked for again meanwhile."""

    message: bytes
    rcode: int
    seconds: float
    refresh: bool = False
    aliases: tuple[Alias, ...] = ()


@dataclass(slots=True)
class _Entry:
    reply: Reply
    stored: float
    size: int
    hits: int = 0
    until: float = 0.0
    is_asked_again: bool = False


@dataclass(slots=True)
class Counts:
    """What happened in the cache: of answers ("success") and of those that say that there is nothing ("denial")."""

    hits: dict[str, int] = field(default_factory=lambda: {"success": 0, "denial": 0})
    entries: dict[str, int] = field(default_factory=lambda: {"success": 0, "denial": 0})
    evictions: dict[str, int] = field(default_factory=lambda: {"success": 0, "denial": 0})
    misses: int = 0
    stale: int = 0
    prefetches: int = 0


class Cache:
    """The cache."""

    def __init__(self, settings: config.Cache) -> None:
        self._settings = settings
        self._entries: OrderedDict[Ask, _Entry] = OrderedDict()
        self.bytes = 0
        self.counts = Counts()

    def __len__(self) -> int:
        return len(self._entries)

    def configure(self, settings: config.Cache) -> None:
        """Go by other settings from now on; what is kept already is kept as long as it was to be."""
        self._settings = settings
        self._shrink()

    def get(self, key: Ask, now: float) -> Found | None:
        """What is true now; None when it must be asked for."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.until:
            self.counts.misses += 1
            return None
        self._entries.move_to_end(key)
        self.counts.hits[_kind(entry.reply)] += 1
        entry.hits += 1
        left = entry.until - now
        lead = min(LEAD_SECONDS, int(left / LEAD_PART))
        age = int(now - entry.stored + 0.5) + (lead if lead > 1 else 0)
        message = aged(entry.reply.message, entry.reply.ttls, age)
        return Found(message, entry.reply.rcode, min(max(1.0, lead), left), self._is_due(entry, now), entry.reply.aliases)

    def stale(self, key: Ask, now: float) -> Found | None:
        """The last answer there was, true or not any more; None when it is too old."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.until + self._settings.stale_seconds:
            return None
        self._entries.move_to_end(key)
        self.counts.stale += 1
        reply = entry.reply
        return Found(with_ttl(reply.message, reply.ttls, STALE_TTL), reply.rcode, 1.0, aliases=reply.aliases)

    def has_stale(self, key: Ask, now: float) -> bool:
        """Is there an answer for the time when no server gives one?"""
        entry = self._entries.get(key)
        return entry is not None and now < entry.until + self._settings.stale_seconds

    def put(self, key: Ask, reply: Reply, now: float) -> None:
        """Keep an answer, in place of the last one; one that is not to be kept leaves the last one as it is."""
        if reply.seconds <= 0:
            return
        self._remove(key)
        size = (
            OVERHEAD_BYTES
            + len(reply.message)
            + len(key.asked)
            + TTL_BYTES * len(reply.ttls)
            + ALIAS_BYTES * len(reply.aliases)
        )
        self._entries[key] = _Entry(reply, now, size, until=now + reply.seconds)
        self.bytes += size
        self.counts.entries[_kind(reply)] += 1
        self._shrink()

    def expire(self) -> None:
        """Nothing is true for sure any more."""
        for entry in self._entries.values():
            entry.until = min(entry.until, entry.stored)

    def clear(self) -> None:
        """Keep nothing."""
        self._entries.clear()
        self.bytes = 0
        self.counts.entries = {"success": 0, "denial": 0}

    def _is_due(self, entry: _Entry, now: float) -> bool:
        """Should it be asked for again before its time is over, because many want it?"""
        left = entry.until - now
        if not self._settings.prefetch or entry.is_asked_again or entry.hits < POPULAR_HITS:
            return False
        if left > max(entry.reply.seconds * PREFETCH_PART, PREFETCH_LEAST) or entry.reply.seconds <= 2 * PREFETCH_LEAST:
            return False
        entry.is_asked_again = True
        self.counts.prefetches += 1
        return True

    def _shrink(self) -> None:
        for _ in range(EVICTED_AT_ONCE):
            if self.bytes <= self._settings.bytes:
                return
            key, entry = next(iter(self._entries.items()))
            self.counts.evictions[_kind(entry.reply)] += 1
            self._remove(key)

    def _remove(self, key: Ask) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size
            self.counts.entries[_kind(entry.reply)] -= 1


def _kind(reply: Reply) -> str:
    """As CoreDNS's metrics call it."""
    return "denial" if reply.is_negative else "success"

"""What a node knows of the ways to its peers: reached or lost, how long an answer takes, and how many of the last probes had none.

    a probe is sent ── answered ──► the next one INTERVAL_SECONDS after it, of the IP versions of a peer in turn
                    └─ no answer within its timeout: lost, and the next one at once, with a shorter timeout; so are other ways to the peer

    UNKNOWN ── answered ──► REACHED ── LOST_AFTER lost in a row ──► LOST ── BACK_AFTER answered in a row ──► REACHED
       └────── LOST_AFTER lost in a row ─────────────────────────────┘

So a peer that is lost is known to be within INTERVAL_SECONDS + 2, and one packet that is lost changes nothing. No timeout is shorter than
what the round trips of the way need (RFC 6298), so a long way is judged later. An answer that comes late is an answer all the same. Times
are seconds of the caller's clock; nothing here sends or reads.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from podplane.model.paths import OVERLAY, UNDERLAY, Path

INTERVAL_SECONDS, RESTING_SECONDS = 6.0, 60.0
"""From a probe of a peer's pods that was answered to the next one, of its IP versions in turn; and to the next one of its own address,
while all is well with what that carries."""
EACH_SECONDS = 7.6
"""From a probe of a peer's pods that was answered to the next one of the same IP version, at most: one that is lost is
known within 10 s."""
LOST_INTERVAL_SECONDS = 1.0
"""From a probe of a lost way to the next one."""
TIMEOUT_SECONDS, SHORT_SECONDS, SHORTEST_SECONDS = 0.8, 0.3, 0.12
"""So long an answer is waited for at least: usually; after one that did not come; of a way that is to be judged soon."""
AGAIN_SECONDS = 0.2
"""From an answer of a way that is taken for lost to the next probe."""
LOST_AFTER, BACK_AFTER = 4, 3
KEPT_SECONDS = 2.0
"""A probe is remembered for so long: one that comes later is no answer any more. No timeout is longer."""
WINDOW = 64
"""Of so many probes it is counted how many were lost."""
SMOOTHING, SMOOTHING_OF_VARIATION, VARIATIONS = 8, 4, 4
"""Each answer counts for one part of so many of the latency and of its variation; and a timeout has so many variations more than a latency
(RFC 6298, 2: 1/alpha, 1/beta, K)."""
SEQUENCES = 1 << 16


class State(enum.Enum):
    """Of one way."""

    UNKNOWN, REACHED, LOST = "unknown", "reached", "lost"


class Plan(NamedTuple):
    """When a way is tried first, and how many times as long the intervals between its probes are."""

    first_at: float
    pace: float = 1.0


class Row(msgspec.Struct, eq=False):
    """One way. `latency` is the smoothed time of a round trip in seconds, None before the first answer, and `variation` its change;
    `lost` has a bit for each of the last `sent` probes (WINDOW at most): was it lost? `since`: when the state began."""

    path: Path
    due_at: float
    since: float
    state: State = State.UNKNOWN
    latency: float | None = None
    variation: float = 0.0
    lost: int = 0
    sent: int = 0
    lost_in_a_row: int = 0
    answered_in_a_row: int = 0
    over: int = 0
    """So many probes were answered or lost since there is this way."""
    sequence: int = -1
    """Of the probe that is on its way; -1: none is."""
    is_hasty: bool = False
    pace: float = 1.0

    @property
    def loss(self) -> float:
        """The part of the last probes that was lost."""
        return self.lost.bit_count() / self.sent if self.sent else 0.0

    @property
    def times_lost(self) -> int:
        """How often something was lost of the last probes: those that were lost one after the other are once."""
        return (self.lost & ~(self.lost << 1)).bit_count()

    @property
    def timeout(self) -> float:
        """So long the answer to the next probe is waited for."""
        if self.state is State.LOST:
            least = TIMEOUT_SECONDS
        elif self.is_hasty:
            least = SHORTEST_SECONDS
        else:
            least = SHORT_SECONDS if self.lost_in_a_row else TIMEOUT_SECONDS
        latency = self.latency or 0.0
        return max(least, min(KEPT_SECONDS, latency + max(latency, VARIATIONS * self.variation)))

    def measure(self, seconds: float) -> None:
        """An answer took so long (RFC 6298, 2.2 and 2.3). The very first may have waited for a neighbour to be found."""
        if self.latency is None or (self.over == 1 and seconds < self.latency):
            self.latency, self.variation = seconds, seconds / 2
        else:
            self.variation += (abs(seconds - self.latency) - self.variation) / SMOOTHING_OF_VARIATION
            self.latency += (seconds - self.latency) / SMOOTHING

    def count(self, *, is_lost: bool) -> None:
        """Another probe is over."""
        self.over += 1
        self.sent = min(WINDOW, self.sent + 1)
        self.lost = (self.lost << 1 | is_lost) & ((1 << WINDOW) - 1)
        self.lost_in_a_row = self.lost_in_a_row + 1 if is_lost else 0
        self.answered_in_a_row = 0 if is_lost else self.answered_in_a_row + 1

    def count_late(self, number: int) -> None:
        """The probe that was over as the one of this number, and was counted as lost, is answered."""
        self.lost &= ~(1 << self.over - number)
        self.lost_in_a_row = 0
        self.answered_in_a_row += 1


class Sent(msgspec.Struct):
    """A probe: of which way, when; and nobody waits for it any more, as the how many-th of its way (0: it is waited for)."""

    row: Row
    at: float
    number: int = 0


class Table:
    """The ways of one node; `set` says which, `due` what is to be sent now, `answered` takes the answers."""

    def __init__(self) -> None:
        self._rows: dict[Path, Row] = {}
        self._of_peer: dict[str, list[Row]] = {}
        self._sent: dict[int, Sent] = {}
        self._next_sequence = 0
        self.changes = 0
        """So often some way changed its state, came or went."""
        self.waiting = 0
        """Probes that are on their way."""
        self.due_at = math.inf
        """When something is due next."""

    @property
    def rows(self) -> Collection[Row]:
        """All of them, by peer."""
        return self._rows.values()

    @property
    def peers(self) -> Collection[str]:
        """Their names."""
        return self._of_peer.keys()

    def of(self, peer: str) -> Collection[Row]:
        """Those of one peer."""
        return self._of_peer.get(peer, ())

    def set(self, paths: Mapping[Path, Plan], now: float) -> None:
        """Have these ways; those that were there stay as they are, but for their pace."""
        for path, row in list(self._rows.items()):
            if path not in paths:
                self._end_probe(row)
                del self._rows[path]
        for path, plan in paths.items():
            self._rows.setdefault(path, Row(path, plan.first_at, now)).pace = plan.pace
        self.changes += 1
        self._of_peer = {}
        for row in self._rows.values():
            self._of_peer.setdefault(row.path.peer, []).append(row)
        self._find_due()

    def hasten(self, peer: str, now: float) -> None:
        """Judge the ways to this peer soon: it may have failed."""
        for row in self.of(peer):
            if row.state is not State.LOST:
                row.is_hasty = True
                row.due_at = min(row.due_at, max(now + SHORTEST_SECONDS, self._given_up_at(row)) if row.sequence >= 0 else now)
        self._find_due()

    def _given_up_at(self, row: Row) -> float:
        """When the probe that is on its way is taken for lost."""
        return self._sent[row.sequence].at + row.timeout

    def _find_due(self) -> None:
        self.due_at = min((row.due_at for row in self._rows.values()), default=math.inf)

    # What happens.

    def due(self, now: float) -> list[tuple[int, Path]]:
        """The probes to send now, each with its sequence number; what had no answer in time is lost."""
        self._forget_old(now)
        found: list[tuple[int, Path]] = []
        for row in self._rows.values():
            if row.due_at > now:
                continue
            if row.sequence >= 0:
                self._end_probe(row)
                self._lost(row, now)
            if row.due_at <= now:
                found.append((self._begin_probe(row, now), row.path))
        self._find_due()
        return found

    def _begin_probe(self, row: Row, now: float) -> int:
        sequence = self._next_sequence
        self._next_sequence = (sequence + 1) % SEQUENCES
        if (former := self._sent.pop(sequence, None)) is not None and former.row.sequence == sequence:
            self._end_probe(former.row)
        self._sent[sequence] = Sent(row, now)
        row.sequence = sequence
        row.due_at = now + row.timeout
        self.waiting += 1
        return sequence

    def _end_probe(self, row: Row) -> None:
        """Nobody waits for its answer any more."""
        if row.sequence >= 0:
            self.waiting -= 1
            if (sent := self._sent.get(row.sequence)) is not None:
                sent.number = row.over + 1
            row.sequence = -1

    def _lost(self, row: Row, now: float) -> None:
        row.count(is_lost=True)
        if row.state is not State.LOST and row.lost_in_a_row >= LOST_AFTER:
            row.state, row.since, row.is_hasty = State.LOST, now, False
            self.changes += 1
        row.due_at = now + LOST_INTERVAL_SECONDS * row.pace if row.state is State.LOST else now
        if row.path.layer == OVERLAY and row.lost_in_a_row == 1:
            for other in self.of(row.path.peer):
                if other.sequence < 0:
                    other.due_at = min(other.due_at, now)

    def _next_at(self, row: Row, sent_at: float) -> float:
        """When a way that is reached is probed next."""
        ways = [one for one in self.of(row.path.peer) if one.path.layer == OVERLAY]
        is_well = all(one.state is State.REACHED and not one.lost_in_a_row for one in ways)
        interval = min(INTERVAL_SECONDS, EACH_SECONDS / max(1, len(ways))) * row.pace
        if not is_well:
            return sent_at + interval
        if row.path.layer == UNDERLAY:
            return sent_at + RESTING_SECONDS * row.pace
        due_at = sent_at + interval * len(ways)
        is_taken = any(one is not row and abs(one.due_at - due_at) < interval / 2 for one in ways)
        return due_at - interval if is_taken else due_at

    def answered(self, sequence: int, ip: str, seconds: float, now: float) -> bool:
        """The answer to a probe came from this address, so long after it was sent. False for one that nobody waits for."""
        sent = self._sent.get(sequence)
        if sent is None or sent.row.path.ip != ip or self._rows.get(sent.row.path) is not sent.row:
            return False
        del self._sent[sequence]
        row, is_late = sent.row, sent.number > 0
        row.is_hasty = False
        row.measure(seconds)
        if is_late:
            row.count_late(sent.number)
        else:
            self._end_probe(row)
            row.count(is_lost=False)
        if row.state is State.UNKNOWN or (row.state is State.LOST and row.answered_in_a_row >= BACK_AFTER):
            row.state, row.since = State.REACHED, now
            row.lost = row.sent = 0  # what is counted is how it is since it is reached
            self.changes += 1
        if not is_late:
            row.due_at = self._next_at(row, sent.at) if row.state is State.REACHED else now + AGAIN_SECONDS
        elif row.sequence >= 0:  # the next one is on its way, which takes longer than was known
            row.due_at = max(row.due_at, self._given_up_at(row))
        self.due_at = min(self.due_at, row.due_at)
        return True

    def _forget_old(self, now: float) -> None:
        """Probes are in the order in which they were sent."""
        for sequence, sent in list(self._sent.items()):
            if sent.at > now - KEPT_SECONDS:
                break
            if sent.number:
                del self._sent[sequence]

    # What there is to say.

    def pods_of(self, peer: str) -> State:
        """Are pods of a peer reached? They are not when no way to them is: one IP version is enough to be alive."""
        return combined(row.state for row in self.of(peer) if row.path.layer == OVERLAY)

    @property
    def is_hasty(self) -> bool:
        """Is some way to be judged soon?"""
        return any(row.is_hasty for row in self._rows.values())

    @property
    def is_any_reached(self) -> bool:
        """Are pods of any peer reached?"""
        return any(row.state is State.REACHED and row.path.layer == OVERLAY for row in self._rows.values())

    def has_answered(self, peer: str) -> bool:
        """Did one of the ways to its pods ever answer?"""
        return any(row.latency is not None for row in self.of(peer) if row.path.layer == OVERLAY)

    def below(self, row: Row) -> State:
        """Is the peer's own address reached, that packets of this way are sent to? It is not known while it is being lost."""
        found = (one for one in self.of(row.path.peer) if one.path.layer == UNDERLAY and one.path.ip == row.path.below)
        below = next(found, None)
        is_known = below is not None and not (below.state is State.REACHED and below.lost_in_a_row)
        return below.state if below is not None and is_known else State.UNKNOWN

    def lost(self) -> Iterator[Row]:
        """The ways to pods that are lost."""
        return (row for row in self._rows.values() if row.state is State.LOST and row.path.layer == OVERLAY)


def combined(states: Iterable[State]) -> State:
    """Of several ways to one peer: reached by one is reached, and lost are all or it is not known."""
    found = set(states)
    if State.REACHED in found:
        return State.REACHED
    return State.LOST if found == {State.LOST} else State.UNKNOWN

"""How much of what its clients send a socket takes, when they send more than can be read.

All of a node's clients send to one socket: what finds no room in it is lost, whoever sent it. So of clients that send most only a part is
let in, which a filter in the kernel chooses by chance: as much as leaves all of them the same rate. Others are not concerned.

    calm ── not emptied for CROWD_SECONDS, and a part of it full ──► crowded
    crowded: the parts are worked out anew every LOOK_SECONDS ── nobody sends too much ──► calm
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)
CROWD_SECONDS, LOOK_SECONDS = 0.01, 0.05
READ_PART, IDLE_READ_PART, LEAST_READ_PART = 1 / 4, 3 / 4, 1 / 64
"""Of its time the process spends on reading, while some send more than can be read: the first while questions wait for their turn,
the second while none does; half as much each time that the socket was not emptied, since then there is something else to do."""
GROWTH = 1.25
FULL_PART = 1 / 4
"""Of its room a socket has this much in it before anybody is kept out: nothing is lost yet."""
SO_MEMINFO, RMEM_ALLOC, RCVBUF, DROPS = 55, 0, 1, 8
"""What a socket's memory is used for; in that, what waits to be read, the room for it, and the count of what got none
(linux/sock_diag.h)."""
HOLD_SECONDS = 0.2
"""What comes within that has room in the socket."""
DATAGRAM_BYTES = 832
"""The room that a question takes, with all that the kernel keeps with it."""
LEAST = 250.0
"""Datagrams in a second that each may send, whatever others do: where all send less, none is to blame."""
LOG_SECONDS = 60.0
"""From one line of the log about a crowd to the next."""
MOST = 64
"""Clients of which a part is let in, at most."""

Limit = Callable[[socket.socket, Mapping[bytes, float]], None]
"""Lets only these parts of what these addresses (packed) send into a socket, and all of others. OSError when it can't."""


def filled(bound: socket.socket) -> float:
    """How much of a socket's room for what waits to be read is used."""
    memory = _memory(bound)
    return memory[RMEM_ALLOC] / memory[RCVBUF]


def dropped(bound: socket.socket) -> int:
    """Datagrams that did not get into a socket since it was made: kept out, or without room."""
    return _memory(bound)[DROPS]


def _memory(bound: socket.socket) -> tuple[int, ...]:
    return struct.unpack("=9I", bound.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))


class Crowd:
    """Those who send to a socket. To be used on an event loop.

    `senders` says whom the last batch came from, by packed address; `is_busy` whether there are questions that were read and wait.
    """

    def __init__(
        self, bound: socket.socket, senders: Callable[[], Sequence[bytes]], limit: Limit, is_busy: Callable[[], bool]
    ) -> None:
        self._socket, self._senders, self._limit, self._is_busy = bound, senders, limit, is_busy
        self._counts: Counter[bytes] = Counter()
        self._since = time.perf_counter() - 1.0  # what waits already may have come long ago
        self._reading, self._part = 0.0, READ_PART
        self._was_empty = self._is_able = True
        self._passing: dict[bytes, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._room = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) / DATAGRAM_BYTES
        self._logged = -LOG_SECONDS
        limit(bound, {})  # a process before this one may have ended meanwhile

    def read(self, started: float, *, is_empty: bool) -> None:
        """A batch was read and seen to, begun at `started` (perf_counter). Is the socket empty now?"""
        if is_empty and not self._passing:
            self.empty(started)
            return
        self._was_empty = self._was_empty or is_empty
        self._counts.update(self._senders())
        now = time.perf_counter()
        self._reading += now - started
        if not self._passing and now - self._since >= CROWD_SECONDS and filled(self._socket) >= FULL_PART:
            self._look()

    def empty(self, now: float) -> None:
        """The socket is empty."""
        self._was_empty = True
        if not self._passing:
            self._since = now
            if self._counts:
                self._counts.clear()
                self._reading = 0.0

    def close(self) -> None:
        """Let all in again; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._let_in({})

    def _look(self) -> None:
        now, counts = time.perf_counter(), self._counts
        most = READ_PART if self._is_busy() else IDLE_READ_PART
        if not self._passing:
            self._part = most
        else:
            self._part = min(self._part * GROWTH, most) if self._was_empty else max(self._part / 2, LEAST_READ_PART)
        speed = counts.total() / self._reading if self._reading else 0.0
        rate = min(speed * self._part, self._room / HOLD_SECONDS)
        self._let_in(passing(counts, self._passing, now - self._since, rate))
        counts.clear()
        self._since, self._reading, self._was_empty = now, 0.0, False
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look) if self._passing else None

    def _let_in(self, parts: dict[bytes, float]) -> None:
        if parts == self._passing:
            return
        try:
            self._limit(self._socket, parts)
            if parts and not self._passing:
                self._tell(parts)
            self._passing = parts
        except OSError as error:
            if self._is_able:
                log.warning("clients that send too much can't be kept from a socket: %s", error)
            self._is_able = False

    def _tell(self, parts: Mapping[bytes, float]) -> None:
        now = time.perf_counter()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            who, part = min(parts.items(), key=lambda item: item[1])
            ip = socket.inet_ntop(self._socket.family, who)
            log.warning("more questions come than can be read: of those of %s the socket takes %.1f %%", ip, part * 100)


def passing(
    counts: Mapping[bytes, int], before: Mapping[bytes, float], seconds: float, rate: float, least: float = LEAST
) -> dict[bytes, float]:
    """The part of what they send that is let in from now on, of those of whom not all is.

    `counts` were let in by each within so many seconds, when the parts of `before` were. `rate` is what all together may send in a second.
    """
    sent = {client: count / seconds / before.get(client, 1.0) for client, count in counts.items()}
    first = heapq.nlargest(MOST, sent.items(), key=lambda item: item[1])
    level = max(least, _level([each for _, each in first], sum(sent.values()), rate))
    return {client: level / each for client, each in first if each > level}


def _level(first: list[float], total: float, rate: float) -> float:
    """What each of those with most may send, so that all together send `rate`: they are in order, and there may be more of them."""
    if total <= rate:
        return float("inf")
    others = total
    for i, each in enumerate(first, 1):
        others -= each
        level = (rate - others) / i
        if level >= (first[i] if i < len(first) else 0.0):
            return level
    return 0.0

"""One question to a group of servers: the best first, others when it lets us wait or says that it can't, within the client's patience.

glibc's resolver waits 5 s for an answer and musl's 2.5 s, then they ask again; so the whole takes 4.5 s at most. The first to answer
decides; a server that answers later is heard for its health only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from podplane.dns import message as m
from podplane.dns.asking import Ask
from podplane.dns.health import FAST, LEAST_PATIENCE, patience
from podplane.dns.responses import Reply
from podplane.nameserver.upstream import Upstream

SECONDS = 4.5
TRIES = 6
"""Questions on the wire for one of a client, at most."""
LOOK_SECONDS = 0.02
"""So much longer some wait, so that many are looked at together."""
ANSWERS = frozenset((m.NOERROR, m.NXDOMAIN))
Outcome = Callable[[Ask, Reply | None, Upstream | None, str], None]
"""Told what was asked and (answer, who gave it, ""), or, without any good one, (a bad answer or None, who gave it or None, what went
wrong)."""


class Waits:
    """Exchanges that wait as short as any does, with one timer for all: most are over long before they would be late."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, Exchange]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, exchange: Exchange, now: float) -> None:
        """Say that it is late when it is not over by then."""
        waiting = self._waiting
        while waiting and waiting[0][1].is_over:
            waiting.popleft()
        waiting.append((now + LEAST_PATIENCE, exchange))
        if self._timer is None:
            self._timer = self.loop.call_later(LEAST_PATIENCE, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        while self._waiting and (self._waiting[0][0] <= now or self._waiting[0][1].is_over):
            _, exchange = self._waiting.popleft()
            exchange.late()
        self._timer = None
        if self._waiting:
            self._timer = self.loop.call_at(max(self._waiting[0][0], now + LOOK_SECONDS), self._look)


class Exchange:
    """Asks from its start on, until `outcome` is told. There is one server at least."""

    __slots__ = ("_ask", "_bad", "_began", "_outcome", "_timer", "_tries", "_waiting", "_waits", "_why", "is_over", "servers")

    def __init__(self, ask: Ask, servers: Sequence[Upstream], waits: Waits, outcome: Outcome, now: float) -> None:
        self.servers = servers
        self._waits = waits
        self._ask, self._outcome = ask, outcome
        self._began = now
        self._tries = self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._bad: tuple[Reply, Upstream] | None = None
        self._why = ""
        self.is_over = False

    def start(self, at_once: int) -> None:
        """Ask so many servers at the same time, at first; `outcome` may be told before this returns."""
        for _ in range(at_once):
            self._try()
        self._wait(self._began)

    def cancel(self) -> None:
        """Ask no more; `outcome` is not told."""
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _try(self) -> None:
        """Ask the next one."""
        if self.is_over or self._tries >= TRIES:
            return
        server = self.servers[self._tries % len(self.servers)]
        self._tries += 1
        self._waiting += 1
        server.health.asked += 1
        server.ask(self._ask, partial(self._heard, server))

    def _wait(self, now: float) -> None:
        """For an answer, but not longer than is usual."""
        if self.is_over:
            return
        last = self.servers[(self._tries - 1) % len(self.servers)]
        rounds = self._tries // (len(self.servers) + 1)
        rtt = last.health.rtt
        if rtt is not None and rtt <= FAST and not rounds and self._tries < TRIES:
            self._waits.add(self, now)
            return
        seconds = patience(rtt) * 2**rounds if self._tries < TRIES else SECONDS
        self._timer = self._waits.loop.call_at(min(now + seconds, self._began + SECONDS), self.late)

    def late(self) -> None:
        """Nobody answered as soon as is usual: ask another one, or end; nothing happens when it is over."""
        if self.is_over:
            return
        now = self._waits.loop.time()
        if now >= self._began + SECONDS:
            self._give_up(self._why if self._bad or not self._waiting else f"no answer within {SECONDS:g} s")
            return
        self._try()
        self._wait(now)

    def _heard(self, server: Upstream, said: Reply | str) -> None:
        self._waiting -= 1
        if self.is_over:
            return
        if isinstance(said, Reply) and said.rcode in ANSWERS and not said.is_referral:
            self.cancel()
            self._outcome(self._ask, said, server, "")
            return
        self._why = f"{server.server}: {_words(said)}"
        if isinstance(said, Reply):
            self._bad = said, server
        if self._tries < min(len(self.servers), TRIES):
            self._try()
        elif not self._waiting and (self._bad is not None or self._tries >= min(2 * len(self.servers), TRIES)):
            self._give_up(self._why)

    def _give_up(self, why: str) -> None:
        reply, server = self._bad or (None, None)
        self.cancel()
        self._outcome(self._ask, reply, server, why)


def _words(said: Reply | str) -> str:
    if isinstance(said, str):
        return said
    if said.is_referral:
        return "it names other servers, and does not ask them itself"
    return f"it answers {m.RCODES.get(said.rcode, f'RCODE {said.rcode}')}"

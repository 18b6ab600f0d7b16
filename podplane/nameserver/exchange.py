"""One question to a group of servers: the best first, others when it lets us wait or says that it can't, within the client's patience.

glibc's resolver waits 5 s for an answer and musl's 2.5 s, then they ask again; so the whole takes 4.5 s at most. The first to answer
decides; a server that answers later is heard for its health only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from podplane.dns import message as m
from podplane.dns.asking import Ask
from podplane.dns.health import patience
from podplane.dns.responses import Reply
from podplane.nameserver.upstream import Upstream

SECONDS = 4.5
TRIES = 6
"""Questions on the wire for one of a client, at most."""
ANSWERS = frozenset((m.NOERROR, m.NXDOMAIN))
Outcome = Callable[[Reply | None, Upstream | None, str], None]
"""Told (answer, who gave it, ""), or, without any good one, (a bad answer or None, who gave it or None, what went wrong)."""


class Exchange:
    """Asks when it is made; `outcome` is told once, perhaps at once. `at_once` servers are asked at the same time at first."""

    def __init__(self, ask: Ask, servers: Sequence[Upstream], at_once: int, outcome: Outcome) -> None:
        self._ask, self._servers, self._outcome = ask, servers, outcome
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + SECONDS
        self._tries = self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._bad: tuple[Reply, Upstream] | None = None
        self._why = "there is no server to ask"
        self._is_over = False
        if not servers:
            self._finish(None, None, self._why)
            return
        for _ in range(at_once):
            self._try()
        self._wait()

    def _try(self) -> None:
        """Ask the next one."""
        if self._is_over or self._tries >= TRIES:
            return
        server = self._servers[self._tries % len(self._servers)]
        self._tries += 1
        self._waiting += 1
        server.ask(self._ask, partial(self._heard, server))

    def _wait(self) -> None:
        """For an answer, but not longer than is usual."""
        if self._is_over:
            return
        now = self._loop.time()
        last = self._servers[(self._tries - 1) % len(self._servers)]
        rounds = self._tries // (len(self._servers) + 1)
        seconds = patience(last.health.rtt) * 2**rounds if self._tries < TRIES else SECONDS
        self._timer = self._loop.call_at(min(now + seconds, self._end), self._late)

    def _late(self) -> None:
        if self._loop.time() >= self._end:
            self._give_up(self._why if self._bad or not self._waiting else f"no answer within {SECONDS:g} s")
            return
        self._try()
        self._wait()

    def _heard(self, server: Upstream, said: Reply | str) -> None:
        self._waiting -= 1
        if self._is_over:
            return
        if isinstance(said, Reply) and said.rcode in ANSWERS and not said.is_referral:
            self._finish(said, server, "")
            return
        self._why = f"{server.server}: {_words(said)}"
        if isinstance(said, Reply):
            self._bad = said, server
        if self._tries < len(self._servers):
            self._try()
        elif not self._waiting and (self._bad is not None or self._tries >= 2 * len(self._servers)):
            self._give_up(self._why)

    def _give_up(self, why: str) -> None:
        reply, server = self._bad or (None, None)
        self._finish(reply, server, why)

    def _finish(self, reply: Reply | None, server: Upstream | None, why: str) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self._outcome(reply, server, why)


def _words(said: Reply | str) -> str:
    if isinstance(said, str):
        return said
    if said.is_referral:
        return "it names other servers, and does not ask them itself"
    return f"it answers {m.RCODES.get(said.rcode, f'RCODE {said.rcode}')}"

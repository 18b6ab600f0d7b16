"""Questions that nobody here has an answer to: passed on to the servers of the longest zone that the name belongs to, or to all others'.

Equal questions that are on their way are asked once. All of it is bounded: what is on its way, in total and of each client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from podplane.dns import config, resolv_conf
from podplane.dns import message as m
from podplane.dns.asking import Ask
from podplane.dns.health import at_once, ordered
from podplane.dns.message import Answer, Name, Query, Question
from podplane.dns.responses import Reply
from podplane.nameserver.exchange import Exchange
from podplane.nameserver.resolver import Client
from podplane.nameserver.upstream import Means, Upstream

MAX_PENDING, MAX_OF_CLIENT = 8192, 512
"""Questions on their way, with those who wait for the same."""
NOT_PASSED_ON = frozenset((m.OPT, m.IXFR, m.AXFR, 249, 250, 253, 254))
"""Types that ask for more than records: transfers, keys (TKEY, TSIG), MAILA, MAILB."""
RESOLV_CONF = Path("/etc/resolv.conf")


class Key(NamedTuple):
    """Questions with the same key have the same answer."""

    question: Question
    flags: int
    dnssec: bool


class Machine:
    """The servers of the machine's resolv.conf; it is read again when it changed, looked at most once a second, when somebody asks."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._looked = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self.servers: tuple[config.Upstream, ...] = ()

    def look(self, now: float) -> bool:
        """Look whether there is something new, and say so."""
        if now < self._looked + 1:
            return False
        self._looked = now
        try:
            found = os.stat(self._path)
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp == self._stamp:
                return False
            servers = _servers(self._path.read_text(errors="replace"))
        except OSError:
            stamp, servers = None, ()
        self._stamp, before, self.servers = stamp, self.servers, servers
        return servers != before


def _servers(text: str) -> tuple[config.Upstream, ...]:
    """The servers of a resolv.conf, each once. What is no address of one machine is left out, as the C library does."""
    found: dict[config.Upstream, None] = {}
    for ip in resolv_conf.read(text).nameservers:
        with contextlib.suppress(ValueError):
            found[config.Upstream(config.server_ip(ip))] = None
    return tuple(found)


@dataclass(slots=True)
class Group:
    """Servers of one zone, `()` for all names."""

    zone: Name
    servers: tuple[Upstream, ...] = ()


@dataclass(slots=True)
class Waiting:
    """One question on its way, and those who wait for its answer."""

    futures: list[tuple[asyncio.Future[Answer], str]] = field(default_factory=list)


class Forwarder:
    """The last source of a resolver. To be made and used on an event loop."""

    def __init__(self, means: Means, machine: Machine) -> None:
        self._means, self._machine = means, machine
        self._loop = asyncio.get_running_loop()
        self._upstreams: dict[config.Upstream, Upstream] = {}
        self._groups: dict[Name, Group] = {(): Group(())}
        self._config = config.Config()
        self._waiting: dict[Key, Waiting] = {}
        self._of_client: Counter[str] = Counter()
        self._pending = 0
        self.configure(self._config)

    def configure(self, new: config.Config) -> None:
        """Go by another configuration from now on. A server that both name keeps what is known of it."""
        self._config = new
        self._machine.look(self._loop.time())
        named: dict[Name, config.Upstreams] = {(): new.upstreams, **new.zones}
        wanted = {zone: tuple(dict.fromkeys(self._resolved(servers))) for zone, servers in named.items()}
        every = {server for servers in wanted.values() for server in servers}
        for gone in self._upstreams.keys() - every:
            self._upstreams.pop(gone).close()
        for server in every - self._upstreams.keys():
            self._upstreams[server] = Upstream(server, self._means, self._changed)
        self._groups = {zone: Group(zone, tuple(self._upstreams[one] for one in servers)) for zone, servers in wanted.items()}

    def close(self) -> None:
        """Ask nobody any more; whoever waits is told."""
        for upstream in self._upstreams.values():
            upstream.close()

    def _resolved(self, servers: config.Upstreams) -> list[config.Upstream]:
        return [one for server in servers for one in (self._machine.servers if server == config.MACHINE else (server,))]

    def _changed(self, upstream: Upstream) -> None:
        """A server went down, or came up."""

    def answer(self, question: Question, client: Client, query: Query) -> Answer | Awaitable[Answer]:
        """What other servers say."""
        if question.class_ != m.INTERNET:
            return Answer(m.REFUSED, authoritative=False, source="no other class than IN is passed on")
        if question.type in NOT_PASSED_ON:
            return Answer(m.NOTIMP, authoritative=False, source="what it asks for is not passed on")
        if self._machine.look(self._loop.time()):
            self.configure(self._config)
        dnssec = query.edns is not None and query.edns.dnssec
        key = Key(question, query.flags & (m.RD | m.CD), dnssec)
        if self._pending >= MAX_PENDING or self._of_client[client.ip] >= MAX_OF_CLIENT:
            return Answer(m.SERVFAIL, authoritative=False, source="too many questions are on their way to other servers")
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._pending += 1
        self._of_client[client.ip] += 1
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.futures.append((future, client.ip))
            return future
        self._waiting[key] = Waiting([(future, client.ip)])
        self._begin(key)
        return future

    def _group(self, name: Name) -> Group:
        """The servers of the longest zone that the name belongs to."""
        for i in range(len(name)):
            if (group := self._groups.get(name[i:])) is not None:
                return group
        return self._groups[()]

    def _begin(self, key: Key) -> None:
        group = self._group(key.question.name)
        health = [one.health for one in group.servers]
        random = self._means.randomness.fraction
        numbers = ordered(health, self._config.order, random)
        count = at_once(health, numbers, self._config.order, random)
        ask = Ask(key.question, m.written(key.question.name), key.flags, key.dnssec)
        Exchange(ask, [group.servers[i] for i in numbers], count, self._outcome(key))

    def _outcome(self, key: Key) -> Callable[[Reply | None, Upstream | None, str], None]:
        def heard(reply: Reply | None, server: Upstream | None, why: str) -> None:
            if reply is not None and not reply.is_referral:
                answer = Answer(
                    reply.rcode,
                    authoritative=False,
                    source=f"upstream {server.server}" if server else "",
                    message=reply.message,
                )
            else:
                answer = Answer(m.SERVFAIL, authoritative=False, source=why)
            self._tell(key, answer)

        return heard

    def _tell(self, key: Key, answer: Answer) -> None:
        for future, ip in self._waiting.pop(key).futures:
            self._pending -= 1
            self._of_client[ip] -= 1
            if not self._of_client[ip]:
                del self._of_client[ip]
            if not future.done():
                future.set_result(answer)

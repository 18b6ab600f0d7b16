"""Questions that nobody here has an answer to: passed on to the servers of the longest zone that the name belongs to, or to all others'.

What they say is kept (`dns.cache`). Equal questions that are on their way are asked once. All of it is bounded: what is on its way, in
total and of each client (`places`), and what is kept. When no server gives an answer, the last one that there was is given, true or not
any more: a server that can't be reached, or fails, says nothing about the name. One that says that there is no such name is believed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import msgspec

from podplane.dns import config
from podplane.dns import message as m
from podplane.dns.asking import ASKED_FLAGS, Ask
from podplane.dns.cache import Cache, Found
from podplane.dns.health import at_once, ordered
from podplane.dns.message import Answer, Name, Query, Question
from podplane.dns.responses import Limits, Reply
from podplane.nameserver.exchange import Exchange, Waits
from podplane.nameserver.machine import Machine
from podplane.nameserver.openers import LabOpener
from podplane.nameserver.places import Place, Places
from podplane.nameserver.probes import Probes
from podplane.nameserver.resolver import Client
from podplane.nameserver.upstream import Means, Upstream
from podplane.servers.later import Later

MAX_PENDING, MAX_OF_CLIENT = 8192, 512
"""Who waits for questions on their way, several for the same perhaps."""
TOO_MANY = "too many questions are on their way to other servers"
NOT_PASSED_ON = frozenset((m.OPT, m.IXFR, m.AXFR, 249, 250, 253, 254))
"""Types that ask for more than records: transfers, keys (TKEY, TSIG), MAILA, MAILB."""
HOLD_SECONDS = 0.2
"""So long questions wait until it is known which servers are loops; longer only when none is known not to be."""
LOOK_SECONDS = 1.0
"""So often the machine's resolv.conf is looked at."""
STALE_AFTER = 1.8
"""Who waits so long gets an answer that is too old, when there is one (RFC 8767, 5)."""
LATE = "no server answered in time"
FAILED_SECONDS, MAX_FAILED = 2.0, 4096
"""So long a question that nobody answered is not asked again (RFC 9520, 3.2)."""


class Named(NamedTuple):
    """A server, whether the machine's resolv.conf names it or the configuration does, and the zone that it is asked for: for one it may be
    a loop, and for another not."""

    server: config.Upstream
    by_machine: bool
    zone: Name


class Group(NamedTuple):
    """Servers of one zone, `()` for all names."""

    zone: Name
    servers: tuple[Upstream, ...]


class Waiting(msgspec.Struct):
    """One question on its way, and those who wait for its answer."""

    places: dict[Place, None] = {}
    timer: asyncio.TimerHandle | None = None
    exchange: Exchange | None = None
    is_late: bool = False
    """Somebody got an answer that is too old, because no server gives one: so does whoever asks from then on, at once."""


class Forwarder:
    """The last source of a resolver. To be made and used on an event loop."""

    def __init__(self, means: Means, machine: Machine) -> None:
        self._means, self._machine = means, machine
        self._loop = asyncio.get_running_loop()
        self._config = config.Config()
        self._own: set[str] = set()
        self._lab: LabOpener | None = None
        self._probes = Probes(means, self._checked)
        self._upstreams: dict[Named, Upstream] = {}
        self._groups: dict[bytes, Group] = {}
        """By their zones, as they stand in messages."""
        self._waiting: dict[Ask, Waiting] = {}
        self._waits = Waits()
        self._held: dict[Ask, None] = {}
        self._hold_until = 0.0
        self._failed: OrderedDict[Ask, tuple[float, str]] = OrderedDict()
        self._places = Places(MAX_PENDING, MAX_OF_CLIENT)
        self.refused = 0
        """Questions that were one too many."""
        self.cache = Cache(self._config.cache)
        self._subscribers: list[Callable[[], None]] = []
        self.configure(self._config)

    @property
    def groups(self) -> list[Group]:
        """All groups of servers, the one for all names first."""
        return sorted(self._groups.values(), key=lambda group: group.zone[::-1])

    def configure(self, new: config.Config) -> None:
        """Go by another configuration from now on. A server that both name keeps what is known of it."""
        if (new.upstreams, new.zones) != (self._config.upstreams, self._config.zones):
            self.cache.clear()  # others may say something else
        self._config = new
        self._means.limits = Limits(most=new.cache.max_seconds, negative=new.cache.negative_max_seconds)
        self.cache.configure(new.cache)
        self._machine.look()
        self._resolve()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Tell this one when the machine asks other servers: what the former ones said is not true for sure any more."""
        self._subscribers.append(changed)

    def look(self) -> None:
        """Look whether the machine asks other servers now."""
        if self._machine.look():
            self.cache.expire()
            self._resolve()
            for changed in self._subscribers:
                changed()

    async def run(self) -> None:
        """Look at the machine's servers from time to time, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def _resolve(self, renewed: Collection[Named] = ()) -> None:
        """Have the servers that the configuration names; some are made anew."""
        named: dict[Name, config.Upstreams] = {(): self._config.upstreams, **self._config.zones}
        wanted = {zone: tuple(dict.fromkeys(self._servers_of(zone, servers))) for zone, servers in named.items()}
        every = dict.fromkeys(server for servers in wanted.values() for server in servers)
        gone = [self._upstreams.pop(one) for one in list(self._upstreams) if one not in every or one in renewed]
        new = {one: self._made(one) for one in every if one not in self._upstreams}
        self._upstreams.update(new)
        self._groups = {
            m.written(zone): Group(zone, tuple(self._upstreams[one] for one in servers)) for zone, servers in wanted.items()
        }
        self._failed.clear()
        self._hold_until = self._loop.time() + HOLD_SECONDS
        self._hold()
        for upstream in gone:
            self._probes.remove(upstream)
            upstream.close()
        for one, upstream in new.items():
            self._probes.add(upstream, one.zone)
        self._find_own()
        self._loop.call_at(self._hold_until, self._checked)

    def _made(self, named: Named) -> Upstream:
        opener = self._means.opener if named.by_machine or self._lab is None else self._lab
        return Upstream(named.server, self._means, opener, self._probes.changed)

    def _servers_of(self, zone: Name, servers: config.Upstreams) -> Iterator[Named]:
        for server in servers:
            if server == config.MACHINE:
                yield from (Named(one, True, zone) for one in self._machine.servers)
            else:
                yield Named(server, False, zone)

    def _hold(self) -> None:
        """What others than those that it belongs to are asked by now is to be asked anew."""
        for ask, waiting in self._waiting.items():
            if waiting.exchange is not None and not set(waiting.exchange.servers) <= set(self._group(ask.asked).servers):
                waiting.exchange.cancel()
                waiting.exchange = None
                self._held[ask] = None

    def reach(self, networks: Sequence[str], fd: int) -> None:
        """This process is beside its nodes: servers in these networks (CIDRs) are reached from a namespace, whose descriptor is taken.
        Those of the machine are not: it may know other machines by the same addresses."""
        before, self._lab = self._lab, LabOpener(networks, fd)
        self._resolve([named for named, one in self._upstreams.items() if not named.by_machine or one.health.is_loop])
        if before is not None:
            before.close()

    def own(self, ip: str) -> None:
        """This server answers at this address."""
        if ip not in self._own:
            self._own.add(ip)
            self._find_own()

    def _find_own(self) -> None:
        for (server, by_machine, _), upstream in self._upstreams.items():
            if server.ip in self._own and server.port == config.DNS_PORT and not (by_machine and self._lab):
                self._probes.is_loop(upstream, "it is this server itself")

    def close(self) -> None:
        """Ask nobody any more; whoever waits is told."""
        self._probes.close()
        for upstream in self._upstreams.values():
            upstream.close()

    def answer(self, question: Question, client: Client, query: Query) -> Answer | Awaitable[Answer]:
        """What other servers say."""
        if question.class_ != m.INTERNET:
            return Answer(m.REFUSED, authoritative=False, source="no other class than IN is passed on")
        if question.type in NOT_PASSED_ON:
            return Answer(m.NOTIMP, authoritative=False, source="what it asks for is not passed on")
        dnssec = query.edns is not None and query.edns.dnssec
        later: Later[Answer] = Later()
        found = self.ask(Ask(m.asked_of(question), query.flags & ASKED_FLAGS, dnssec), client.ip, later.set)
        return later if found is None else found

    def ask(self, ask: Ask, ip: str, heard: Callable[[Answer], object]) -> Answer | None:
        """The same for a question about data, of the class IN; `ip` is who asks. None when others must be asked: then `heard` is told."""
        now = self._loop.time()
        found = self.cache.get(ask, now)
        if found is not None:
            return self._found(ask, found, now)
        waiting, has_stale = self._waiting.get(ask), self.cache.has_stale(ask, now)
        answer = None
        if waiting is not None:
            answer = self._too_old(ask, now, LATE) if waiting.is_late else None
        elif self._probes.came_back(ask):
            return _failure("a question of our own came back")
        elif has_stale or ask in self._failed:
            answer = self._at_once(ask, now)
        if answer is not None:
            return answer
        group = self._group(ask.asked)
        place = Place(ip, group.zone, ask, heard)
        given_up = self._places.enter(place)
        if given_up is place:
            self.refused += 1
            return _failure(TOO_MANY)
        current = waiting
        if current is None:
            current = self._waiting[ask] = Waiting({place: None})
        else:
            current.places[place] = None
        if given_up is not None:
            self._give_up(given_up)
        if has_stale and current.timer is None:
            current.timer = self._loop.call_later(STALE_AFTER, self._too_late, ask)
        if waiting is None:
            self._begin(ask, now, group)
        return None

    def _found(self, ask: Ask, found: Found, now: float) -> Answer:
        """What is kept, and is asked for again when it is soon too old."""
        if found.refresh and ask not in self._waiting and not self._places.is_full:
            self._waiting[ask] = Waiting()
            self._begin(ask, now)
        return _kept(found, "cache")

    def _give_up(self, place: Place) -> None:
        """Somebody else has the place now. What nobody waits for any more is not asked any longer."""
        self.refused += 1
        waiting = self._waiting[place.ask]
        del waiting.places[place]
        if not waiting.places:
            if waiting.timer is not None:
                waiting.timer.cancel()
            if waiting.exchange is not None:
                waiting.exchange.cancel()
            del self._waiting[place.ask]
            self._held.pop(place.ask, None)
        place.heard(_failure(TOO_MANY))

    def _at_once(self, ask: Ask, now: float) -> Answer | None:
        """What is known without asking: that a moment ago nobody answered, or that nobody will."""
        until, why = self._failed.get(ask, (0.0, ""))
        if until <= now:
            if not self.cache.has_stale(ask, now):
                return None
            group = self._group(ask.asked)
            if any(one.health.is_up for one in group.servers):
                return None
            why = _all_down(group)
            self._waiting[ask] = Waiting(is_late=True)
            self._begin(ask, now)
        return self._stale(ask, now, why)

    def _group(self, asked: bytes) -> Group:
        """The servers of the longest zone that the name of a question belongs to."""
        groups, at, end = self._groups, 0, len(asked) - m.TAIL_BYTES
        while (group := groups.get(asked[at:end])) is None:
            at += 1 + asked[at]
        return group

    def _begin(self, ask: Ask, now: float, group: Group | None = None) -> None:
        group = group or self._group(ask.asked)
        servers: Sequence[Upstream] = group.servers
        count = 1
        if len(servers) != 1 or not (servers[0].is_checked and servers[0].health.is_up):
            servers = [one for one in servers if one.is_checked]
            if len(servers) < len(group.servers) and not (servers and now >= self._hold_until):
                self._held[ask] = None
                return
            servers, count = self._ordered(servers)
        if not servers:
            self._heard(ask, None, None, _all_down(group))
            return
        exchange = self._waiting[ask].exchange = Exchange(ask, servers, self._waits, self._heard, now)
        exchange.start(count)

    def _ordered(self, servers: Sequence[Upstream]) -> tuple[list[Upstream], int]:
        """Those that may be asked, best first, and how many of them at the same time."""
        health = [one.health for one in servers]
        random = self._means.randomness.fraction
        numbers = ordered(health, self._config.order, random)
        return [servers[i] for i in numbers], at_once(health, numbers, self._config.order, random)

    def _checked(self) -> None:
        """One more server is known: perhaps what waits for that can be asked now."""
        held, self._held = self._held, {}
        for ask in held:
            self._begin(ask, self._loop.time())

    def _heard(self, ask: Ask, reply: Reply | None, server: Upstream | None, why: str) -> None:
        if reply is not None and server is not None and not why:
            if reply.seconds > 0:
                self.cache.put(ask, reply, self._loop.time())
            answer = Answer(
                reply.rcode,
                authoritative=False,
                source=server.source,
                message=reply.message,
                lifetime=1.0 if reply.seconds > 0 else None,
                aliases=reply.aliases,
            )
        else:
            now = self._loop.time()
            self._remember_failure(ask, now, why)
            answer = self._stale(ask, now, why)
            if not answer.message and reply is not None and not reply.is_referral:
                answer = Answer(reply.rcode, authoritative=False, source=why, message=reply.message, aliases=reply.aliases)
        self._tell(self._waiting.pop(ask), answer)

    def _remember_failure(self, ask: Ask, now: float, why: str) -> None:
        self._failed[ask] = now + FAILED_SECONDS, why
        self._failed.move_to_end(ask)
        while len(self._failed) > MAX_FAILED or next(iter(self._failed.values()))[0] <= now:
            self._failed.popitem(last=False)

    def _too_late(self, ask: Ask) -> None:
        """Nobody answered for a while: those who wait get what there is, and the question stays on its way."""
        waiting = self._waiting[ask]
        waiting.timer = None
        answer = self._too_old(ask, self._loop.time(), LATE)
        if answer is not None:
            waiting.is_late = True
            self._tell(waiting, answer)

    def _stale(self, ask: Ask, now: float, why: str) -> Answer:
        return self._too_old(ask, now, why) or _failure(why)

    def _too_old(self, ask: Ask, now: float, why: str) -> Answer | None:
        stale = self.cache.stale(ask, now)
        return None if stale is None else _kept(stale, f"cache, too old; {why}")

    def _tell(self, waiting: Waiting, answer: Answer) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        places, waiting.places = waiting.places, {}
        for place in places:
            self._places.leave(place)
            place.heard(answer)


def _kept(found: Found, source: str) -> Answer:
    return Answer(
        found.rcode, authoritative=False, source=source, message=found.message, lifetime=found.seconds, aliases=found.aliases
    )


def _failure(why: str) -> Answer:
    return Answer(m.SERVFAIL, authoritative=False, source=why)


def _all_down(group: Group) -> str:
    """Why nobody is asked, or nobody will answer."""
    if not group.servers:
        return "there is no server to ask"
    return "; ".join(f"{one.server}: {one.health.last_error}" for one in group.servers)

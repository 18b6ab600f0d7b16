"""From a question's bytes to a response's: responses that are kept, who may ask, and the resolver for all else.

    question ──► kept under its bytes, without the id ─────────────────────────────► response    (in batches: kernel.datagrams)
                 kept under the same, but in lower case, or without EDNS options ──► response with the question's own spelling
                 about the server itself, or none that is answered (dns.protocol)
                 the resolver ─────────────────────────────────────────────────────► response, which is kept

What depends on who asks (`Answer.private`) is kept under the search path of who asked, before the question's bytes. What is longer than a
datagram is kept twice: as far as it goes, and, for connections, whole.
"""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import itertools
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from podplane.dns import message as m
from podplane.dns import order, protocol, relay
from podplane.dns.message import Answer, Query
from podplane.dns.search_path import SearchPath
from podplane.nameserver.kept import Kept, Reply
from podplane.nameserver.query_log import QueryLog
from podplane.nameserver.resolver import Client, Resolving
from podplane.servers.dns_counts import Counts
from podplane.servers.later import Later
from podplane.state.value import IPAddress

log = logging.getLogger(__name__)
CLIENTS = 50_000
"""Clients that are known by their address, at most."""
REFUSALS = 1000
"""Questions from outside of the cluster that are told so, in a second; others get nothing."""
ANY_TTL = 5
TURN, REVERSE = "turn", "reverse"
"""What responses depend on whose addresses begin with another one in the next second; and those of others for reverse names."""
USUAL_SIZES = frozenset((512, 1200, 1220, 1232, 1280, 1400, 1410, 1432, 1440, 1452, 1472, 2048, 4000, 4096, 8192, 65535))
"""Sizes of responses that resolvers say they take: those of these are answered at once."""
LARGE, LARGE_ANSWERS = 256, 4
"""Answers with more records than this take milliseconds to make. So many of them are kept, too, beside a response for each size."""
SECRET_BYTES = 8
"""What keys of private responses, and of those for connections, begin with. Who could guess it could ask for such a response by a
datagram that begins so.
"""
NAME = 10
"""Where the name of a question begins, behind a header without its id."""
TRUNCATED = m.TC >> 8
BY_CHANCE = partial(order.rotated, choose=random.randrange)
"""Addresses begin with any of them."""
FAULT = Answer(m.SERVFAIL, authoritative=False, source="a fault of this server")


def _nowhere(query: Query, client: Client, told: Callable[[Answer], object]) -> bool:
    """There are no other servers."""
    return False


class Answers:
    """Answers questions; its methods run on one event loop.

    `pass_on` tells what other servers say to a query that is plainly for them, perhaps at once; False for any other query.
    `networks` are CIDRs whose clients are answered, beside the hosts of `hosts_changed`; `identify` says who has an address, and when that
    changes, `forget_client` is to be called. `version` is what `version.bind` is answered with. `arrange` puts the addresses of an answer
    in order.
    """

    def __init__(
        self,
        resolver: Resolving,
        networks: Sequence[str],
        counts: Counts,
        *,
        version: str = "",
        identify: Callable[[str], Client] = Client,
        arrange: Callable[[Answer], Answer] = BY_CHANCE,
        pass_on: Callable[[Query, Client, Callable[[Answer], object]], bool] = _nowhere,
    ) -> None:
        self._resolver = resolver
        self._networks = [ipaddress.ip_network(cidr) for cidr in networks]
        self._hosts: set[bytes] = set()
        """Packed addresses of the cluster's nodes."""
        self._counts = counts
        self._version = version
        self._identify = identify
        self._arrange = arrange
        self._pass_on = pass_on
        self._clients: dict[str, tuple[Client, bytes]] = {}
        self._senders: dict[bytes, bytes] = {}
        self._kept = Kept(turned=order.turned)
        self._own, self._whole = os.urandom(SECRET_BYTES), os.urandom(SECRET_BYTES)
        self._large: dict[tuple[bytes, int], Answer] = {}
        """Answers with many records, by question in lower case and flags."""
        self._is_ticking = False
        self._ticks = self._last_tick = 0
        """Seconds that were counted, and when the last thing is over that is kept for some of them."""
        self._log: QueryLog | None = None
        self._watched: set[str] = set()
        """Addresses of clients whose questions are all logged."""
        self._changes = 0
        self._refused_in, self._refused = 0, 0

    # What is answered without asking here.

    @property
    def senders(self) -> Mapping[bytes, bytes]:
        """Clients that were answered, by packed address, and what their private responses are kept under."""
        return self._senders

    @property
    def replies(self) -> Mapping[bytes, Reply]:
        """Responses that are kept, by question."""
        return self._kept.replies

    @property
    def kept(self) -> Kept:
        """Responses that are kept, all of them."""
        return self._kept

    def changed(self, key: str) -> None:
        """An object changed: what was made of it is not kept any more."""
        self._changes += 1
        for asked in [asked for asked, answer in self._large.items() if key in answer.depends]:
            del self._large[asked]
        self._drop(self._kept.changed(key))
        if key.startswith("ip/"):  # its reverse name, which other servers answered for, may be one of the cluster's now
            self._drop(self._kept.changed(REVERSE))

    def _drop(self, slices: Iterator[None]) -> None:
        """Drop what is left of what was made of something that changed: a slice in a turn of the loop."""
        if next(slices, self) is None:
            asyncio.get_running_loop().call_soon(self._drop, slices)

    def forget(self) -> None:
        """Everything may have changed: nothing is kept of what was answered until now."""
        self._changes += 1
        self._large.clear()
        self._kept.clear()

    def forget_others(self) -> None:
        """Other servers may say something else from now on: nothing is kept of what they said."""
        self._changes += 1
        for tick in range(self._ticks + 1, self._last_tick + 1):
            self._drop(self._kept.changed(_until(tick)))

    def log_to(self, log: QueryLog | None) -> None:
        """Log by this from now on, or nothing. To be called, too, when it logs other questions than before."""
        self._log = log
        self._clients.clear()
        self._senders.clear()
        self._watched.clear()
        self.forget()

    def forget_client(self, ip: str) -> None:
        """Somebody else may have this address from now on."""
        address = ipaddress.ip_address(ip)
        self._clients.pop(str(address), None)
        self._watched.discard(str(address))
        self._senders.pop(address.packed, None)

    def hosts_changed(self, come: Iterable[str], gone: Iterable[str]) -> None:
        """Nodes have these addresses now, and are answered there; none has those any more."""
        self._hosts.update(ipaddress.ip_address(ip).packed for ip in come)
        for ip in gone:
            self._hosts.discard(ipaddress.ip_address(ip).packed)
            self.forget_client(ip)

    # One question.

    def respond(self, data: bytes, ip: str, *, node: str = "", tcp: bool = False) -> bytes | Awaitable[bytes | None] | None:
        """The response to a message; an awaitable when others must be asked first, None when it gets none. `node` is who answers."""
        known = self._known(ip)
        if known is None:
            return self._refuse(data)
        client, own = known
        if not tcp and self._log is None and (passed := self._passed_on(data, client, own)) is not None:
            return passed
        if ip not in self._watched:
            found = self._find(data[2:], own, tcp=tcp) or self._find_lower(data[2:], own, tcp=tcp)
            if found is not None:
                return data[:2] + found
        try:
            query = m.read_query(data, tcp=tcp)
        except m.Malformed as error:
            return None if error.rcode is None else m.refusal(data, error.rcode)
        return self._respond(query, client, own, node, tcp=tcp)

    def _respond(self, query: Query, client: Client, own: bytes, node: str, *, tcp: bool) -> bytes | Awaitable[bytes | None]:
        asked = None if self._log is None else self._log.begin(query.question, client, node)

        def identified(response: bytes) -> bytes:
            return protocol.with_identity(query, response, node, query.limit)

        def written(answer: Answer) -> bytes:
            if asked is not None:
                asked.done(answer)
                answer = unkept(answer)
            return identified(self._written(query, answer, own, tcp=tcp))

        if (about := protocol.answer(query, self._version, node)) is not None:
            if asked is not None:
                asked.done(about)
            return identified(m.respond(query, about, query.limit))
        if asked is None and (kept := self._find(question_of(query), own, tcp=tcp)) is not None:
            return identified(query.id.to_bytes(2, "big") + spelled(kept, query.asked))
        return self._response(query, self._found(query, client), written)

    def _passed_on(self, data: bytes, client: Client, own: bytes) -> Later[bytes | None] | None:
        """The response to a datagram that is plainly for other servers; None for any other."""
        query = m.read_plain(data)
        if query is None:
            return None
        response: Later[bytes | None] = Later()
        told = partial(self._told, response, query, own, self._changes)
        try:
            return response if self._pass_on(query, client, told) else None
        except Exception:
            log.exception("no answer to %s", m.text_of(query.question.name))
            told(FAULT)
            return response

    def _told(self, response: Later[bytes | None], query: Query, own: bytes, changes: int, answer: Answer) -> None:
        """Respond with an answer that came later."""
        try:
            if answer.message and answer.lifetime is None and not answer.depends:  # it is not kept
                written = relay.relayed(query, answer.message, answer.rcode, query.limit)
            else:
                written = self._written(query, answer if changes == self._changes else unkept(answer), own, tcp=False)
        except Exception:
            log.exception("no answer to %s", m.text_of(query.question.name))
            written = self._written(query, FAULT, own, tcp=False)
        response.set(written)

    def _found(self, query: Query, client: Client) -> Answer | Awaitable[Answer]:
        asked = m.asked_of(query.question), query.flags
        if (large := self._large.get(asked)) is not None:
            return large
        try:
            found = self._resolver.answer(as_hinfo(query) if query.type == m.ANY else query, client)
        except Exception:
            log.exception("no answer to %s", m.text_of(query.question.name))
            return FAULT
        if (
            isinstance(found, Answer)
            and len(found.records) > LARGE
            and found.depends
            and found.lifetime is None
            and not found.private
        ):
            if len(self._large) >= LARGE_ANSWERS:
                del self._large[next(iter(self._large))]
            self._large[asked] = found
        return found

    def _response(
        self, query: Query, found: Answer | Awaitable[Answer], written: Callable[[Answer], bytes]
    ) -> bytes | Awaitable[bytes | None]:
        """The response with an answer, or with one that is awaited."""
        if isinstance(found, Later):
            return found.map(partial(self._written_or_fault, query, self._changes, written))
        if inspect.isawaitable(found):
            return self._later(query, found, self._changes, written)
        return self._written_or_fault(query, self._changes, written, found)

    async def _later(
        self, query: Query, found: Awaitable[Answer], changes: int, written: Callable[[Answer], bytes]
    ) -> bytes | None:
        try:
            answer = await found
        except Exception:
            log.exception("no answer to %s", m.text_of(query.question.name))
            answer = FAULT
        return self._written_or_fault(query, changes, written, answer)

    def _written_or_fault(self, query: Query, changes: int, written: Callable[[Answer], bytes], answer: Answer) -> bytes:
        try:
            return written(unkept(answer) if changes != self._changes else answer)  # perhaps of what the answer was made of
        except Exception:
            log.exception("no answer to %s", m.text_of(query.question.name))
            return written(FAULT)

    # Responses that are kept.

    def _find(self, question: bytes, own: bytes, *, tcp: bool) -> bytes | None:
        """The response that is kept for these bytes, without its id."""
        for key in (question, own + question):
            found = self._kept.get(key)
            if tcp and (found is None or found[0][0] & TRUNCATED):  # nobody may have asked by datagram
                found = self._kept.get(self._whole + key)
            if found is not None:
                self._tick_on()
                return found[0]
        return None

    def _find_lower(self, question: bytes, own: bytes, *, tcp: bool) -> bytes | None:
        """That for the same name in lower case, spelled as in the question: some resolvers mix cases by chance, against forgeries."""
        end = question.find(0, NAME)
        name = question[NAME:end]
        lower = name.lower()  # the lengths of labels are less than any letter
        if lower == name:
            return None
        found = self._find(question[:NAME] + lower + question[end:], own, tcp=tcp)
        return None if found is None else spelled(found, name)

    def _written(self, query: Query, answer: Answer, own: bytes, *, tcp: bool) -> bytes:
        """The response, which is kept under the query's question, if it may be."""
        if query.type == m.ANY:
            answer = protocol.any_of(query, answer, ANY_TTL)
        arranged = self._arrange(answer)
        response = relay.rendered(query, arranged, query.limit)
        turns = arranged is not answer and answer.lifetime is None and not response[2] & TRUNCATED
        depends = (*answer.depends, TURN) if turns and answer.depends else self._depends(arranged)
        if depends and answer.lifetime is not None and query.question.name[-1:] == (b"arpa",):
            depends = (REVERSE, *depends)
        if depends:
            key = question_of(query)
            if answer.private:
                key = own + key
            if tcp and len(response) > m.datagram_bytes(query.edns):
                key = self._whole + key
            lower = spelled(response[2:], query.asked[:-4].lower())
            self._kept.put(key, lower, self._counts.kind(len(key) + 2, response), depends)
            self._tick_on()
        return response

    def _depends(self, answer: Answer) -> tuple[str, ...]:
        """What a response depends on; nothing when it is not to be kept."""
        if answer.lifetime is None:
            return answer.depends
        if answer.lifetime < 1:
            return ()
        last = self._ticks + int(answer.lifetime)
        self._last_tick = max(self._last_tick, last)
        return (*answer.depends, _until(last))

    def _tick_on(self, seconds: float = 1.0) -> None:
        """Count the seconds, while there is something that is kept for some of them; the next one begins after so long."""
        if not self._is_ticking and (self._last_tick > self._ticks or self._kept.has(TURN)):
            self._is_ticking = True
            asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._ticks += 1
        self._end_second(itertools.chain(self._kept.expire(_until(self._ticks)), self._kept.lay_aside(TURN)))

    def _end_second(self, slices: Iterator[None], began: float | None = None) -> None:
        """What a second's end means for what is kept: a slice in a turn of the loop, for questions are answered meanwhile."""
        loop = asyncio.get_running_loop()
        if next(slices, self) is None:
            loop.call_soon(self._end_second, slices, loop.time() if began is None else began)
            return
        self._is_ticking = False
        self._tick_on(1.0 if began is None else max(0.0, began + 1.0 - loop.time()))

    # Who asks.

    def client(self, ip: str) -> Client | None:
        """Who asks from this address; None for somebody outside of the cluster."""
        known = self._known(ip)
        return None if known is None else known[0]

    def _known(self, ip: str) -> tuple[Client, bytes] | None:
        known = self._clients.get(ip)
        return self._met(ip) if known is None else known

    def _met(self, ip: str) -> tuple[Client, bytes] | None:
        """Who asks for the first time. Of outsiders nothing is kept, however many addresses they have."""
        address = ipaddress.ip_address(ip.partition("%")[0])
        if not self._is_inside(address):
            return None
        if len(self._clients) >= CLIENTS:
            self._clients.clear()
            self._senders.clear()
            self._watched.clear()
        client = self._identify(ip)
        known = self._clients[ip] = client, self._own + path_key(client.searches)
        if self._log is not None and self._log.is_about(client):
            self._watched.add(ip)
        else:
            self._senders[address.packed] = known[1]
        return known

    def _is_inside(self, address: IPAddress) -> bool:
        """Is it of the cluster?"""
        is_host = address.is_loopback or address.packed in self._hosts
        return is_host or any(address in network for network in self._networks)

    def _refuse(self, data: bytes) -> bytes | None:
        """What somebody outside of the cluster gets: no more bytes than it sent, and not always."""
        second = int(time.monotonic())
        if second != self._refused_in:
            self._refused_in, self._refused = second, 0
        self._refused += 1
        if self._refused > REFUSALS:
            return None
        try:
            return m.respond(m.read_query(data), Answer(m.REFUSED, authoritative=False))
        except m.Malformed:
            return m.refusal(data, m.REFUSED)


def unkept(answer: Answer) -> Answer:
    """The answer as one that is not kept."""
    return replace(answer, depends=(), lifetime=None)


def path_key(searches: SearchPath) -> bytes:
    """What tells this search path from all others."""
    return b"".join(map(m.written, searches.domains)) + bytes((min(searches.ndots, 255),))


def question_of(query: Query) -> bytes:
    """What a response is kept under: the message that asks the same, without its id, in lower case, without options of EDNS, flags that
    change nothing, and sizes that few ask with. So one question has a few keys, whoever plays with it."""
    edns = query.edns
    head = m.HEADER.pack(0, query.flags & (m.RD | m.CD | m.AD), 1, 0, 0, edns is not None)[2:]
    name, rest = query.asked[:-4].lower(), query.asked[-4:]
    if edns is None:
        return head + name + rest
    size = edns.size if edns.size in USUAL_SIZES else m.datagram_bytes(edns)
    return head + name + rest + b"\0" + m.RECORD.pack(m.OPT, size, m.DO * edns.dnssec, 0)


def spelled(response: bytes, name: bytes) -> bytes:
    """A response, without its id, with this spelling of the name in its question; what else has the name points to it there."""
    return response[:NAME] + name + response[NAME + len(name) :]


def as_hinfo(query: Query) -> Query:
    """The question that answers whether a name exists."""
    return replace(query, asked=query.asked[:-4] + m.TAIL.pack(m.HINFO, query.question.class_))


def _until(tick: int) -> str:
    """What a response depends on that is kept until this second."""
    return f"second {tick}"

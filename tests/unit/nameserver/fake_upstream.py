"""Servers that questions are passed on to, made up: on loopback, by UDP and TCP, with whatever behaviour a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import dns.message
import dns.rcode
import dns.rrset

from podplane.dns import config

PROBE = re.compile("[0-9a-f]{12}[.][0-9a-f]{12}[.](.*)")
"""Names that servers are asked for before all others; what matches is the zone."""
Behaviour = Callable[[dns.message.Message, bool], Iterable[bytes] | None]
"""(question, by TCP?) → the datagrams or messages that are sent, None for silence."""


def reply(query: dns.message.Message, *records: str, authority: Iterable[str] = (), rcode: int = 0) -> dns.message.Message:
    """A response with records as zone files have them."""
    response = dns.message.make_response(query, recursion_available=True)
    response.answer += [dns.rrset.from_text(*record.split(None, 4)[:2], *_rest(record)) for record in records]
    response.authority += [dns.rrset.from_text(*record.split(None, 4)[:2], *_rest(record)) for record in authority]
    response.set_rcode(dns.rcode.Rcode(rcode))
    return response


def _rest(record: str) -> tuple[str, str, str]:
    _, _, class_, type_, data = record.split(None, 4)
    return class_, type_, data


def says(*records: str, authority: Iterable[str] = (), rcode: int = 0) -> Behaviour:
    """Always the same records."""
    return lambda query, tcp: [reply(query, *records, authority=authority, rcode=rcode).to_wire(max_size=65535)]


def silent(query: dns.message.Message, tcp: bool) -> None:
    """Never an answer."""


def deaf(query: dns.message.Message, tcp: bool) -> None:
    """An answer to nothing but probes."""


@dataclass
class FakeUpstream:
    """One server. `heard` are the questions, in order."""

    behaviour: Behaviour
    probe: Behaviour
    port: int = 0
    heard: list[tuple[dns.message.Message, bool]] = field(default_factory=list)
    clients: list[tuple[str, int]] = field(default_factory=list)
    connections: int = 0
    probes: list[str] = field(default_factory=list)
    """The zones of the names that nobody can know, in order."""
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
    """What it does with connections, in place of answering by them."""
    tls: bool = False

    @property
    def server(self) -> config.Upstream:
        return config.Upstream("127.0.0.1", self.port)

    @property
    def names(self) -> list[str]:
        return [str(query.question[0].name).lower() for query, _ in self.heard]

    def answers(self, data: bytes, tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(data)
        if probe := PROBE.fullmatch(query.question[0].name.to_text().lower()):
            self.probes.append(probe[1])
            return list(self.probe(query, tcp) or ())
        self.heard.append((query, tcp))
        return list(self.behaviour(query, tcp) or ())


@contextlib.asynccontextmanager
async def upstream(
    behaviour: Behaviour, context: ssl.SSLContext | None = None, probe: Behaviour | None = None
) -> AsyncIterator[FakeUpstream]:
    """Such a server, as long as it is needed; with a context it speaks TLS. `probe`: what it does with names that nobody can know."""
    fake = FakeUpstream(behaviour, probe or (silent if behaviour is silent else says(rcode=3)))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    server = None
    for _ in range(20):
        server = await asyncio.start_server(partial(_serve, fake), "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        try:
            udp.bind(("127.0.0.1", port))
            break
        except OSError:
            server.close()
    assert server is not None
    fake.port = port
    loop = asyncio.get_running_loop()

    def read() -> None:
        data, client = udp.recvfrom(65535)
        fake.clients.append(client)
        for answer in fake.answers(data, False):
            udp.sendto(answer, client)

    loop.add_reader(udp, read)
    try:
        yield fake
    finally:
        loop.remove_reader(udp)
        udp.close()
        server.close()


async def _serve(fake: FakeUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if fake.serve is not None:
        await fake.serve(reader, writer)
        return
    fake.connections += 1
    with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
        while True:
            length = int.from_bytes(await reader.readexactly(2), "big")
            for answer in fake.answers(await reader.readexactly(length), True):
                writer.write(len(answer).to_bytes(2, "big") + answer)

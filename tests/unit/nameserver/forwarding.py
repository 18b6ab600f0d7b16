"""A forwarder for tests, and questions to it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import dns.flags
import dns.message

from podplane.dns import config, relay
from podplane.dns import message as m
from podplane.dns.message import Answer
from podplane.nameserver.forwarder import Forwarder
from podplane.nameserver.machine import Machine
from podplane.nameserver.openers import HostOpener
from podplane.nameserver.randomness import Randomness
from podplane.nameserver.resolver import Client
from podplane.nameserver.upstream import Means

from .fake_upstream import FakeUpstream

A = "a.example. 60 IN A 192.0.2.1"
OWN = "hosts: {192.0.2.7: [db.corp.example]}\nrewrites: [{name: old.test, to: a.example}]"
"""A configuration with names of its own."""


@contextlib.asynccontextmanager
async def forwarder(*servers: FakeUpstream, machine: Path = Path("/nonexistent"), **more: object) -> AsyncIterator[Forwarder]:
    made = Forwarder(Means(HostOpener(), Randomness()), Machine(machine))
    made.configure(config.Config(upstreams=tuple(one.server for one in servers) or ("machine",), **more))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


async def answer(made: Forwarder, name: str, type_: str = "A", ip: str = "10.244.1.2", **more: object) -> Answer:
    query = m.read_query(dns.message.make_query(name, type_, **more).to_wire())  # type: ignore[arg-type]
    found = made.answer(query.question, Client(ip), query)
    return await found if inspect.isawaitable(found) else found


async def raw(made: Forwarder, name: str, type_: str = "A", limit: int = 65535, **more: object) -> bytes:
    query = dns.message.make_query(name, type_, **more)  # type: ignore[arg-type]
    return relay.rendered(m.read_query(query.to_wire()), await answer(made, name, type_, **more), limit)


async def ask(made: Forwarder, name: str, type_: str = "A", **more: object) -> dns.message.Message:
    return dns.message.from_wire(await raw(made, name, type_, **more))  # type: ignore[arg-type]


def lines(response: dns.message.Message) -> list[str]:
    return [line for one in response.answer for line in one.to_text().splitlines()]

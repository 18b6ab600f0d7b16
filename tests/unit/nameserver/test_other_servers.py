"""The machine asks other servers from one moment on, or the configuration names others: nobody gets what the former ones said."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message

from podplane.dns import config
from podplane.dns.directory import Directory
from podplane.dns.message import name_of
from podplane.nameserver.answers import Answers
from podplane.nameserver.forwarder import Forwarder
from podplane.nameserver.machine import Machine
from podplane.nameserver.openers import HostOpener
from podplane.nameserver.randomness import Randomness
from podplane.nameserver.sources import Sources
from podplane.nameserver.upstream import Means
from podplane.servers.dns_counts import Counts
from tests.unit.virtual_time import virtual

from .fake_upstream import FakeUpstream, says, silent, upstream

NAME = "a.example"


class Told(Machine):
    """A machine whose servers are told, not read: those of a resolv.conf have port 53."""

    def __init__(self, *servers: FakeUpstream) -> None:
        super().__init__(Path("/nonexistent"))
        self.is_new = False
        self.ask(*servers)

    def ask(self, *servers: FakeUpstream) -> None:
        self.servers, self.is_new = tuple(one.server for one in servers), True

    def look(self) -> bool:
        is_new, self.is_new = self.is_new, False
        return is_new


class Rig:
    """A name server as the process has it, but for its sockets and the API."""

    def __init__(self, machine: Machine) -> None:
        self.forwarder = Forwarder(Means(HostOpener(), Randomness()), machine)
        self.sources = Sources(name_of("cluster.local"), Directory(), ["10.0.0.0/8"], self.forwarder)
        self.answers = Answers(self.sources, ["10.0.0.0/8"], Counts())
        self.forwarder.subscribe(self.answers.forget_others)

    async def ask(self) -> str:
        found = self.answers.respond(dns.message.make_query(NAME, "A").to_wire(), "10.244.1.2")
        response = await found if inspect.isawaitable(found) else found
        assert response is not None
        read = dns.message.from_wire(response)
        return read.answer[0][0].to_text() if read.answer else str(read.rcode())


@contextlib.asynccontextmanager
async def rig(machine: Machine) -> AsyncIterator[Rig]:
    made = Rig(machine)
    task = asyncio.ensure_future(made.forwarder.run())
    try:
        yield made
    finally:
        task.cancel()
        made.forwarder.close()


def address(last: int) -> str:
    return f"{NAME}. 3600 IN A 192.0.2.{last}"


@virtual
async def test_what_the_machines_former_servers_said_is_given_for_a_second_at_most() -> None:
    async with upstream(says(address(1))) as one, upstream(says(address(2))) as two:
        machine = Told(one)
        async with rig(machine) as made:
            for _ in range(3):
                assert await made.ask() == "192.0.2.1"
                await asyncio.sleep(1.1)  # from now on it is kept for ten seconds
            machine.ask(two)
            await asyncio.sleep(1)
            assert await made.ask() == "192.0.2.2"
            assert len(one.heard) == len(two.heard) == 1


@virtual
async def test_the_former_servers_word_counts_while_the_new_ones_are_silent() -> None:
    async with upstream(says(address(1))) as one, upstream(silent) as two:
        machine = Told(one)
        async with rig(machine) as made:
            assert await made.ask() == "192.0.2.1"
            machine.ask(two)
            await asyncio.sleep(1.1)
            assert await made.ask() == "192.0.2.1"
            assert two.heard, "it was asked first"


@virtual
async def test_what_a_zones_former_servers_said_is_given_no_more() -> None:
    """The steps are those of `NameServer._configured`."""
    async with upstream(says(address(1))) as one, upstream(says(address(2))) as two, rig(Told(one)) as made:
        for _ in range(3):
            assert await made.ask() == "192.0.2.1"
            await asyncio.sleep(1.1)
        new = config.Config(zones={name_of("example"): (two.server,)})
        made.forwarder.configure(new)
        made.sources.use(made.sources.resolver(new))
        made.answers.log_to(None)
        assert await made.ask() == "192.0.2.2"

"""Servers that lead back here, by way of the machine or by themselves, are not asked."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import dns.flags
import dns.message
import pytest

from podplane.dns import config
from podplane.dns import message as m
from podplane.dns.message import Answer
from podplane.nameserver import forwarder as module
from podplane.nameserver.forwarder import Forwarder
from podplane.nameserver.openers import HostOpener
from podplane.nameserver.resolver import Client, Resolver
from tests.unit.virtual_time import virtual

from .fake_upstream import Behaviour, reply, says, upstream
from .forwarding import A, answer, ask, forwarder, lines

LONG_ZONE = ".".join(["z" * 63] * 3 + ["z" * 58, ""])


@virtual
async def test_a_loop_is_found_before_anything_is_asked() -> None:
    """The server asks us in turn, as a stub does that was told to ask the cluster's DNS."""
    back: list[Forwarder] = []

    def asks_back(query: dns.message.Message, tcp: bool) -> None:
        task = asyncio.ensure_future(answer(back[0], query.question[0].name.to_text(), ip="10.0.0.1"))
        tasks.append(task)

    tasks: list[asyncio.Future[Answer]] = []
    async with upstream(asks_back, probe=asks_back) as one, forwarder(one) as made:
        back.append(made)
        found = await answer(made, "a.example")
        assert found.rcode == m.SERVFAIL
        assert found.source.endswith("what it is asked comes back to this server: it asks the cluster's DNS itself")
        assert (one.heard, one.probes) == ([], [""])
        health = made.groups[0].servers[0].health
        assert health.is_loop and not health.is_up
        one.probe = lambda query, tcp: [reply(query, rcode=3).to_wire()]
        one.behaviour = says(A)
        await asyncio.sleep(16)
        assert health.is_up, "it is looked at again"
        assert lines(await ask(made, "a.example")) == [A]
        await asyncio.gather(*tasks)


@virtual
@pytest.mark.parametrize("zone", ["corp.example.", "example.", LONG_ZONE])
async def test_a_server_may_be_a_loop_for_one_zone_only(zone: str) -> None:
    """It passes the names of this zone on to the cluster's DNS, and knows all others. No random name fits into a zone of a long name."""
    back: list[Forwarder] = []
    tasks: list[asyncio.Future[Answer]] = []

    def some_ask_back(query: dns.message.Message, tcp: bool) -> list[bytes] | None:
        name = query.question[0].name.to_text().lower()
        if not name.endswith(zone) and not (zone == LONG_ZONE and name.count(".") == 2):
            return [reply(query, rcode=3).to_wire()]
        tasks.append(asyncio.ensure_future(answer(back[0], name, ip="10.0.0.1")))
        return None

    async with upstream(says(rcode=3), probe=some_ask_back) as one, upstream(says(rcode=3)) as two, forwarder(two) as made:
        back.append(made)
        zones = {m.name_of(zone): (one.server,), m.name_of("test"): (one.server,)}
        made.configure(config.Config(upstreams=(two.server,), zones=zones))
        found = await answer(made, f"a.{zone}")
        why = "what it is asked comes back to this server: it asks the cluster's DNS itself"
        assert (found.rcode, found.source, one.heard) == (m.SERVFAIL, f"{one.server}: {why}", [])
        assert (await answer(made, "a.test")).rcode == m.NXDOMAIN
        states = {m.text_of(group.zone): group.servers[0].health.is_loop for group in made.groups}
        assert states == {".": False, zone: True, "test.": False}
        await asyncio.gather(*tasks)


@virtual
async def test_a_server_that_is_this_one_is_not_asked() -> None:
    async with upstream(says(A)) as one, forwarder(one) as made:
        itself = config.Upstream("127.0.0.53")
        made.own("127.0.0.53")
        made.configure(config.Config(upstreams=(itself, one.server)))
        assert lines(await ask(made, "a.example")) == [A]
        health = {str(each.server): each.health for each in made.groups[0].servers}
        assert (health["127.0.0.53"].is_loop, health["127.0.0.53"].last_error) == (True, "it is this server itself")
        made.configure(config.Config(upstreams=(itself,)))
        found = await answer(made, "b.example")
        assert (found.rcode, found.source) == (m.SERVFAIL, "127.0.0.53: it is this server itself")


async def test_a_machine_whose_resolv_conf_names_the_clusters_dns_is_told_so(tmp_path: Path) -> None:
    """coredns/coredns#2087: on a node of its own the server asks itself, by whichever of its addresses."""
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 10.96.0.10\nnameserver 10.244.1.1\nnameserver fd00:10:96::a\n")
    own = ("10.96.0.10", "10.244.1.1", "fd00:10:96::a")
    async with forwarder(machine=file) as made:
        for ip in own:
            made.own(ip)
        began = asyncio.get_running_loop().time()
        found = await answer(made, "a.example")
        assert (found.rcode, found.source) == (m.SERVFAIL, "; ".join(f"{ip}: it is this server itself" for ip in own))
        assert asyncio.get_running_loop().time() - began < 0.5
        assert all(one.health.is_loop and not one.health.asked for one in made.groups[0].servers)


async def test_beside_its_nodes_the_machines_server_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may be a node of another cluster, whose DNS has the same address."""
    monkeypatch.setattr(module, "LabOpener", lambda networks, fd: HostOpener())
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.53\n")
    async with forwarder(machine=file) as made:
        made.own("127.0.0.53")
        assert made.groups[0].servers[0].health.is_loop
        made.reach(["192.0.2.0/24"], 0)
        made.own("127.0.0.53")
        assert not made.groups[0].servers[0].health.is_loop


@virtual
async def test_servers_that_send_us_to_each_other_are_left_after_a_while() -> None:
    def to(target: str) -> Behaviour:
        return lambda query, tcp: [reply(query, f"{query.question[0].name} 60 IN CNAME {target}").to_wire()]

    async with upstream(to("a.two.example.")) as one, upstream(to("a.one.example.")) as two, forwarder() as made:
        zones = {m.name_of("one.example"): (one.server,), m.name_of("two.example"): (two.server,)}
        made.configure(config.Config(zones=zones))
        read = m.read_query(dns.message.make_query("a.one.example", "A").to_wire())
        answer = Resolver([made], zones.keys()).answer(read, Client("10.244.1.2"))
        answer = await answer if inspect.isawaitable(answer) else answer
        assert (answer.rcode, answer.source.split(":")[0]) == (m.SERVFAIL, "aliases lead in a circle")

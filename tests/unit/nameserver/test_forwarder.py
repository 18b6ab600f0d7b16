"""Questions are passed on to other servers, which are made up here, and what they say comes back."""

from __future__ import annotations

import asyncio
import inspect
import time
from pathlib import Path

import dns.flags
import dns.message
import msgspec
import pytest

from podplane.dns import config, config_text
from podplane.dns import message as m
from podplane.dns.directory import Directory
from podplane.dns.message import Answer
from podplane.nameserver import forwarder as module
from podplane.nameserver.answers import Answers
from podplane.nameserver.forwarder import TOO_MANY
from podplane.nameserver.machine import Machine
from podplane.nameserver.resolver import Client
from podplane.nameserver.sources import Sources
from podplane.nameserver.upstream_status import upstreams
from podplane.servers.dns_counts import Counts
from tests.unit.virtual_time import virtual

from .fake_upstream import deaf, reply, says, silent, upstream
from .forwarding import OWN, A, answer, ask, forwarder, lines, raw


async def test_a_name_is_passed_on_and_its_answer_comes_back() -> None:
    async with upstream(says(A)) as one, forwarder(one) as made:
        response = await ask(made, "A.Example")
        assert (lines(response), response.rcode()) == ([A.replace("a.e", "A.E")], 0)
        assert response.question[0].name.to_text() == "A.Example."
        assert response.flags & (dns.flags.RA | dns.flags.AA) == dns.flags.RA
        assert one.names == ["a.example."]


async def test_the_longest_zone_has_the_servers() -> None:
    async with (
        upstream(says(rcode=3)) as all_,
        upstream(says(rcode=3)) as corp,
        upstream(says()) as inner,
        forwarder(all_) as made,
    ):
        zones = {m.name_of("corp.example"): (corp.server,), m.name_of("in.corp.example"): (inner.server,)}
        made.configure(config.Config(upstreams=(all_.server,), zones=zones))
        for name in ("x.example", "xcorp.example", "corp.example", "a.corp.example", "in.corp.example", "a.b.in.corp.example"):
            await ask(made, name)
        assert all_.names == ["x.example.", "xcorp.example."]
        assert corp.names == ["corp.example.", "a.corp.example."]
        assert inner.names == ["in.corp.example.", "a.b.in.corp.example."]


async def test_a_cut_answer_is_asked_for_again_by_tcp() -> None:
    records = [f"a.example. 60 IN A 192.0.2.{i}" for i in range(100)]

    def cuts(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = reply(query, *(records if tcp else ()))
        response.flags |= 0 if tcp else dns.flags.TC
        return [response.to_wire(max_size=65535)]

    async with upstream(cuts) as one, forwarder(one) as made:
        assert sorted(lines(await ask(made, "a.example"))) == sorted(records)
        assert [tcp for _, tcp in one.heard] == [False, True]
        short = dns.message.from_wire(await raw(made, "a.example", limit=512))
        assert short.flags & dns.flags.TC and 0 < len(lines(short)) < 40


async def test_the_servers_of_the_machine_are_those_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# nameserver 192.0.2.1\nnameserver 127.0.0.9\nnameserver nonsense\nnameserver 127.0.0.9\nsearch x\n")
    machine = Machine(file)
    assert machine.look() and machine.servers == (config.Upstream("127.0.0.9"),)
    file.write_text("nameserver fd00::9\n")
    assert machine.look() and machine.servers == (config.Upstream("fd00::9"),)
    assert not machine.look()
    file.unlink()
    assert not machine.look() and machine.servers == (config.Upstream("fd00::9"),), "perhaps it is being written"
    assert machine.look() and machine.servers == ()
    assert not machine.look()
    for text, servers in (("nameserver 192.0.2.1\n", 1), ("", 1), ("nameserver 192.0.2.1\nnameserver 192.0.2.2\n", 2)):
        file.write_text(text)
        assert machine.look() == bool(text) and len(machine.servers) == servers


async def test_without_servers_the_answer_says_so() -> None:
    async with forwarder() as made:
        found = await answer(made, "a.example")
        assert (found.rcode, found.source) == (m.SERVFAIL, "there is no server to ask")


async def test_equal_questions_are_asked_once() -> None:
    async with upstream(says(A)) as one, forwarder(one) as made:
        found = await asyncio.gather(*(ask(made, "a.example") for _ in range(20)), ask(made, "a.example", "AAAA"))
        assert all(lines(response) == [A] for response in found[:20])
        assert len(one.heard) == 2


async def test_one_client_does_not_have_all_places() -> None:
    async with upstream(silent) as one, forwarder(one) as made:
        waiting = [asyncio.ensure_future(answer(made, f"{i}.example", ip="10.244.1.9")) for i in range(512)]
        await asyncio.sleep(0)
        assert (await answer(made, "x.example", ip="10.244.1.9")).source.startswith("too many questions")
        other = asyncio.ensure_future(answer(made, "x.example", ip="10.244.1.8"))
        await asyncio.sleep(0.01)
        assert not other.done()
        for task in (*waiting, other):
            task.cancel()


async def sources(*tasks: asyncio.Task[Answer]) -> list[str]:
    """Why those that are over are."""
    await asyncio.sleep(0.01)
    return [task.result().source if task.done() else "" for task in tasks]


async def test_a_zone_whose_servers_say_nothing_takes_no_place_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 20)
    monkeypatch.setattr(module, "MAX_OF_CLIENT", 10)
    async with upstream(deaf) as dead, upstream(says(rcode=3)) as alive, forwarder(alive) as made:
        made.configure(config.Config(upstreams=(alive.server,), zones={m.name_of("dead"): (dead.server,)}))
        waiting = [asyncio.ensure_future(answer(made, f"{i}.dead", ip=f"10.244.1.{i // 10}")) for i in range(20)]
        await asyncio.sleep(0)
        assert (await answer(made, "a.example")).rcode == m.NXDOMAIN, "asked by somebody else"
        assert await sources(*waiting) == [""] * 9 + [TOO_MANY] + [""] * 10, "the newest of one with most"
        assert made.refused == 1
        assert (await answer(made, "b.example", ip="10.244.1.1")).rcode == m.NXDOMAIN, "asked by one of them"
        for task in waiting:
            task.cancel()


@virtual
async def test_what_nobody_waits_for_any_more_is_asked_no_longer() -> None:
    for probe, seconds in ((silent, 3), (says(rcode=3), 0.3)):  # before it is known whether the server may be asked, and then
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "MAX_PENDING", 4)
            async with upstream(deaf, probe=probe) as one, forwarder(one) as made:
                await asyncio.sleep(0.1)
                waiting = [asyncio.ensure_future(answer(made, f"{name}.example")) for name in "aabb"]
                await asyncio.sleep(0)
                others = [asyncio.ensure_future(answer(made, "a.example", ip=f"10.244.1.{i}")) for i in (3, 4)]
                assert await sources(*waiting, *others) == ["", "", TOO_MANY, TOO_MANY, "", ""]
                one.heard.clear()
                await asyncio.sleep(seconds)
                assert set(one.names) == {"a.example."}
                assert (await asyncio.gather(*waiting[:2]))[0].source.startswith("no answer within")
                again = asyncio.ensure_future(answer(made, "b.example"))
                assert await sources(again) == [""]
                again.cancel()


@virtual
async def test_an_answer_is_asked_for_once_while_it_is_true() -> None:
    async with upstream(says(A)) as one, forwarder(one) as made:
        assert lines(await ask(made, "a.example")) == [A]
        await asyncio.sleep(30)
        assert lines(await ask(made, "A.example")) == ["A.example. 30 IN A 192.0.2.1"]
        assert len(one.heard) == 1
        await asyncio.sleep(30)
        assert lines(await ask(made, "a.example")) == [A]
        assert len(one.heard) == 2
        assert made.cache.counts.hits == {"success": 1, "denial": 0}


@virtual
async def test_what_is_kept_depends_on_the_bits_of_dnssec() -> None:
    async with upstream(says(A)) as one, forwarder(one) as made:
        for more in ({}, {"want_dnssec": True}, {"flags": dns.flags.RD | dns.flags.CD}, {"flags": 0}):
            await ask(made, "a.example", **more)
            await ask(made, "a.example", **more)
        flags = [
            (bool(query.ednsflags & dns.flags.DO), bool(query.flags & dns.flags.CD), bool(query.flags & dns.flags.RD))
            for query, _ in one.heard
        ]
        assert flags == [(False, False, True), (True, False, True), (False, True, True), (False, False, False)]


@virtual
async def test_what_is_on_its_way_when_its_zone_moves_is_asked_of_the_new_servers() -> None:
    async with upstream(deaf) as one, upstream(says(A)) as two, forwarder(one) as made:
        first = asyncio.ensure_future(ask(made, "a.example"))
        await asyncio.sleep(0.1)
        assert one.names == ["a.example."]
        made.configure(config.Config(upstreams=(one.server,), zones={m.name_of("example"): (two.server,)}))
        assert lines(await first) == [A]
        assert (len(one.heard), len(two.heard)) == (1, 1)


@virtual
async def test_other_servers_may_say_something_else() -> None:
    async with upstream(says(A)) as one, upstream(says(A.replace("2.1", "2.2"))) as two, forwarder(one) as made:
        await ask(made, "a.example")
        made.configure(config.Config(upstreams=(two.server,)))
        assert lines(await ask(made, "a.example")) == [A.replace("2.1", "2.2")]
        made.configure(config.Config(upstreams=(two.server,), cache=config.Cache(max_seconds=10)))
        assert lines(await ask(made, "a.example")) == [A.replace("2.1", "2.2")]
        await asyncio.sleep(61)
        assert lines(await ask(made, "a.example")) == [A.replace("2.1", "2.2").replace("60", "10", 1)]


@virtual
async def test_a_question_on_its_way_outlives_a_change_of_servers() -> None:
    async with upstream(deaf) as one, upstream(says(rcode=3)) as two, forwarder(one) as made:
        first = asyncio.ensure_future(answer(made, "a.example"))
        await asyncio.sleep(0.1)
        made.configure(config.Config(upstreams=(two.server,)))
        other = asyncio.ensure_future(answer(made, "b.example"))
        assert (await first).rcode == m.NXDOMAIN
        assert (await other).source == f"upstream {two.server}"


@virtual
async def test_what_many_want_is_asked_for_again_in_time() -> None:
    async with upstream(says(A)) as one, forwarder(one) as made:
        for _ in range(58):
            await ask(made, "a.example")
            await asyncio.sleep(1)
        await asyncio.sleep(0.1)
        assert len(one.heard) == 2
        assert made.cache.counts.misses == 1


async def test_what_is_not_passed_on() -> None:
    async with upstream(says(A)) as one, forwarder(one) as made:
        assert (await answer(made, "a.example", "AXFR")).rcode == m.NOTIMP
        assert (await answer(made, "a.example", "A", rdclass="CH")).rcode == m.REFUSED
        assert one.heard == []


async def test_what_is_known_of_each_server_is_told() -> None:
    async with (
        upstream(says(A)) as good,
        upstream(silent) as bad,
        forwarder(good, zones={m.name_of("corp.example"): (bad.server,)}) as made,
    ):
        await answer(made, "a.example")
        all_names, corp = upstreams(made.groups, time.time() + 7)
        assert (all_names.zone, all_names.server, all_names.is_up) == (".", str(good.server), True)
        assert all_names.age == pytest.approx(7, abs=5)
        assert all_names.asked > corp.failed == 0
        assert all_names.round_trip is not None and all_names.round_trip > 0
        assert (corp.zone, corp.server, corp.round_trip) == ("corp.example.", str(bad.server), None)


@virtual
@pytest.mark.parametrize(
    "name", ["a.example", "A.Example", "db.corp.example", "corp.example", "old.test", "x.new.test", "b.alias"]
)
@pytest.mark.parametrize("edns", [-1, 0])
async def test_what_is_plainly_for_others_is_answered_as_by_the_sources_in_turn(name: str, edns: int) -> None:
    """By datagram, in the short way and in the long one, by whom it may be answered: the same, and others are asked as often."""

    def says_more(query: dns.message.Message, tcp: bool) -> list[bytes]:
        asked = query.question[0].name.to_text().lower()
        alias = "b.alias. 60 IN CNAME kubernetes.default.svc.cluster.local."
        return [reply(query, alias if asked == "b.alias." else f"{asked} 60 IN A 192.0.2.9").to_wire()]

    found = []
    for is_short in (True, False):
        async with upstream(says_more) as one, forwarder(one) as made:
            settings = msgspec.structs.replace(config_text.decode(OWN, m.name_of("cluster.local")), upstreams=(one.server,))
            sources = Sources(m.name_of("cluster.local"), Directory(), ["10.96.0.0/16"], made)
            sources.use(sources.resolver(settings))
            made.configure(settings)
            short = {"pass_on": sources.pass_on} if is_short else {}
            answers = Answers(sources, ["10.0.0.0/8"], Counts(), arrange=lambda answer: answer, **short)
            for _ in range(2):
                query = dns.message.make_query(name, "A", use_edns=edns, id=7)
                response = answers.respond(query.to_wire(), "10.244.1.2")
                response = await response if inspect.isawaitable(response) else response
                found.append((response, one.names.copy()))
    assert found[:2] == found[2:]
    assert found[0][0] is not None and dns.message.from_wire(found[0][0]).question[0].name.to_text() == f"{name}."


@virtual
async def test_names_of_this_servers_own_are_never_passed_on_unseen() -> None:
    async with upstream(says(A)) as one, forwarder(one) as made:
        settings = config_text.decode(OWN, m.name_of("cluster.local"))
        sources = Sources(m.name_of("cluster.local"), Directory(), ["10.96.0.0/16"], made)
        sources.use(sources.resolver(settings))
        own = (
            "a.default.svc.cluster.local",
            "1.0.96.10.in-addr.arpa",
            "localhost",
            "db.corp.example",
            "old.test",
            "CLUSTER.local",
        )
        told: list[m.Answer] = []
        for name in own:
            query = m.read_query(dns.message.make_query(name, "A").to_wire())
            assert not sources.pass_on(query, Client("10.244.1.2"), told.append), name
        assert one.names == [] and told == []

"""Questions are passed on to other servers, which are made up here, and what they say comes back."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import dns.flags
import dns.message
import msgspec
import pytest

from podplane.dns import config, config_text, relay
from podplane.dns import message as m
from podplane.dns.directory import Directory
from podplane.dns.message import Answer, Question
from podplane.nameserver import forwarder as module
from podplane.nameserver.answers import Answers
from podplane.nameserver.forwarder import TOO_MANY, Forwarder
from podplane.nameserver.machine import Machine
from podplane.nameserver.openers import HostOpener
from podplane.nameserver.randomness import Randomness
from podplane.nameserver.resolver import Client, Resolver
from podplane.nameserver.sources import Sources
from podplane.nameserver.upstream import Means
from podplane.nameserver.upstream_status import upstreams
from podplane.servers.dns_counts import Counts
from tests.unit.virtual_time import virtual

from .fake_upstream import Behaviour, FakeUpstream, deaf, reply, says, silent, upstream

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


async def test_a_dead_server_is_passed_over() -> None:
    async with upstream(deaf) as dead, upstream(says(A)) as alive, forwarder(dead, alive, order="sequential") as made:
        began = asyncio.get_running_loop().time()
        assert lines(await ask(made, "a.example")) == [A]
        assert asyncio.get_running_loop().time() - began < 2
        assert len(dead.heard) == 1


@virtual
async def test_each_question_waits_for_a_dead_server_as_long_as_it_should() -> None:
    async with upstream(deaf) as dead, upstream(says(rcode=3)) as alive, forwarder(dead, alive, order="sequential") as made:
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()

        async def waited(number: int) -> float:
            await asyncio.sleep(0.1 * number)
            began = loop.time()
            assert (await answer(made, f"x{number}.example")).rcode == m.NXDOMAIN
            return loop.time() - began

        found = await asyncio.gather(*map(waited, range(5)))
        assert all(0.29 < seconds < 0.35 for seconds in found), found
        assert len(dead.heard) == len(alive.heard) == 5


async def test_a_server_that_can_not_is_passed_over() -> None:
    for rcode in (2, 4, 5):
        async with (
            upstream(says(rcode=rcode)) as bad,
            upstream(says(A)) as good,
            forwarder(bad, good, order="sequential") as made,
        ):
            assert lines(await ask(made, "a.example")) == [A]


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
async def test_while_no_server_answers_the_last_answer_is_given() -> None:
    answers = [says(A), says(rcode=2), deaf, says(A), says(rcode=3)]
    async with upstream(lambda query, tcp: answers[0](query, tcp)) as one, forwarder(one) as made:
        await ask(made, "a.example")
        for _ in ("it fails", "it is silent"):
            answers.pop(0)
            await asyncio.sleep(61)
            began = asyncio.get_running_loop().time()
            assert lines(await ask(made, "a.example")) == [A.replace("60", "30", 1)]
            assert asyncio.get_running_loop().time() - began < 2
        answers.pop(0)
        await asyncio.sleep(61)
        assert lines(await ask(made, "a.example")) == [A], "it answers again"
        answers.pop(0)
        await asyncio.sleep(61)
        gone = await ask(made, "a.example")
        assert (gone.rcode(), lines(gone)) == (3, []), "it says that there is no such name"


@virtual
async def test_a_name_that_nobody_ever_answered_for_fails_in_time() -> None:
    async with upstream(deaf) as one, upstream(silent) as two, forwarder(one, two) as made:
        began = asyncio.get_running_loop().time()
        found = await answer(made, "a.example")
        assert found.rcode == m.SERVFAIL and "no answer within" in found.source
        assert asyncio.get_running_loop().time() - began < 4.9
        assert len(one.heard) > 1
        heard = len(one.heard)
        assert (await answer(made, "a.example")).rcode == m.SERVFAIL
        assert len(one.heard) == heard, "what failed a moment ago is not tried again"
        await asyncio.sleep(3)
        await answer(made, "a.example")
        assert len(one.heard) > heard


@virtual
async def test_a_server_that_is_down_is_probed_and_used_again() -> None:
    mute = [True]

    def unless_mute(behaviour: Behaviour) -> Behaviour:
        return lambda query, tcp: None if mute[0] else behaviour(query, tcp)

    async with (
        upstream(unless_mute(says(A)), probe=unless_mute(says(rcode=3))) as one,
        upstream(says(A)) as two,
        forwarder(one, two, order="sequential") as made,
    ):
        for i in range(4):
            await ask(made, "a.example", type_="A" if i % 2 else "AAAA")
            await asyncio.sleep(61)
        health = made.groups[0].servers[0].health
        assert (health.is_up, health.last_error) == (False, "no answer within 2 s")
        heard = len(one.heard)
        await ask(made, "a.example")
        assert len(one.heard) == heard, "it is not asked while it is down"
        mute[0] = False
        await asyncio.sleep(9)
        assert health.is_up
        await asyncio.sleep(61)
        await ask(made, "a.example")
        assert len(one.heard) == heard + 1


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


LONG_ZONE = ".".join(["z" * 63] * 3 + ["z" * 58, ""])


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
async def test_what_is_on_its_way_when_its_zone_moves_is_asked_of_the_new_servers() -> None:
    async with upstream(deaf) as one, upstream(says(A)) as two, forwarder(one) as made:
        first = asyncio.ensure_future(ask(made, "a.example"))
        await asyncio.sleep(0.1)
        assert one.names == ["a.example."]
        made.configure(config.Config(upstreams=(one.server,), zones={m.name_of("example"): (two.server,)}))
        assert lines(await first) == [A]
        assert (len(one.heard), len(two.heard)) == (1, 1)


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
async def test_a_port_that_nobody_listens_at_is_no_reason_to_wait() -> None:
    async with upstream(says(A)) as one:
        closed = config.Upstream("127.0.0.1", one.port)
    async with upstream(says(A)) as two, forwarder(two) as made:
        made.configure(config.Config(upstreams=(closed, two.server), order="sequential"))
        began = asyncio.get_running_loop().time()
        assert lines(await ask(made, "a.example")) == [A]
        assert asyncio.get_running_loop().time() - began < 0.1
        made.configure(config.Config(upstreams=(closed,)))
        found = await answer(made, "b.example")
        assert (found.rcode, found.source) == (m.SERVFAIL, f"{closed}: Connection refused")
        assert asyncio.get_running_loop().time() - began < 1.5


ALIASES = [f"a{i}.long-name.example. 60 IN CNAME a{i + 1}.long-name.example." for i in range(7)]
LONG = ALIASES + [f"a7.long-name.example. 60 IN A 192.0.2.{i}" for i in range(40)]


@virtual
@pytest.mark.parametrize("shuffled", [False, True])
async def test_a_long_answer_is_as_long_as_the_client_takes_cold_and_kept(shuffled: bool) -> None:
    async with upstream(says(*(LONG[::-1] if shuffled else LONG))) as one, forwarder(one) as made:
        for limit in (512, 1232, 65535):
            cold, warm = [await raw(made, "a0.long-name.example", limit=limit) for _ in range(2)]
            assert cold[2:] == warm[2:] and len(cold) <= limit
            kept = dns.message.from_wire(warm)
            is_cut = bool(kept.flags & dns.flags.TC)
            assert is_cut == (limit == 512)
            assert len(lines(kept)) == len(LONG) if not is_cut else 8 < len(lines(kept)) < len(LONG)
            assert lines(kept)[:7] == ALIASES
            made.cache.clear()


@virtual
async def test_an_alias_of_the_clusters_leads_to_what_other_servers_say() -> None:
    """ExternalName: into a zone with servers of its own, elsewhere, and to nothing."""
    aliases = {"corp": "x.corp.example", "far": "a.example", "gone": "gone.example"}

    class Cluster:
        def answer(self, question: Question, client: Client, query: m.Query) -> Answer | None:
            if question.name[1:] != (b"svc",):
                return None
            target = m.name_of(aliases[question.name[0].decode()])
            record = m.Record(question.name, m.CNAME, 5, m.written(target))
            return Answer(records=(record,), source="a Service", depends=("service/x",), follow=target)

    corp = "x.corp.example. 60 IN CNAME y.corp.example.", "y.corp.example. 60 IN A 192.0.2.7"
    soa = "example. 600 IN SOA ns.example. host.example. 1 7200 3600 86400 30"

    def far(query: dns.message.Message, tcp: bool) -> list[bytes]:
        name = query.question[0].name.to_text().lower()
        return [(reply(query, A) if name == "a.example." else reply(query, authority=[soa], rcode=3)).to_wire()]

    async with upstream(far) as one, upstream(says(*corp)) as two, forwarder(one) as made:
        made.configure(config.Config(upstreams=(one.server,), zones={m.name_of("corp.example"): (two.server,)}))
        resolver = Resolver([Cluster(), made])
        found = {}
        for name in (*aliases, *aliases):
            query = dns.message.make_query(f"{name}.svc", "A")
            read = m.read_query(query.to_wire())
            answer = resolver.answer(read, Client("10.244.1.2"))
            answer = await answer if inspect.isawaitable(answer) else answer
            found[name] = dns.message.from_wire(relay.rendered(read, answer))
        assert lines(found["corp"]) == ["corp.svc. 5 IN CNAME x.corp.example.", *corp]
        assert lines(found["far"]) == ["far.svc. 5 IN CNAME a.example.", A]
        assert (found["gone"].rcode(), lines(found["gone"])) == (3, ["gone.svc. 5 IN CNAME gone.example."])
        assert found["gone"].authority[0].to_text() == soa.replace("600", "30", 1)
        assert (one.names, two.names) == (["a.example.", "gone.example."], ["x.corp.example."])


@virtual
async def test_a_zones_server_does_not_speak_for_names_of_others() -> None:
    """Behind an alias, the cluster's names and other zones' are asked for by our own rules."""

    class Cluster:
        def answer(self, question: Question, client: Client, query: m.Query) -> Answer | None:
            if question.name[-1:] != (b"local",):
                return None
            record = m.Record(question.name, m.A, 5, bytes((10, 96, 0, 1)))
            return Answer(records=(record,), source="a Service", depends=("service/x",))

    targets = {
        "in": "web.local.",
        "zone": "x.corp.example.",
        "away": "a.example.",
        "known": "b.example.",
        "back": "back.evil.example.",
    }

    def evil(query: dns.message.Message, tcp: bool) -> list[bytes]:
        name = query.question[0].name.to_text().lower()
        target = targets.get(name.split(".")[0], "x.corp.example.")
        more = () if name.startswith("away") else (f"{target} 3600 IN A 6.6.6.6",)
        return [reply(query, f"{name} 60 IN CNAME {target}", *more).to_wire()]

    corp = "x.corp.example. 60 IN A 192.0.2.7"
    async with upstream(says(A)) as one, upstream(evil) as two, upstream(says(corp)) as three, forwarder(one) as made:
        zones = {m.name_of("evil.example"): (two.server,), m.name_of("corp.example"): (three.server,)}
        made.configure(config.Config(upstreams=(one.server,), zones=zones))
        resolver = Resolver([Cluster(), made], zones.keys())
        ends = {"in": "web.local. 5 IN A 10.96.0.1", "zone": corp, "away": A, "known": "b.example. 3600 IN A 6.6.6.6"}
        for name in (*ends, *ends):  # asked for, then kept
            read = m.read_query(dns.message.make_query(f"{name}.evil.example", "A").to_wire())
            answer = resolver.answer(read, Client("10.244.1.2"))
            answer = await answer if inspect.isawaitable(answer) else answer
            found = lines(dns.message.from_wire(relay.rendered(read, answer)))
            assert found == [f"{name}.evil.example. 60 IN CNAME {targets[name]}", ends[name]]


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


@virtual
@pytest.mark.parametrize(
    ("targets", "why"), [(range(1, 40), "more than 32 aliases, which is too long"), ((1, 2, 1), "aliases lead in a circle")]
)
async def test_aliases_without_an_end_are_an_error_and_no_fault_of_the_server(targets: Sequence[int], why: str) -> None:
    names = zip((0, *targets), targets, strict=False)
    async with upstream(says(*(f"a{i}.example. 60 IN CNAME a{to}.example." for i, to in names))) as one, forwarder(one) as made:
        for _ in range(2):
            found = await answer(made, "a0.example")
            assert (found.rcode, found.source) == (m.SERVFAIL, f"{one.server}: {why}")
        health = made.groups[0].servers[0].health
        assert (health.is_up, health.failures) == (True, 0)


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


@virtual
@pytest.mark.parametrize("is_down", [False, True])
async def test_whoever_asks_while_servers_are_away_waits_no_longer_than_the_first(is_down: bool) -> None:
    """When they are down not at all; else until the first got what is too old, and then not at all."""
    alive = True

    def says_for_a_while(query: dns.message.Message, tcp: bool) -> list[bytes] | None:
        name = query.question[0].name.to_text().lower()
        is_answered = alive or (name.startswith("x") and not is_down)
        return [reply(query, f"{name} 5 IN A 192.0.2.1").to_wire()] if is_answered else None

    async with upstream(says_for_a_while, probe=says_for_a_while) as one, forwarder(one) as made:
        loop = asyncio.get_running_loop()
        assert (await answer(made, "a.example")).rcode == m.NOERROR
        alive = False
        for number in range(3):
            await answer(made, f"x{number}.example")
        await asyncio.sleep(5)
        health = made.groups[0].servers[0].health
        assert health.is_up is not is_down

        async def waits(after: float) -> float:
            await asyncio.sleep(after)
            began = loop.time()
            found = await answer(made, "a.example")
            assert found.source.startswith("cache, too old") and found.message
            return began - start + loop.time() - began

        start = loop.time()
        ends = await asyncio.gather(*map(waits, (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 4.4, 5.0)))
        if is_down:
            assert ends == pytest.approx([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 4.4, 5.0], abs=0.05)
        else:
            assert ends == pytest.approx([1.8, 1.8, 1.8, 2.0, 3.0, 4.0, 4.4, 5.0], abs=0.05)


@virtual
async def test_who_answers_others_meanwhile_is_not_down() -> None:
    """Of a crowd of questions some are lost on their way: that says nothing about the server."""

    def loses_some(query: dns.message.Message, tcp: bool) -> list[bytes]:
        name = query.question[0].name.to_text().lower()
        return [] if name.startswith("lost") else [reply(query, f"{name} 5 IN A 192.0.2.1").to_wire()]

    async with upstream(loses_some) as one, forwarder(one) as made:
        health = made.groups[0].servers[0].health
        since = health.since
        lost = [asyncio.ensure_future(answer(made, f"lost{number}.example")) for number in range(5)]
        for number in range(20):
            assert (await answer(made, f"a{number}.example")).rcode == m.NOERROR
            await asyncio.sleep(0.5)
        assert [one.rcode for one in await asyncio.gather(*lost)] == [m.SERVFAIL] * 5
        assert health.is_up and health.failed >= 5
        assert health.since == since, "it never was down"

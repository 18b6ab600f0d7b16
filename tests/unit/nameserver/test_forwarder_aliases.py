"""Aliases and long answers of other servers: to their end, and no further than each may speak."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import dns.flags
import dns.message
import pytest

from podplane.dns import config, relay
from podplane.dns import message as m
from podplane.dns.message import Answer, Question
from podplane.nameserver.resolver import Client, Resolver
from tests.unit.virtual_time import virtual

from .fake_upstream import reply, says, upstream
from .forwarding import A, answer, forwarder, lines, raw

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

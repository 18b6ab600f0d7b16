"""Sources one after the other, and aliases to their end: what a source does wrong, and where it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from itertools import pairwise
from unittest.mock import Mock

import dns.flags
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from podplane.dns import message as m
from podplane.dns import responses
from podplane.dns.message import Answer, Name, Question, Record, name_of
from podplane.nameserver.resolver import MAX_ALIASES, Client, Resolver, Source
from podplane.servers.later import Later
from tests.unit.dns.test_responses import read, said

POD = Client("10.244.1.2")


class Aliases:
    """Names that lead to others, one of which has an address."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        self.targets = {name_of(name): name_of(target) for name, target in targets.items()}

    def answer(self, question: Question, client: Client, query: m.Query) -> Answer:
        target = self.targets.get(question.name)
        if target is None:
            return Answer(records=(Record(question.name, m.A, 5, bytes(4)),), source="the end")
        return Answer(records=(Record(question.name, m.CNAME, 5, m.written(target)),), source="a Service", follow=target)


def chain(count: int) -> Aliases:
    return Aliases({f"a{i}": f"a{i + 1}" for i in range(count)})


def asked(name: str, type_: str = "A") -> m.Query:
    return m.read_query(dns.message.make_query(name, type_, id=7).to_wire())


def test_so_many_aliases_are_followed_and_no_more() -> None:
    found = Resolver([chain(MAX_ALIASES)]).answer(asked("a0"), POD)
    assert isinstance(found, Answer)
    assert (found.rcode, len(found.records)) == (m.NOERROR, MAX_ALIASES + 1)
    found = Resolver([chain(MAX_ALIASES + 1)]).answer(asked("a0"), POD)
    assert isinstance(found, Answer)
    assert (found.rcode, found.records) == (m.SERVFAIL, ())
    assert found.source.startswith("more than 8 aliases, which is too long: a Service")


def test_a_circle_is_told_as_one() -> None:
    found = Resolver([Aliases({"a": "b", "b": "a"})]).answer(asked("a"), POD)
    assert isinstance(found, Answer)
    assert (found.rcode, found.source.split(":")[0]) == (m.SERVFAIL, "aliases lead in a circle")


class Broken:
    """Fails for one name."""

    def __init__(self, name: Name) -> None:
        self.name = name

    def answer(self, question: Question, client: Client, query: m.Query) -> None:
        if question.name == self.name:
            raise KeyError(question.name)


class Elsewhere:
    """An alias of another server, which is heard of in a moment."""

    def answer(self, question: Question, client: Client, query: m.Query) -> Awaitable[Answer]:
        later: Later[Answer] = Later()
        alias = said("a.example", "A", ("a.example. 60 IN CNAME b.example.", "b.example. 60 IN A 192.0.2.1"))
        asyncio.get_running_loop().call_soon(later.set, Answer(message=alias, source="elsewhere", aliases=read(alias).aliases))
        return later


async def test_who_waits_hears_of_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A source fails when it is asked whether the target of an alias is its own."""
    found = Resolver([Broken(name_of("b.example")), Elsewhere()]).answer(asked("a.example"), POD)
    assert not isinstance(found, Answer)
    async with asyncio.timeout(5):
        answer = await found
    assert (answer.rcode, answer.source) == (m.SERVFAIL, "a fault of this server")
    assert "no answer to a.example." in caplog.text and "KeyError" in caplog.text


class Far:
    """`x.svc` is an alias of `far.example`, which another server has this response to."""

    def __init__(self, message: bytes) -> None:
        self.reply = read(message)

    def answer(self, question: Question, client: Client, query: m.Query) -> Answer:
        if question.name == name_of("x.svc"):
            target = name_of("far.example")
            return Answer(records=(Record(question.name, m.CNAME, 5, m.written(target)),), source="a Service", follow=target)
        return Answer(self.reply.rcode, source="elsewhere", message=self.reply.message, aliases=self.reply.aliases)


def responded(name: str, source: Source, limit: int, zones: Collection[Name] = (), type_: str = "A") -> bytes:
    query = replace(asked(name, type_), limit=limit)
    found = Resolver([source], zones).answer(query, POD)
    assert isinstance(found, Answer)
    return m.respond(query, found, limit)


SOA = "example. 600 IN SOA ns.example. host.example. 1 7200 3600 86400 30"
RECORDS = {
    "A": st.integers(1, 250).map(lambda i: f"192.0.2.{i}"),
    "MX": st.integers(0, 99).map(lambda i: f"10 m{i}.far.example."),
    "NS": st.integers(0, 99).map(lambda i: f"n{i}.far.example."),
    "TXT": st.integers(0, 90).map(lambda i: f'"{i * "x"}"'),
}
type_and_data = st.sampled_from(sorted(RECORDS)).flatmap(
    lambda type_: st.tuples(st.just(type_), st.lists(RECORDS[type_], max_size=30, unique=True))
)


@given(type_and_data, st.integers(0, 3), st.integers(60, 600))
def test_what_does_not_fit_need_not_be_read(has: tuple[str, list[str]], aliases: int, limit: int) -> None:
    """The response is what it would be if all were read."""
    type_, data = has
    names = ["far.example.", *(f"a{i}.example." for i in range(aliases))]
    chain = [f"{name} 60 IN CNAME {target}" for name, target in pairwise(names)]
    records = [f"{names[-1]} 60 IN {type_} {one}" for one in data]
    source = Far(said("far.example", type_, (*chain, *records), () if data else (SOA,)))
    whole = Resolver([source]).answer(query := asked("x.svc", type_), POD)
    assert isinstance(whole, Answer) and len(whole.records) == 1 + aliases + len(data)
    assert responded("x.svc", source, limit, type_=type_) == m.respond(query, whole, limit)


def many(first: str, *aliases: str) -> Far:
    addresses = (f"{(aliases[-1].split()[-1] if aliases else first)} 60 IN A 10.0.{i >> 8}.{i & 255}" for i in range(3900))
    return Far(said(first, "A", (*aliases, *addresses)))


@pytest.mark.parametrize("aliases", [(), ("far.example. 60 IN CNAME a.example.",)])
def test_of_thousands_of_records_a_datagram_needs_few(aliases: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Mock(wraps=responses._record)
    monkeypatch.setattr(responses, "_record", reading)
    source = many("far.example.", *aliases)
    response = dns.message.from_wire(responded("x.svc", source, 1232))
    assert response.flags & dns.flags.TC and response.answer[-1].name.to_text() == f"{'a' if aliases else 'far'}.example."
    assert reading.call_count < 100
    whole = dns.message.from_wire(responded("x.svc", source, m.TCP_BYTES))
    assert len(whole.answer[-1]) == 3900 <= reading.call_count <= 4000 + 100


def test_an_answer_that_is_passed_on_as_it_is_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source = many("far.example.", "far.example. 60 IN CNAME a.example.")
    monkeypatch.setattr(responses, "_record", Mock(side_effect=AssertionError))
    found = Resolver([source]).answer(asked("far.example"), POD)
    assert isinstance(found, Answer) and found.message == source.reply.message


def test_the_alias_that_is_left_to_others_comes_with_its_signature() -> None:
    signature = "far.example. 60 IN RRSIG CNAME 13 2 60 20300101000000 20200101000000 1 example. AAAA"
    chain = ("far.example. 60 IN CNAME a.other.", signature, "a.other. 60 IN A 192.0.2.66")
    own = Aliases({})
    both = Either({name_of("far.example"): Far(said("far.example", "A", chain))}, own)
    response = dns.message.from_wire(responded("far.example", both, 1232, [name_of("other")]))
    assert [one.to_text() for one in response.answer] == [*chain[:2], "a.other. 5 IN A 0.0.0.0"]


class Either:
    """Some names of one source, all others of another."""

    def __init__(self, names: Mapping[Name, Source], others: Source) -> None:
        self.names, self.others = names, others

    def answer(self, question: Question, client: Client, query: m.Query) -> Answer | Awaitable[Answer] | None:
        return self.names.get(question.name, self.others).answer(question, client, query)

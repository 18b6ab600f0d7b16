"""Sources one after the other, and aliases to their end: what a source does wrong, and where it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import dns.message
import pytest

from podplane.dns import message as m
from podplane.dns.message import Answer, Name, Question, Record, name_of
from podplane.nameserver.resolver import MAX_ALIASES, Client, Resolver
from podplane.servers.later import Later
from tests.unit.dns.test_responses import said

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


def asked(name: str) -> m.Query:
    return m.read_query(dns.message.make_query(name, "A").to_wire())


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
        asyncio.get_running_loop().call_soon(later.set, Answer(message=alias, source="elsewhere"))
        return later


async def test_who_waits_hears_of_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A source fails when it is asked whether the target of an alias is its own."""
    found = Resolver([Broken(name_of("b.example")), Elsewhere()]).answer(asked("a.example"), POD)
    assert not isinstance(found, Answer)
    async with asyncio.timeout(5):
        answer = await found
    assert (answer.rcode, answer.source) == (m.SERVFAIL, "a fault of this server")
    assert "no answer to a.example." in caplog.text and "KeyError" in caplog.text

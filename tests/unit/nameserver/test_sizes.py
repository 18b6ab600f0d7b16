"""Answers near the limits of sizes: with and without EDNS, over both protocols, asked of others and kept (coredns/coredns#6149).

What a client gets does not depend on whether it is kept, is never longer than it takes, and is whole or says that it is not.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Awaitable
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest

from podplane.dns import message as m
from podplane.dns.message import Answer, Query, Record
from podplane.nameserver.answers import LARGE, LARGE_ANSWERS, USUAL_SIZES, Answers, question_of
from podplane.nameserver.resolver import Client
from podplane.servers.dns_counts import Counts

POD = "10.244.1.2"
ALIASES = [f"a{i}.{chr(97 + i) * 48}.example.test." for i in range(8)]
ADDRESSES = [f"192.0.2.{n}" for n in range(1, 21)]


def upstream(query: Query) -> bytes:
    """What a server elsewhere says: seven aliases and twenty addresses."""
    response = dns.message.make_response(dns.message.from_wire(m.HEADER.pack(1, m.RD, 1, 0, 0, 0) + query.asked))
    for alias, target in itertools.pairwise(ALIASES):
        response.answer.append(dns.rrset.from_text(alias, 300, "IN", "CNAME", target))
    response.answer.append(dns.rrset.from_text(ALIASES[-1], 300, "IN", "A", *ADDRESSES))
    wire: bytes = response.to_wire()
    assert 800 < len(wire) < 900
    return wire


class Elsewhere:
    """Passes on what the other server says, at once or later; or has the addresses itself, where `own` is set."""

    def __init__(self, way: str, count: int = 50) -> None:
        self.way, self.count, self.is_private = way, count, False
        self.asked = 0

    def answer(self, query: Query, client: Client) -> Answer | Awaitable[Answer]:
        self.asked += 1
        if self.way == "own":
            records = tuple(Record(query.question.name, m.A, 5, (n + 3221225985).to_bytes(4, "big")) for n in range(self.count))
            return Answer(records=records, depends=("service/x/y",), private=self.is_private)
        answer = Answer(message=upstream(query), authoritative=False, lifetime=300)
        return answer if self.way == "at once" else self._later(answer)

    async def _later(self, answer: Answer) -> Answer:
        await asyncio.sleep(0)
        return answer


async def asked(answers: Answers, size: int | None, *, tcp: bool) -> dns.message.Message:
    query = dns.message.make_query(ALIASES[0], "A", use_edns=False if size is None else 0, payload=size or 0, id=7)
    response: Any = answers.respond(query.to_wire(), POD, tcp=tcp)
    if inspect.isawaitable(response):
        response = await response
    read = dns.message.from_wire(response)
    assert query.is_response(read) and (read.edns < 0) == (size is None)
    assert len(response) <= (65535 if tcp else min(max(size or 512, 512), 1232))
    return read


@pytest.mark.parametrize("way", ["own", "at once", "later"])
@pytest.mark.parametrize("sizes", [(None, 512, 1232, 4096), (4096, 1232, 512, None), (1232, None, 700, 100)])
async def test_each_limit_is_kept_and_what_is_kept_is_the_same(way: str, sizes: tuple[int | None, ...]) -> None:
    source = Elsewhere(way)
    answers = Answers(source, ["10.244.0.0/16"], Counts())
    whole = {str(one) for rrset in (await asked(answers, None, tcp=True)).answer for one in rrset}
    assert len(whole) == (50 if way == "own" else 27)
    for size in sizes:
        cold = await asked(answers, size, tcp=False)
        before = source.asked
        kept = await asked(answers, size, tcp=False)
        over_tcp = await asked(answers, size, tcp=True)
        assert kept == cold and source.asked <= before + 1
        got = {str(one) for rrset in cold.answer for one in rrset}
        assert (got == whole) is not bool(cold.flags & dns.flags.TC) and got <= whole
        assert bool(cold.flags & dns.flags.TC) == (size is None or size < 1232)
        assert {str(one) for rrset in over_tcp.answer for one in rrset} == whole and not over_tcp.flags & dns.flags.TC


def test_one_question_is_kept_under_few_keys_whatever_sizes_it_is_asked_with() -> None:
    queries = [m.Query(1, m.RD, m.asked_of(m.Question((b"a",), m.A)), m.Edns(size)) for size in range(2000)]
    assert len(set(map(question_of, queries))) <= len(USUAL_SIZES) + 7
    for query in queries:
        limit = m.datagram_bytes(query.edns)
        assert (
            query.edns is not None and max(query.edns.size, 512) - 128 < limit <= max(query.edns.size, 512)
        ) or limit == 1232


@pytest.mark.parametrize(("count", "is_private", "times"), [(LARGE + 1, False, 1), (LARGE + 1, True, 4), (LARGE, False, 4)])
async def test_a_large_answer_is_made_once_for_all_sizes_until_its_object_changes(
    count: int, is_private: bool, times: int
) -> None:
    source = Elsewhere("own", count)
    source.is_private = is_private
    answers = Answers(source, ["10.244.0.0/16"], Counts())
    for _ in range(2):
        before = source.asked
        for size in (None, 700, 1232, 4096):
            assert (await asked(answers, size, tcp=False)).flags & dns.flags.TC
        whole = (await asked(answers, 4096, tcp=True)).answer
        assert [len(rrset) for rrset in whole] == [count]
        assert source.asked - before == (times if times == 1 else times + 1)
        source.count = count = count + 1 if count > LARGE else count
        answers.changed("service/x/y")


async def test_few_large_answers_are_kept_and_none_of_another_configuration() -> None:
    source = Elsewhere("own", LARGE + 1)
    answers = Answers(source, ["10.244.0.0/16"], Counts())
    names = [f"n{number}.example.test" for number in range(LARGE_ANSWERS + 1)]
    for payload in (1232, 4096):
        for name in names:
            answers.respond(dns.message.make_query(name, "A", payload=payload).to_wire(), POD)
    assert source.asked == 2 * len(names), "each was the oldest when it was asked for again"
    answers.respond(dns.message.make_query(names[-1], "A", payload=1400).to_wire(), POD)
    assert source.asked == 2 * len(names)
    answers.forget()
    answers.respond(dns.message.make_query(names[-1], "A", payload=1440).to_wire(), POD)
    assert source.asked == 2 * len(names) + 1

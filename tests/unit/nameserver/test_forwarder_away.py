"""Servers that say nothing, fail or are down: who is asked in their place, how long one waits, and what is given meanwhile."""

from __future__ import annotations

import asyncio

import dns.flags
import dns.message
import pytest

from podplane.dns import config
from podplane.dns import message as m
from tests.unit.virtual_time import virtual

from .fake_upstream import Behaviour, deaf, reply, says, silent, upstream
from .forwarding import A, answer, ask, forwarder, lines


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

"""Whether the node's name server answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from podplane.dns import message, protocol
from podplane.dns.message import CHAOS, TXT
from podplane.machine import name_server as module
from podplane.machine.name_server import FAILURES, START_SECONDS, NameServerWatch, asks
from podplane.model.view import View
from tests.plans import node

DUAL = (4, 6)


def watch(told: list[bool]) -> NameServerWatch:
    return NameServerWatch(lambda: View("node1", {"node1": node(1, DUAL)}, {}, {}), told.append)


def test_a_server_that_is_silent_once_answers_still() -> None:
    told: list[bool] = []
    one = watch(told)
    for answered in (True, False, True, *(False,) * (FAILURES - 1), True):
        one._heard(answered, 0.0)
    assert told == [True]


def test_one_that_is_silent_for_long_does_not_and_does_with_its_first_answer() -> None:
    told: list[bool] = []
    one = watch(told)
    for answered in (True, *(False,) * (FAILURES + 2), True, True):
        one._heard(answered, 0.0)
    assert told == [True, False, True]


def test_one_that_has_not_begun_has_time_to() -> None:
    told: list[bool] = []
    one = watch(told)
    for second in range(int(START_SECONDS)):
        one._heard(False, float(second))
    assert told == []
    one._heard(False, START_SECONDS)
    assert told == [False]


@pytest.fixture(params=["127.0.0.1", "::1"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, socket.socket]:
    """An address and a socket that is bound to it, in place of port 53."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    one = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    one.bind((request.param, 0))
    monkeypatch.setattr(module, "PORT", one.getsockname()[1])
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    return request.param, one


async def answering(listener: socket.socket, made: Callable[[bytes], list[bytes]]) -> None:
    loop = asyncio.get_running_loop()
    question, peer = await loop.sock_recvfrom(listener, 512)
    for one in made(question):
        await loop.sock_sendto(listener, one, peer)


async def test_it_is_asked_for_its_name(place: tuple[str, socket.socket]) -> None:
    address, listener = place

    def own_name(question: bytes) -> list[bytes]:
        query = message.read_query(question, tcp=False)
        assert (query.question.type, query.question.class_) == (TXT, CHAOS)
        answer = protocol.answer(query, "podplane", "node1")
        assert answer is not None and answer.records
        return [message.respond(query, answer)]

    with listener:
        server = asyncio.create_task(answering(listener, own_name))
        assert await asks(address)
        await server


async def test_what_is_no_answer_to_it_counts_for_nothing(place: tuple[str, socket.socket]) -> None:
    address, listener = place

    def forged(question: bytes) -> list[bytes]:
        return [b"", b"\0", question, bytes(2) + b"\x80" + question[3:]]

    with listener:
        server = asyncio.create_task(answering(listener, forged))
        assert not await asks(address)
        await server


async def test_nobody_there_is_no_answer(place: tuple[str, socket.socket]) -> None:
    place[1].close()
    assert not await asks(place[0])
    assert not await asks("192.0.2.1" if place[0] == "127.0.0.1" else "2001:db8::1")

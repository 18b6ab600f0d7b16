"""Connections of clients that have not asked yet get little time and little room, and take none of others."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from podplane.apiserver import asgi, connections
from podplane.apiserver.connections import Waiting
from tests.unit.apiserver.live import Live, access_to, live


class Room:
    """Waiting connections, a clock that the test moves, and what was closed."""

    def __init__(self, most: int, most_of_source: int) -> None:
        self.now, self.closed = 0.0, list[str]()
        self.waiting = Waiting(lambda: self.now, most, most_of_source)

    def begin(self, name: str, source: str, seconds: float = 10.0) -> None:
        self.waiting.begin(name, source, seconds, lambda: self.closed.append(name))


async def test_the_oldest_of_who_has_most_makes_room() -> None:
    room = Room(most=4, most_of_source=3)
    for name in ("a1", "a2", "a3", "b1"):
        room.begin(name, name[0])
    room.begin("a4", "a")
    assert room.closed == ["a1"]
    room.begin("b2", "b")
    assert room.closed == ["a1", "a2"]
    room.waiting.end("a3", "a")
    room.waiting.end("a3", "a")
    assert len(room.waiting) == 3


async def test_who_is_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.0)
    room = Room(most=9, most_of_source=9)
    room.begin("early", "a", 5.0)
    room.begin("late", "a", 20.0)
    room.begin("early", "a", 10.0)
    room.now = 9.0
    await asyncio.sleep(0.01)
    assert room.closed == []
    room.now = 10.0
    await asyncio.sleep(0.01)
    assert (room.closed, len(room.waiting)) == (["early"], 1)


@pytest.fixture
async def lab(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """A server that looks often who is late; `patient` says when that is."""
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.01)
    async with live() as made:
        yield made


PATIENCE = (0.15, 0.6, 2.4, 9.6)
"""Seconds, as many as a client on this machine needs to connect."""


def patient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on a client that begins has so long."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS"):
        monkeypatch.setattr(asgi, name, seconds)


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(lab: Live, context: ssl.SSLContext | None) -> Ends:
    return await asyncio.open_connection("127.0.0.1", lab.port, ssl=context)


HEAD = b"GET /version HTTP/1.1\r\nhost: x\r\n"
HALVES = {
    "nothing": b"",
    "half a head": HEAD + b"x-a: ",
    "half a body": b"POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    "half a second head": HEAD + b"\r\n" + HEAD,
}


@pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES)
async def test_who_does_not_go_on_is_closed(lab: Live, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in PATIENCE:
        patient(monkeypatch, seconds)
        try:
            reader, writer = await connect(lab, access_to(lab.port).context())
        except OSError:  # it was late already
            continue
        writer.write(sent)
        assert b"HTTP/1.1 4" not in await asyncio.wait_for(reader.read(), 20)
        writer.close()
        break
    else:
        raise AssertionError("nobody connects in time")


async def test_who_says_nothing_of_tls_is_closed_and_who_asks_is_not(lab: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, asking = await connect(lab, access_to(lab.port).context())
    patient(monkeypatch, PATIENCE[0])
    silent, writer = await connect(lab, None)
    asking.write(HEAD + b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert await asyncio.wait_for(silent.read(), 20) == b""
    await asyncio.sleep(0.2)
    asking.write(HEAD + b"\r\n")
    assert b"HTTP/1.1 200" in await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 200"), 20)
    for one in (writer, asking):
        one.close()


@pytest.mark.parametrize("size", [asgi.MAX_HEAD_BYTES // 2, 3 * asgi.MAX_HEAD_BYTES])
async def test_a_head_that_is_too_large_is_refused(lab: Live, size: int) -> None:
    reader, writer = await connect(lab, access_to(lab.port).context())
    writer.write(HEAD + b"x-a: " + b"a" * size + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.readline(), 20)
    assert answer.startswith(b"HTTP/1.1 200" if size < asgi.MAX_HEAD_BYTES else b"HTTP/1.1 431")
    writer.close()


async def test_who_has_no_token_keeps_no_connection(lab: Live) -> None:
    reader, writer = await connect(lab, access_to(lab.port).context())
    writer.write(b"GET /api HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer
    writer.close()


def protocols() -> int:
    return sum(type(thing) is asgi.Protocol for thing in gc.get_objects())


async def hang_up(lab: Live) -> None:
    _, writer = await connect(lab, None)
    writer.write(b"\x16\x03\x01")  # the begin of TLS
    await writer.drain()
    writer.close()


async def begin_a_websocket(lab: Live) -> None:
    reader, writer = await connect(lab, access_to(lab.port).context())
    key = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    writer.write(HEAD + key + b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 ")
    writer.close()


@pytest.mark.parametrize("come_and_go", [hang_up, begin_a_websocket])
async def test_nothing_of_a_connection_that_ended_waits_for_a_collection_of_garbage(
    lab: Live, come_and_go: Callable[[Live], Awaitable[None]]
) -> None:
    gc.collect()
    gc.disable()
    try:
        before = protocols()
        for _ in range(3):
            await come_and_go(lab)
        for _ in range(1000):
            if protocols() == before:
                break
            await asyncio.sleep(0.02)
        assert protocols() == before
    finally:
        gc.enable()

"""Questions by connections of the loopback: many at once, in pieces, and clients that are slow, silent, or never read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable
from unittest import mock

import pytest

from podplane.servers import dns_tcp
from podplane.servers.dns_counts import Counts
from podplane.servers.dns_tcp import Connection, Connections, TcpServer

HEAD = b"\x01\0\0\x01\0\0\0\0\0\0"


def question(id_: int, label: bytes = b"web", filler: int = 0) -> bytes:
    """A message with its length before it. What the label says decides how it is answered."""
    data = id_.to_bytes(2, "big") + HEAD + bytes((len(label),)) + label + b"\0\0\x01\0\x01" + bytes(filler)
    return len(data).to_bytes(2, "big") + data


class Rig:
    """A server. `slow` is answered when it is released, `long` with 40 KB, `no` not at all; all else at once."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.at = self.listener.getsockname()
        self.release = asyncio.Event()
        self.waits = asyncio.Event()
        self.counts = Counts()
        self.lane = self.counts.lane("node1", "tcp", 4)
        self.connections = Connections(total=8, of_client=5, held_bytes=150_000)
        self.server = TcpServer(self.listener, self.respond, self.counts, self.lane, self.connections)
        self._stack = contextlib.AsyncExitStack()

    def respond(self, data: bytes, ip: str) -> bytes | Awaitable[bytes | None] | None:
        assert ip.startswith("127.0.0.")
        if data[13:17] == b"slow":
            return self._later(data)
        return None if data[13:15] == b"no" else self._answered(data)

    async def _later(self, data: bytes) -> bytes:
        self.waits.set()
        await self.release.wait()
        return self._answered(data)

    @staticmethod
    def _answered(data: bytes) -> bytes:
        return data[:2] + b"\x81" + data[3:] + bytes(40_000 if data[13:17] == b"long" else 0)

    async def open(self, ip: str = "127.0.0.1") -> Client:
        reader, writer = await asyncio.open_connection(*self.at, local_addr=(ip, 0))
        self._stack.push_async_callback(self._close, writer)
        return Client(reader, writer)

    @staticmethod
    async def _close(writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def close(self) -> None:
        await self._stack.aclose()
        self.server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ids(self, count: int) -> list[int]:
        """The ids of the next responses."""
        found = []
        for _ in range(count):
            length = int.from_bytes(await asyncio.wait_for(self.reader.readexactly(2), 30), "big")
            data = await self.reader.readexactly(length)
            found.append(int.from_bytes(data[:2], "big"))
        return found

    async def is_closed(self) -> bool:
        """Is it, from the other end? Waits until it is."""
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.wait_for(self.reader.read(), 30) == b""
        return True


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.close()


async def test_questions_one_after_the_other_and_all_at_once(rig: Rig) -> None:
    client = await rig.open()
    for i in range(3):
        client.writer.write(question(i))
        assert await client.ids(1) == [i]
    client.writer.write(b"".join(map(question, range(1000))))
    assert await client.ids(1000) == list(range(1000))
    assert sum(rig.lane.by_kind) == rig.lane.durations.count == 1003


async def test_a_question_in_pieces(rig: Rig) -> None:
    client = await rig.open()
    for byte in question(1) + question(2):
        client.writer.write(bytes((byte,)))
        await asyncio.sleep(0)
    assert await client.ids(2) == [1, 2]


async def test_the_longest_message(rig: Rig) -> None:
    client = await rig.open()
    longest = question(5, filler=65535 - len(question(5)) + 2)
    assert longest[:2] == b"\xff\xff"
    client.writer.write(longest + question(6))
    assert await client.ids(2) == [5, 6]
    assert rig.connections.held_bytes == 0


async def test_nobody_waits_for_the_answer_to_another_question(rig: Rig) -> None:
    client = await rig.open()
    client.writer.write(question(1, b"slow") + question(2) + question(3))
    assert await client.ids(2) == [2, 3]
    rig.release.set()
    assert await client.ids(1) == [1]


async def test_who_asks_no_more_still_gets_its_answers(rig: Rig) -> None:
    client = await rig.open()
    client.writer.write(question(1, b"slow") + question(2, b"long"))
    client.writer.write_eof()
    await asyncio.wait_for(rig.waits.wait(), 30)
    rig.release.set()
    assert await client.ids(2) == [2, 1]
    assert await client.is_closed() and len(rig.connections) == 0


async def test_what_is_no_question_ends_the_connection(rig: Rig) -> None:
    client = await rig.open()
    client.writer.write(question(1) + question(2, b"no") + question(3))
    assert await client.ids(1) == [1]
    assert await client.is_closed() and rig.lane.silent == 1


async def test_questions_that_wait_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_tcp, "WAITING", 3)
    client = await rig.open()
    client.writer.write(b"".join(question(i, b"slow") for i in range(3)) + question(3))
    await asyncio.wait_for(rig.waits.wait(), 30)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.05)
    rig.release.set()
    assert sorted(await client.ids(4)) == [0, 1, 2, 3]


async def test_a_client_that_does_not_read_is_not_read_from(rig: Rig) -> None:
    client = await rig.open()
    questions = b"".join(question(i, b"long") for i in range(400))  # 16 MB of answers, more than sockets take
    client.writer.write(questions)
    other = await rig.open("127.0.0.2")
    for i in range(5):
        other.writer.write(question(i))
        assert await other.ids(1) == [i]
        assert rig.connections.held_bytes < 150_000
    assert sum(rig.lane.by_kind) < 405
    assert await client.ids(400) == list(range(400))


async def test_one_client_does_not_take_the_connections_of_others(rig: Rig) -> None:
    other = await rig.open("127.0.0.2")
    many = [await rig.open() for _ in range(6)]
    assert await many[0].is_closed(), "the one that was idle longest"
    for one in (other, *many[1:]):
        one.writer.write(question(9))
        assert await one.ids(1) == [9]


async def test_outsiders_have_as_many_as_one_client(rig: Rig) -> None:
    rig.connections._is_inside = lambda ip: ip == "127.0.0.1"
    own = [await rig.open() for _ in range(3)]
    for n in range(9):
        await rig.open(f"127.0.0.{2 + n}")
    for one in own:
        one.writer.write(question(1))
        assert await one.ids(1) == [1]
    assert len(rig.connections) == 3 + 5


async def test_connections_are_bounded_in_total_and_those_of_use_stay(rig: Rig) -> None:
    first, second = await rig.open("127.0.0.2"), await rig.open("127.0.0.3")
    await asyncio.sleep(0)
    first.writer.write(question(1))
    assert await first.ids(1) == [1]
    for n in range(7):
        await rig.open(f"127.0.0.{10 + n}")
    assert await second.is_closed() and len(rig.connections) == 8
    first.writer.write(question(2))
    assert await first.ids(1) == [2]


async def test_what_is_held_is_bounded(rig: Rig) -> None:
    clients = [await rig.open(f"127.0.0.{2 + n}") for n in range(4)]
    for client in clients:
        client.writer.write(b"\xff\xff" + bytes(50_000))
    assert await clients[0].is_closed() or await clients[1].is_closed()
    assert rig.connections.held_bytes <= 150_000
    clients[3].writer.write(bytes(15_535) + question(3))
    assert 3 in await clients[3].ids(2)


async def test_silent_and_slow_clients_are_closed_and_those_that_wait_are_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_tcp, "SWEEP_SECONDS", 0.01)
    waits, silent, slow, never_reads = [await rig.open(f"127.0.0.{n}") for n in (2, 3, 4, 5)]
    waits.writer.write(question(1, b"slow"))
    await asyncio.wait_for(rig.waits.wait(), 30)
    monkeypatch.setattr(dns_tcp, "IDLE_SECONDS", 0.05)
    slow.writer.write(b"\0\x20\0")
    never_reads.writer.write(b"".join(question(i, b"long") for i in range(400)))
    assert await silent.is_closed() and await slow.is_closed()
    while len(rig.connections) > 1:  # noqa: ASYNC110  # nobody says when
        await asyncio.sleep(0.01)
    rig.release.set()
    assert await waits.ids(1) == [1]
    assert rig.connections.held_bytes == 0


async def test_close_takes_no_more(rig: Rig) -> None:
    rig.server.close()
    rig.server.close()
    with pytest.raises(ConnectionRefusedError):
        await rig.open()


def made(rig: Rig, client: str, asked: list[bytes]) -> tuple[Connection, mock.Mock]:
    """A connection without a socket, whose questions are answered with nothing, and noted down; and its transport."""

    def respond(data: bytes, ip: str) -> bytes:
        asked.append(data)
        return data

    transport = mock.Mock(asyncio.Transport, **{"is_closing.return_value": False, "get_write_buffer_size.return_value": 0})
    connection = Connection(client, respond, rig.counts, rig.lane, rig.connections)
    connection.connection_made(transport)
    return connection, transport


def receive(connection: Connection, data: bytes) -> None:
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


async def turns(asked: list[bytes], count: int) -> None:
    """Turns of the loop, until so many were asked."""
    while len(asked) < count:  # noqa: ASYNC110  # nobody says when
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0.0, 60.0])
async def test_who_asks_much_at_once_has_no_more_turns_than_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(dns_tcp, "WORK_SECONDS", seconds)
    asked: list[bytes] = []
    for i in range(4):
        receive(made(rig, "10.244.1.2", asked)[0], b"".join(question(100 * i + n) for n in range(50)))
    receive(made(rig, "10.244.1.3", asked)[0], question(1000) + question(1001))
    assert asked == [], "as many at one go as whoever wants may send"
    await turns(asked, 202)
    ids = [int.from_bytes(data[:2], "big") for data in asked]
    assert ids[:8] == [0, 1000, 100, 1001, 200, 300, 1, 101]


async def test_a_turn_of_the_loop_is_short_whatever_came(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_tcp, "WORK_SECONDS", 0.0)
    asked: list[bytes] = []
    connection, transport = made(rig, "10.244.1.2", asked)
    receive(connection, b"".join(question(n) for n in range(20)))
    transport.pause_reading.assert_not_called()
    for n in range(3):
        assert len(asked) == n
        await asyncio.sleep(0)
    receive(connection, question(20))
    transport.pause_reading.assert_called_once()
    transport.resume_reading.assert_not_called()
    await turns(asked, 21)
    await asyncio.sleep(0)
    transport.resume_reading.assert_called()
    assert b"".join(call.args[0] for call in transport.write.call_args_list) == b"".join(question(n) for n in range(21))


@pytest.mark.parametrize("is_lost", [False, True])
async def test_who_is_gone_gets_no_answers(rig: Rig, monkeypatch: pytest.MonkeyPatch, is_lost: bool) -> None:
    monkeypatch.setattr(dns_tcp, "WORK_SECONDS", 0.0)
    asked: list[bytes] = []
    gone, transport = made(rig, "10.244.1.2", asked)
    receive(gone, b"".join(question(n) for n in range(20)))
    other, _ = made(rig, "10.244.1.2", asked)
    await turns(asked, 1)
    if is_lost:
        gone.connection_lost(None)
    else:
        transport.is_closing.return_value = True  # a write failed
    receive(other, question(99))
    await turns(asked, 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert 99 in [int.from_bytes(data[:2], "big") for data in asked] and len(asked) <= 3

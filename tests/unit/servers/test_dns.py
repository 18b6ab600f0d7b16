"""Questions as datagrams over the loopback: kept answers, answers one by one, and answers that others are asked for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping

import pytest

from podplane.kernel.datagrams import COUNT, Datagrams, Outgoing
from podplane.kernel.socket_filter import limit
from podplane.servers import crowd, dns
from podplane.servers.dns import UdpServer
from podplane.servers.dns_counts import Counts
from podplane.servers.turns import Turns

QUESTION = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01"


def answered(data: bytes, word: bytes = b"") -> bytes:
    """Something that has the form of a response."""
    return data[:2] + b"\x81\x80" + data[4:] + word


class Keeper:
    """Kept answers, and a way to answer all else."""

    def __init__(self) -> None:
        self.senders: dict[bytes, bytes] = {}
        self.replies: dict[bytes, tuple[bytes, int, object]] = {}
        self.asked: list[tuple[bytes, str]] = []
        self.waits, self.release = asyncio.Event(), asyncio.Event()

    def respond(self, data: bytes, ip: str) -> bytes | Awaitable[bytes | None] | None:
        self.asked.append((data, ip))
        if data[12:16] == b"\x03web":
            return answered(data, b"slow")
        return self._later(data) if data[12:] else None

    async def _later(self, data: bytes) -> bytes | None:
        self.waits.set()
        await self.release.wait()
        return answered(data, b"late") if data[12:] != b"never" else None


class Rig:
    def __init__(self) -> None:
        self.keeper = Keeper()
        self.counts = Counts()
        self.lane = self.counts.lane("node1", "udp", 4)
        bound, self.client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for one in (bound, self.client):
            one.bind(("127.0.0.1", 0))
        self.client.setblocking(False)
        self.at = bound.getsockname()
        self.server = UdpServer(
            bound, Datagrams(4), Outgoing().send, limit, self.keeper, self.keeper.respond, self.counts, self.lane
        )

    def send(self, *datagrams: bytes) -> None:
        for one in datagrams:
            self.client.sendto(one, self.at)

    async def received(self, count: int) -> list[bytes]:
        loop = asyncio.get_running_loop()
        return [await asyncio.wait_for(loop.sock_recv(self.client, 4096), 20) for _ in range(count)]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    made.server.close()
    made.client.close()


async def test_a_fault_at_one_question_keeps_no_other_from_its_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "WORK_SECONDS", 0)
    respond = rig.keeper.respond

    def fails(data: bytes, ip: str) -> bytes | Awaitable[bytes | None] | None:
        if data[:2] == b"no":
            raise RuntimeError("of a test")
        return respond(data, ip)

    monkeypatch.setattr(rig.server, "_respond", fails)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    rig.send(*(id_ + QUESTION[2:] for id_ in (b"no", b"a1", b"no", b"a2")))
    assert [one[:2] for one in await rig.received(2)] == [b"a1", b"a2"]
    rig.send(b"a3" + QUESTION[2:])
    assert [one[:2] for one in await rig.received(1)] == [b"a3"]


async def test_each_way_of_answering(rig: Rig) -> None:
    rig.keeper.senders[socket.inet_aton("127.0.0.1")] = b"!"
    rig.keeper.replies[QUESTION[2:-2] + b"\0\x03"] = (answered(QUESTION, b"kept")[2:], 3, ())
    late = QUESTION[:12] + b"\x04late\0\0\x01\0\x01"
    rig.send(late, QUESTION, QUESTION[:-2] + b"\0\x03", QUESTION[:12])
    assert await rig.received(2) == [answered(QUESTION, b"kept"), answered(QUESTION, b"slow")]
    rig.keeper.release.set()
    assert await rig.received(1) == [answered(late, b"late")]
    assert [ip for _, ip in rig.keeper.asked] == ["127.0.0.1"] * 3


async def test_all_of_them_are_counted(rig: Rig) -> None:
    rig.keeper.senders[socket.inet_aton("127.0.0.1")] = b"!"
    rig.keeper.replies[QUESTION[2:-2] + b"\0\x03"] = (answered(QUESTION, b"kept")[2:], 1, ())
    rig.send(QUESTION[:-2] + b"\0\x03", QUESTION, QUESTION[:12])
    got = await rig.received(2)
    assert rig.lane.silent == 1
    assert rig.lane.request_bytes == 2 * len(QUESTION) + 12 and rig.lane.response_bytes == sum(map(len, got))
    assert sum(rig.lane.by_kind) == rig.lane.durations.count == 2


async def test_more_than_can_be_read_at_one_go(rig: Rig) -> None:
    rig.keeper.senders[socket.inet_aton("127.0.0.1")] = b"!"
    rig.keeper.replies[QUESTION[2:]] = (answered(QUESTION, b"kept")[2:], 1, ())
    rig.send(*[QUESTION] * (3 * COUNT))
    assert await rig.received(3 * COUNT) == [answered(QUESTION, b"kept")] * (3 * COUNT)


async def test_nobody_waits_for_what_is_asked_of_others(rig: Rig) -> None:
    rig.send(QUESTION[:12] + b"never", QUESTION[:12] + b"\x04late\0\0\x01\0\x01", QUESTION)
    assert (await rig.received(1))[0].endswith(b"slow")
    rig.keeper.release.set()
    assert (await rig.received(1))[0].endswith(b"late")
    assert rig.lane.silent == 1


async def test_close_ends_what_is_still_asked_and_may_come_twice(rig: Rig) -> None:
    rig.send(QUESTION[:12] + b"\x04late\0\0\x01\0\x01")
    await asyncio.wait_for(rig.keeper.waits.wait(), 20)
    rig.server.close()
    rig.server.close()
    rig.keeper.release.set()
    await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        rig.client.recv(1)


async def test_who_asks_too_much_loses_its_own_questions_and_nobody_elses(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.server, "_turns", Turns(100, 10))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))
        other.setblocking(False)
        rig.send(*[QUESTION] * 50)
        other.sendto(QUESTION, rig.at)
        rig.send(*[QUESTION] * 50)
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(other, 512), 20)
        assert answer.endswith(b"slow")
    assert await rig.received(10) == [answered(QUESTION, b"slow")] * 10
    assert rig.lane.silent == 90 and [ip for _, ip in rig.keeper.asked][:3] == ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
    rig.send(QUESTION)
    assert await rig.received(1) == [answered(QUESTION, b"slow")], "and is answered as soon as it asks less"


async def test_questions_that_wait_are_bounded_in_all(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is answered before it has to wait."""
    monkeypatch.setattr(rig.server, "_turns", Turns(20, 100))
    monkeypatch.setattr(dns, "WORK_SECONDS", 0.0)
    rig.send(*[QUESTION] * 30)
    assert len(await rig.received(21)) == 21
    assert rig.lane.silent == 9


async def test_others_have_a_turn_while_questions_wait(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "WORK_SECONDS", 0.0)
    rig.send(*[QUESTION] * 5)
    turns = 0
    while len(rig.keeper.asked) < 5:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 5 and len(await rig.received(5)) == 5
    rig.send(*[QUESTION] * 5)
    for _ in range(3):
        await asyncio.sleep(0)
    rig.server.close()
    asked = len(rig.keeper.asked)
    await asyncio.sleep(0.01)
    assert len(rig.keeper.asked) == asked < 10


async def test_who_sends_more_than_can_be_read_keeps_nobody_from_the_socket(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rush is as long as it takes until the kernel lets in a part of it only; then none of who sends little is lost."""
    monkeypatch.setattr(dns, "BATCHES", 1)
    monkeypatch.setattr(crowd, "CROWD_SECONDS", 0.0)
    monkeypatch.setattr(crowd, "FULL_PART", 0.0)
    monkeypatch.setattr(crowd, "LOOK_SECONDS", 1e9)
    monkeypatch.setattr(crowd, "LEAST", 0.0)
    limits: list[Mapping[bytes, float]] = []

    def limited(bound: socket.socket, parts: Mapping[bytes, float]) -> None:
        limits.append(parts)
        limit(bound, parts)

    monkeypatch.setattr(rig.server._crowd, "_limit", limited)
    monkeypatch.setattr(rig.server._crowd, "_room", 1.0)  # so that few are let in
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))
        other.setblocking(False)
        while not limits:
            rig.send(*[QUESTION] * (COUNT + 1))
            await asyncio.sleep(0)
        assert set(limits[-1]) == {socket.inet_aton("127.0.0.1")}
        await asyncio.sleep(0.01)
        for _ in range(20):
            rig.send(*[QUESTION] * 500)  # more than the socket has room for
            other.sendto(QUESTION, rig.at)
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(other, 512), 20)
            assert answer.endswith(b"slow")
        assert [ip for _, ip in rig.keeper.asked].count("127.0.0.1") < 5000
        assert sum(one() for one in rig.lane.dropped) > 5000
        rig.server.close()
        assert len(limits) == 2 and not limits[-1], "the socket takes all again"
        assert not rig.lane.dropped

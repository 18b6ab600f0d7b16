"""Batches of datagrams from where nothing can be sent to, and from the server itself: others are answered, and nothing goes in circles."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from podplane.dns import message as m
from podplane.dns.message import Answer, Query, name_of
from podplane.kernel.datagrams import Datagrams, Outgoing
from podplane.kernel.socket_filter import limit
from podplane.nameserver.answers import Answers
from podplane.nameserver.resolver import Client
from podplane.servers.dns import UdpServer
from podplane.servers.dns_counts import Counts
from tests.kernel.pods import command

pytestmark = pytest.mark.kernel
SERVER = ("127.0.0.1", 53)
QUESTION = m.HEADER.pack(7, m.RD, 1, 0, 0, 0) + m.written(name_of("web.test")) + m.TAIL.pack(m.A, 1)
BROKEN = m.HEADER.pack(7, m.RD, 9, 0, 0, 0)


class Nothing:
    """Every name exists, and has nothing."""

    def answer(self, query: Query, client: Client) -> Answer:
        return Answer(depends=("x",))


def forged(source: tuple[str, int], data: bytes) -> None:
    """A datagram to the server that says to be from there."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        udp = struct.pack("!4H", source[1], SERVER[1], 8 + len(data), 0) + data
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
        raw.sendto(ip + socket.inet_aton(source[0]) + socket.inet_aton(SERVER[0]) + udp, SERVER)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize(
    ("source", "answered", "silent"),
    [
        (("127.0.0.1", 0), 9, 0),
        (SERVER, 9, 6),  # answers to itself, which get none
        (("255.255.255.255", 9), 9, 0),
    ],
)
def test_who_cannot_be_answered_keeps_nobody_from_an_answer(
    source: tuple[str, int], answered: int, silent: int, is_kept: bool
) -> None:
    command("ip link set lo up")

    async def ask() -> None:
        counts = Counts()
        lane = counts.lane("node1", "udp", 4)
        answers = Answers(Nothing(), ["127.0.0.0/8"], counts)
        bound, asking = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        bound.bind(SERVER)
        asking.setblocking(False)
        asking.connect(SERVER)
        server = UdpServer(bound, Datagrams(4), Outgoing().send, limit, answers, answers.respond, counts, lane)
        loop = asyncio.get_running_loop()
        if is_kept:
            asking.send(QUESTION)
            await asyncio.wait_for(loop.sock_recv(asking, 512), 20)
        before = sum(lane.by_kind)
        for _ in range(3):
            forged(source, QUESTION)
            forged(source, BROKEN)
            asking.send(QUESTION)
        for _ in range(3):
            assert (await asyncio.wait_for(loop.sock_recv(asking, 512), 20))[:2] == QUESTION[:2]
        for _ in range(1000):
            if lane.silent == silent:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert (sum(lane.by_kind) - before, lane.silent) == (answered, silent)
        server.close()
        asking.close()

    asyncio.run(ask())

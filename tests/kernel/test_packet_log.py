"""NFLOG on a real kernel: what rules log is read, as it was sent; one reader a group; what a flood loses is counted."""

from __future__ import annotations

import contextlib
import select
import socket
import struct

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.errors import KernelError
from podplane.kernel.namespace import CurrentNamespace, Namespace
from podplane.kernel.opener import KernelOpener
from podplane.kernel.parts import PacketLog
from podplane.state.network import Link
from podplane.state.nft import DROP, Chain, Hook, Limit, Log, NamedCounter, Rule, Table
from podplane.state.nft_rules import count_in, rule, verdict
from podplane.state.operations import Operation
from podplane.state.packet_log import LoggedPacket

pytestmark = pytest.mark.kernel
PLACE = {"family": "inet", "table": "podplane-test"}
GROUP = 80
LOG = (Log(group=GROUP, prefix="in"),)


def logging(*rules: Rule) -> Kernel:
    """A kernel whose input hook logs and drops."""
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    hits, told = (NamedCounter(**PLACE, name=name) for name in ("hits", "told"))
    chain = Chain(**PLACE, name="input", hook=Hook("filter", "input", 0), rules=(*rules, rule(count_in("hits"), verdict(DROP))))
    values = (Link(name="lo"), Table(**PLACE), hits, told, chain)
    assert not kernel.apply([Operation(None, value) for value in values]).failed
    return kernel


def read(log: PacketLog, count: int) -> list[LoggedPacket]:
    """So many packets."""
    found: list[LoggedPacket] = []
    while len(found) < count:
        assert select.select([log.fileno()], [], [], 10)[0], found
        found += log.packets()
    return found


def send(to: str, port: int, count: int = 1) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        for _ in range(count):
            client.sendto(b"x", (to, port))


def ping(to: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as client:
        client.sendto(struct.pack(">BBHHH", 8, 0, 0xF7FF, 0, 0), (to, 0))


def test_what_is_logged_is_read_as_it_was_sent() -> None:
    log = logging(rule(LOG)).packet_log(GROUP)
    send("127.0.0.1", 53)
    send("::1", 5353)
    ping("127.0.0.1")
    with socket.socket(socket.AF_INET) as client:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", 80))
        found = read(log, 4)
    assert found == [
        LoggedPacket("in", "127.0.0.1", "127.0.0.1", "udp", 53),
        LoggedPacket("in", "::1", "::1", "udp", 5353),
        LoggedPacket("in", "127.0.0.1", "127.0.0.1", "icmp", 0),
        LoggedPacket("in", "127.0.0.1", "127.0.0.1", "tcp", 80),
    ]
    assert log.packets() == []


def test_a_group_has_one_reader_and_another_one_after_it() -> None:
    kernel = logging(rule(LOG))
    log = kernel.packet_log(GROUP)
    with pytest.raises(KernelError, match="read packets of NFLOG group 80"):
        kernel.packet_log(GROUP)
    log.close()
    send("127.0.0.1", 1)
    with_another = kernel.packet_log(GROUP)
    send("127.0.0.1", 2)
    assert [one.port for one in read(with_another, 1)] == [2], "what nobody reads is not kept"


def test_a_limit_tells_some_and_the_counters_say_how_many_there_were() -> None:
    limited = (Limit(rate=100, unit=1, burst=100), *count_in("told"), *LOG)
    kernel = logging(Rule(limited))
    log = kernel.packet_log(GROUP)
    send("127.0.0.1", 9, 5000)
    counts = kernel.counts("inet", "podplane-test", ("hits", "told", "nothing"))
    assert counts["hits"] == 5000 and 100 <= counts["told"] < 5000 and counts.keys() == {"hits", "told"}
    assert len(read(log, counts["told"])) == counts["told"]


def test_a_reader_that_does_not_read_loses_packets_and_goes_on() -> None:
    log = logging(rule(LOG)).packet_log(GROUP)
    send("127.0.0.1", 9, 20_000)
    send("127.0.0.1", 10)
    found: list[LoggedPacket] = []
    while not found or found[-1].port != 10:
        found += read(log, 1)
        send("127.0.0.1", 10)
    assert 1000 < len(found) < 20_000


def test_whether_the_kernel_can_log_is_tried_once_for_all_doors_of_an_opener() -> None:
    kernel = logging(rule(LOG))
    log = kernel.packet_log(GROUP)
    kernel.check_packet_log(GROUP)
    send("127.0.0.1", 1)
    assert [one.port for one in read(log, 1)] == [1], "the reader that is there stays"

    class Untried(KernelOpener):
        def packet_log(self, namespace: Namespace, group: int) -> PacketLog:
            asked.append(group)
            return super().packet_log(namespace, group)

    asked: list[int] = []
    opener = Untried()
    for _ in range(2):
        with contextlib.closing(Kernel(CurrentNamespace(), opener)) as door:
            door.check_packet_log(GROUP)
    assert asked == [GROUP]

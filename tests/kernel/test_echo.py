"""Echo requests of a node on the real kernel; and a route that is withdrawn, which refuses at once."""

from __future__ import annotations

import errno
import ipaddress
import socket
import subprocess
import time

import pytest

from podplane.kernel.announce import checksum
from podplane.kernel.door import Kernel
from podplane.kernel.echo import HEADER, REPLY, REQUEST, Echo
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.kernel.parts import Answer
from podplane.model.config import ROUTE_PROTOCOL
from podplane.routes.withdrawal import withdrawn
from podplane.state.network import Address, Link, Peer, Route
from podplane.state.operations import Operation
from podplane.state.value import Fragment, fragment, network_of
from tests.plans import BLOCK, node

pytestmark = pytest.mark.kernel
OWN, THEIRS = {4: "192.168.1.10", 6: "fd00:192:168:1::10"}, {4: "192.168.1.11", 6: "fd00:192:168:1::11"}
NOBODYS = {4: "192.168.1.99", 6: "fd00:192:168:1::99"}


class Two:
    """This namespace, and another one at the far end of a cable."""

    def __init__(self) -> None:
        subprocess.run(["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"], check=True)
        self.far = NetworkNamespace.create(Workers(1))
        self.kernel = Kernel(CurrentNamespace(), KernelOpener())
        self.kernel.attach("far", self.far)
        ends = [Link(name="eth0", kind="veth", peer=Peer(netns="far", name="eth0")), Link(name="lo")]
        ends += [Link(netns="far", name="eth0"), Link(netns="far", name="lo")]
        ips = [Address(link="eth0", ip=ipaddress.ip_address(ip), prefix_length=24 if v == 4 else 64) for v, ip in OWN.items()]
        ips += [
            Address(netns="far", link="eth0", ip=ipaddress.ip_address(ip), prefix_length=24 if v == 4 else 64)
            for v, ip in THEIRS.items()
        ]
        self.put(*ends, *ips)

    def put(self, *values: Link | Address | Route) -> None:
        report = self.kernel.apply([Operation(None, value) for value in values])
        assert not report.failed, [str(failure) for failure in report.failed]


def answers(echo: Echo, count: int, seconds: float = 3.0) -> list[Answer]:
    """So many answers, or those that came in time."""
    found: list[Answer] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += echo.receive()
        time.sleep(0.005)
    return found


def awaited(echo: Echo, ip: str) -> None:
    """Ask until it answers: IPv6 takes packets some milliseconds after an address was added."""
    for sequence in range(100, 150):
        if echo.send(ip, sequence) and answers(echo, 1, seconds=0.2):
            return
    raise AssertionError(f"{ip} does not answer")


@pytest.mark.parametrize("version", [4, 6])
def test_whoever_has_the_address_answers_and_the_time_is_that_of_the_kernel(version: int) -> None:
    two, echo = Two(), Echo()
    awaited(echo, THEIRS[version])
    assert echo.send(THEIRS[version], 65535) and echo.send(NOBODYS[version], 3)
    time.sleep(0.3)  # whoever reads late is told the same
    (answer,) = echo.receive()
    assert (answer.ip, answer.sequence) == (THEIRS[version], 65535) and 0 < answer.seconds < 0.2
    assert list(echo.receive()) == []
    echo.close()
    del two


@pytest.mark.parametrize("version", [4, 6])
def test_answers_to_others_are_not_even_put_into_the_socket(version: int) -> None:
    two, one, other = Two(), Echo(), Echo()
    while other._identifier == one._identifier:
        other = Echo()
    awaited(one, THEIRS[version])
    forged = Echo()  # of the same identifier: somebody who looks on may send it, but has not got the key
    forged._identifier = one._identifier
    assert forged.send(THEIRS[version], 8)
    time.sleep(0.1)
    assert list(one.receive()) == []
    assert [select_of(other._sockets[version]), list(other.receive())] == [False, []]
    del two


@pytest.mark.parametrize("version", [4, 6])
def test_who_sees_requests_to_one_address_cannot_answer_for_another(version: int) -> None:
    two, echo = Two(), Echo()
    other = ipaddress.ip_address(THEIRS[version]) + 1
    two.put(Address(netns="far", link="eth0", ip=other, prefix_length=24 if version == 4 else 64))
    awaited(echo, THEIRS[version])
    awaited(echo, str(other))
    family, protocol = (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    seen = two.far.run(socket.socket, family, socket.SOCK_RAW, protocol)
    assert echo.send(THEIRS[version], 8) and len(answers(echo, 1)) == 1
    packets = iter(lambda: seen.recv(200)[20 if version == 4 else 0 :], b"")
    request = next(packet for packet in packets if packet[0] == REQUEST[version])  # neighbours speak ICMPv6, too
    for ip, at, is_taken in ((THEIRS[version], 0, True), (str(other), 0, False), (THEIRS[version], 1, False)):
        _answer_as(two, ip, request, at)
        assert [(one.ip, one.sequence) for one in answers(echo, 1, seconds=0.3)] == ([(ip, 8)] if is_taken else [])
    seen.close()
    echo.close()


def _answer_as(two: Two, ip: str, request: bytes, later: int) -> None:
    """Answer a request from this address of the far end; as if it had been sent so many nanoseconds later than it says."""
    version = 6 if ":" in ip else 4
    _, _, _, identifier, sequence, code, sent = HEADER.unpack(request)
    parts = (identifier, sequence, code, sent + later)
    reply = HEADER.pack(REPLY[version], 0, 0, *parts)
    if version == 4:
        reply = HEADER.pack(REPLY[version], 0, checksum(reply), *parts)
    family, protocol = (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    with two.far.run(socket.socket, family, socket.SOCK_RAW, protocol) as one:
        one.bind((ip, 0))
        one.sendto(reply, (OWN[version], 0))


def select_of(sock: socket.socket) -> bool:
    """Does anything wait in a socket?"""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


def test_what_nothing_leads_to_is_not_sent() -> None:
    two, echo = Two(), Echo()
    assert not echo.send("203.0.113.1", 1) and not echo.send("2001:db8::1", 1)
    two.put(Route(destination=network_of("10.244.2.0/24"), kind="unreachable", protocol=ROUTE_PROTOCOL))
    assert not echo.send("10.244.2.1", 2)
    echo.close()
    echo.close()


def _refusal(ip: str) -> int:
    """The number of the error with which a datagram to this address is refused; 0: it is sent."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        try:
            one.sendto(b"?", (ip, 9))
        except OSError as error:
            return error.errno or -1
    return 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_withdrawn_route_refuses_at_once_though_there_is_a_default_route_and_the_gateway_is_reached(version: int) -> None:
    two = Two()
    gateway = ipaddress.ip_address(THEIRS[version])
    block = network_of(BLOCK[version].format(2))
    first, pod = str(block.network_address + 1), str(block.network_address + 5)
    two.put(
        Route(destination=network_of("0.0.0.0/0" if version == 4 else "::/0"), gateway=gateway, link="eth0", protocol=4),
        Address(netns="far", link="lo", ip=ipaddress.ip_address(first), prefix_length=gateway.max_prefixlen),
    )
    route = Route(destination=block, gateway=gateway, link="eth0", protocol=ROUTE_PROTOCOL)
    planned = fragment([route])
    gone = withdrawn(planned, node(2, (version,)))
    two.put(route)
    echo = Echo()
    awaited(echo, first)
    for _ in range(3):
        assert (echo.send(first, 1), len(answers(echo, 1)), _refusal(pod)) == (True, 1, 0)
        change(two.kernel, planned, gone)
        assert _refusal(pod) in (errno.EHOSTUNREACH, errno.ENETUNREACH)
        assert (echo.send(first, 2), len(answers(echo, 1))) == (True, 1)
        change(two.kernel, gone, planned)


def change(kernel: Kernel, old: Fragment, new: Fragment) -> None:
    """From these values to those, and the kernel has them."""
    operations = [Operation(old.get(i), new.get(i)) for i in {**old, **new} if old.get(i) != new.get(i)]
    report = kernel.apply(operations)
    assert not report.failed, [str(failure) for failure in report.failed]

"""Pods of one node on a real kernel: they reach each other at L2, and nothing has to resolve anybody."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import socket
from collections.abc import Iterator

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace
from podplane.kernel.opener import KernelOpener
from podplane.pods.bridge import TABLE
from podplane.state.nft import Table
from podplane.state.operations import Operation
from tests.kernel.pods import EXTERNAL, LAST, PORT, SERVICE_PORT, VIP, Pod, World, command, dynamic_neighbours
from tests.plans import FAMILIES

pytestmark = pytest.mark.kernel
BOTH = (4, 6)
ETH_P_ALL = 0x0003
PACKET_OTHERHOST, PACKET_HOST = 3, 0
BRIDGED, ROUTED = 64, 63
"""TTL of a packet that no router passed on, and of one that the node did."""


def all_pairs(world: World, ttl: int) -> None:
    """Each pod sends to each other one, and exactly that arrives, with this TTL."""
    for version in world.versions:
        for source in world.pods:
            for target in world.pods:
                if source is not target:
                    source.send(version, target.ip(version), f"from {source.number}".encode())
        for target in world.pods:
            expected = [(f"from {source.number}".encode(), ttl) for source in world.pods if source is not target]
            found = [target.receive(version) for _ in expected]
            assert sorted(found) == sorted(expected)


def namespaces(world: World) -> list[Namespace]:
    """The node's and the pods'."""
    return [CurrentNamespace(), *(pod.namespace for pod in world.pods)]


def test_sixty_pods_reach_each_other_in_both_families_and_resolve_nobody() -> None:
    world = World(BOTH, 60)
    all_pairs(world, BRIDGED)
    assert dynamic_neighbours(namespaces(world)) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_without_the_bridge_family_they_are_routed_to_each_other(name: str) -> None:
    world = World(FAMILIES[name], 4, bridge_family=False)
    all_pairs(world, ROUTED)
    assert dynamic_neighbours(namespaces(world)) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_services_and_hairpin_resolve_nobody(name: str) -> None:
    world = World(FAMILIES[name], 3)
    all_pairs(world, BRIDGED)
    for version in world.versions:
        for source in world.pods:
            for target in world.pods:
                source.send(version, VIP[version].format(target.number), b"x", SERVICE_PORT)
                assert target.receive(version)[0] == b"x"
    assert dynamic_neighbours(namespaces(world)) == []


def test_pods_report_their_multicast_groups_without_an_entry_that_counts() -> None:
    """A report goes out when a group is joined, and again within a second; the node's end of a veth, without IPv6, has none."""
    world = World(BOTH, 2)
    for pod in world.pods:
        group = socket.inet_pton(socket.AF_INET6, "ff02::1234") + pod.namespace.run(socket.if_nametoindex, "eth0").to_bytes(
            4, "little"
        )
        pod.sockets[6].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    for pod in world.pods:
        with capture(pod) as seen:
            seen.settimeout(5)
            while b"\xff\x02" + bytes(13) + b"\x16" not in seen.recv(2000):
                pass
    assert dynamic_neighbours([pod.namespace for pod in world.pods], multicast=True) == []
    veths = [index for index, name in socket.if_nameindex() if name.startswith("pp")]
    found = dynamic_neighbours([CurrentNamespace()], multicast=True)
    assert len(veths) == 2 and not {f"link {index}" for index in veths} & {link for link, _ in found}


@pytest.fixture
def nft() -> None:
    """The tool `nft`."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")


COUNT = """table inet count {
    counter passed { }
    chain forward { type filter hook forward priority 0; iif cbr0 oif cbr0 udp dport %d counter name passed; }
}"""


@pytest.mark.parametrize("version", BOTH)
def test_the_forward_hook_sees_each_packet_once(version: int, nft: None) -> None:
    world = World(BOTH, 2)
    command("nft -f -", COUNT % PORT)
    first, second = world.pods
    for number in range(20):
        first.send(version, second.ip(version), b"%d" % number)
        assert second.receive(version) == (b"%d" % number, BRIDGED)
    listed = json.loads(command("nft -j list counters table inet count"))["nftables"]
    assert [one["counter"]["packets"] for one in listed if "counter" in one] == [20]


@pytest.mark.parametrize("version", BOTH)
def test_a_packet_that_the_node_could_take_as_its_own_arrives_once(version: int) -> None:
    """Somebody who captures on the bridge (tcpdump -i cbr0) makes it promiscuous: it gives each packet to the node, too."""
    world = World(BOTH, 2)
    command("ip link set cbr0 promisc on")
    first, second = world.pods
    ways = [
        ("pod", second, second.ip(version), PORT),
        ("Service", second, VIP[version].format(second.number), SERVICE_PORT),
        ("hairpin", first, VIP[version].format(first.number), SERVICE_PORT),
        ("external IP", second, EXTERNAL[version].format(second.number), SERVICE_PORT),
        ("hairpin by an external IP", first, EXTERNAL[version].format(first.number), SERVICE_PORT),
    ]
    for way, target, address, port in ways:
        for number in range(10):
            first.send(version, address, b"%d" % number, port)
        first.send(version, target.ip(version), LAST)
        assert target.received(version) == [b"%d" % number for number in range(10)], way


def ask(version: int, source: Pod, target: Pod, content: bytes) -> int:
    """The TTL with which a datagram arrives."""
    source.send(version, target.ip(version), content)
    found, ttl = target.receive(version)
    assert found == content
    return ttl


@pytest.mark.parametrize("version", BOTH)
def test_deleting_the_table_interrupts_nothing(version: int) -> None:
    world = World(BOTH, 2)
    first, second = world.pods
    assert ask(version, first, second, b"before") == BRIDGED
    family, table = TABLE
    stranger = Kernel(CurrentNamespace(), KernelOpener())
    stranger.apply([Operation(Table(family=family, table=table), None)])
    for number in range(20):
        assert ask(version, first, second, b"%d" % number) == ROUTED
    again = [value for value in world.wanted.values() if getattr(value, "table", "") == table]
    report = world.kernel.apply([Operation(None, value) for value in again])
    assert not report.failed, [str(f) for f in report.failed]
    assert ask(version, first, second, b"after") == BRIDGED
    assert dynamic_neighbours(namespaces(world)) == []


def test_addresses_that_no_pod_has_are_refused_at_once_and_leave_no_entry() -> None:
    """A neighbour that does not answer is given up after three seconds, and takes room meanwhile."""
    world = World(BOTH, 2)
    pod = world.pods[0]
    for version, pattern, numbers in ((4, "10.244.1.{}", range(50, 250)), (6, "fd00:10:244:1::{:x}", range(256, 456))):
        client = pod.namespace.run(socket.socket, socket.AF_INET if version == 4 else socket.AF_INET6)
        client.settimeout(2)
        with contextlib.closing(client), pytest.raises(OSError) as refused:
            client.connect((pattern.format(numbers[0]), 80))
        assert refused.value.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH), refused.value
        for number in numbers:
            with contextlib.suppress(OSError):  # what was said about an earlier one
                pod.send(version, pattern.format(number), b"x")
    assert dynamic_neighbours(namespaces(world)) == []


@contextlib.contextmanager
def capture(pod: Pod) -> Iterator[socket.socket]:
    """A packet socket in a pod that sees all frames."""
    own = pod.namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    own.setblocking(False)
    with contextlib.closing(own):
        own.bind(("eth0", ETH_P_ALL))
        yield own


def unicast_frames(own: socket.socket) -> list[bytes]:
    """Destinations of the unicast frames that came in."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frame, (_, _, kind, _, _) = own.recvfrom(2000)
            if kind in (PACKET_HOST, PACKET_OTHERHOST) and not frame[0] & 1:
                found.append(frame[:6])
    return found


def test_no_pod_sees_the_packets_of_others() -> None:
    world = World(BOTH, 3)
    first, second, third = world.pods
    with capture(third) as seen, capture(first) as raw:
        for version in BOTH:
            ask(version, first, second, b"x")
            first.send(version, VIP[version].format(2), b"x", SERVICE_PORT)
            assert second.receive(version)[0] == b"x"
        nobody, own = b"\x0a\x58\x0a\xf4\x01\x63", b"\x0a\x58\x0a\xf4\x01\x02"
        raw.send(nobody + own + b"\x88\xb5" + bytes(46))  # an EtherType for experiments (IEEE 802)
        assert unicast_frames(seen) == []
        ask(4, first, third, b"x")
        assert unicast_frames(seen) == [b"\x0a\x58\x0a\xf4\x01\x04"], "what is for it, it sees"

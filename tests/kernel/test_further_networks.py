"""Further networks with real packets: pods of one reach each other, and nothing of them comes to the node or to another network."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator

import pytest

from podplane.cni.network import Attachment
from podplane.kernel.namespace import Namespace
from podplane.model.view import BridgeNetwork
from podplane.pods.additional import bridge_name
from podplane.pods.bridge import TABLE
from podplane.state.network import Link
from podplane.state.nft import Chain
from podplane.state.operations import Operation
from tests.fake_cluster import node_ip
from tests.kernel.test_trace import RealCluster

pytestmark = pytest.mark.kernel
BLUE = BridgeNetwork("default/blue", ("10.20.0.0/24", "fd00:20::/64"))
GREEN = BridgeNetwork("default/green", ("10.20.0.0/24", "fd00:20::/64"), 1400)
PORT = 7000


def cluster(second: BridgeNetwork) -> tuple[RealCluster, list[str]]:
    """Pod 1 of node1 is in BLUE, too, and pod 2 in `second`; the address of pod 2 there of each IP version."""
    real = RealCluster((), ())
    ips: tuple[str, ...] = ()
    for name, network in (("node1-pod1", BLUE), ("node1-pod2", second)):
        asked = ("10.20.0.11", "fd00:20::11") if name == "node1-pod1" else ("10.20.0.12", "fd00:20::12")
        place = real.namespaces[name]
        request = Attachment(name, name, "default", name, place, ifname="net1", further=network, asked_ips=asked)
        ips = asyncio.run(real.agents[1].network.add(request)).ips
    return real, list(ips)


@contextlib.contextmanager
def server(place: Namespace, ip: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with contextlib.closing(place.run(socket.socket, family, socket.SOCK_DGRAM)) as sock:
        sock.bind((ip, PORT))
        sock.settimeout(3)
        yield sock


def send(place: Namespace, ip: str) -> None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with contextlib.closing(place.run(socket.socket, family, socket.SOCK_DGRAM)) as sock:
        sock.sendto(b"hello", (ip, PORT))


def test_pods_of_a_network_reach_each_other() -> None:
    real, ips = cluster(BLUE)
    client, place = real.namespaces["node1-pod1"], real.namespaces["node1-pod2"]
    for ip in ips:
        with server(place, ip) as sock:
            send(client, ip)
            data, source = sock.recvfrom(100)
            assert (data, source[0]) == (b"hello", ip.replace("12", "11"))


def test_a_network_of_the_same_addresses_is_another_one() -> None:
    real, ips = cluster(GREEN)
    client, place = real.namespaces["node1-pod1"], real.namespaces["node1-pod2"]
    for ip in ips:
        with server(place, ip) as sock:
            sock.settimeout(0.3)
            send(client, ip)
            with pytest.raises(TimeoutError):
                sock.recv(100)


def test_a_frame_to_the_bridge_itself_does_not_come_to_the_node() -> None:
    """Neither a packet to the node's address, nor a question for who has that; without the rule they do."""
    real, _ = cluster(BLUE)
    agent, pod = real.agents[1], real.namespaces["node1-pod1"]
    found = agent._kernel.read(agent.watcher.ownership)  # type: ignore[attr-defined]  # a door
    bridge = found[Link(name=bridge_name(BLUE)).identity]
    assert isinstance(bridge, Link)
    destination = node_ip(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((str(destination), PORT))
        sock.settimeout(0.3)
        for _ in range(2):
            frame(pod, bridge.mac, bytes.fromhex("0800") + datagram("10.20.0.11", str(destination)))
            frame(pod, "ff:ff:ff:ff:ff:ff", bytes.fromhex("0806") + arp("10.20.0.11", str(destination)))
        with pytest.raises(TimeoutError):
            sock.recv(100)
        assert "10.20.0.11" not in neighbours()
        family, name = TABLE
        guard = agent.ledger.desired[Chain(family=family, table=name, name="input").identity]
        assert not agent._kernel.apply([Operation(guard, None)]).failed  # type: ignore[attr-defined]  # a door
        sock.settimeout(5)
        frame(pod, bridge.mac, bytes.fromhex("0800") + datagram("10.20.0.11", str(destination)))
        assert sock.recv(100) == b"hello"
        frame(pod, "ff:ff:ff:ff:ff:ff", bytes.fromhex("0806") + arp("10.20.0.11", str(destination)))
        frame(pod, bridge.mac, bytes.fromhex("0800") + datagram("10.20.0.11", str(destination)))
        assert sock.recv(100) == b"hello" and "10.20.0.11" in neighbours()


def neighbours() -> str:
    """Of the node, IPv4."""
    with open("/proc/net/arp", encoding="ascii") as table:
        return table.read()


def frame(place: Namespace, to: str, rest: bytes) -> None:
    with contextlib.closing(place.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind(("net1", 0))
        sock.send(bytes.fromhex(to.replace(":", "")) + bytes(sock.getsockname()[4]) + rest)


def arp(sender: str, target: str) -> bytes:
    """A question (RFC 826)."""
    packed = [ipaddress.ip_address(ip).packed for ip in (sender, target)]
    own = bytes.fromhex("0a580a14000b")
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + packed[0] + bytes(6) + packed[1]


def datagram(source: str, destination: str) -> bytes:
    udp = struct.pack("!4H", 40000, PORT, 8 + 5, 0) + b"hello"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    total = sum(struct.unpack("!10H", head + addresses))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + addresses + udp

"""VXLAN on the real kernel: a node that somebody else made by hand with `ip`, as Flannel does, talks to one of podplane's."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.model.objects import Node, NodeAddress
from podplane.routes.vxlan import device_mac
from podplane.state.network import Link, Peer, Sysctl
from podplane.state.operations import Operation
from podplane.trace.packet import checksum
from tests.fake_cluster import uplink, uplink_mac
from tests.plans import agent_settings, node
from tests.unit.agent.rig import DUAL, caches_of

pytestmark = pytest.mark.kernel
BY_HAND = """
ip link set lo up
ip link set eth0 up
ip address add 192.168.1.11/24 dev eth0
ip address add fd00:192:168:1::11/64 dev eth0 nodad
ip link add flannel.1 address {own} type vxlan id 1 local 192.168.1.11 dev eth0 dstport 8472 nolearning
ip address add 10.244.2.0/32 dev flannel.1
ip link set flannel.1 up
ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
ip neighbour add 10.244.1.0 lladdr {peer} dev flannel.1 nud permanent
bridge fdb add {peer} dev flannel.1 dst 192.168.1.10
ip -6 route add fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel.1 onlink
ip -6 neighbour add fd00:10:244:1:: lladdr {peer} dev flannel.1 nud permanent
ip address add 10.244.2.5/32 dev lo
ip address add fd00:10:244:2::5/128 dev lo nodad
sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1
"""
"""A strict filter of reverse paths drops what would not be answered by the way it came."""
PORT = 7070
THEIR_PODS = ("10.244.2.5", "fd00:10:244:2::5")


UNHEARD = "awk '/^Udp:/ { n = $3 } END { print n }' /proc/net/snmp; awk '/^Udp6NoPorts/ { print $2 }' /proc/net/snmp6"
"""Datagrams that came for ports where nobody listens, by IP version."""


class Two:
    """node1 is podplane's, in this namespace, with a pod; node2 is somebody else's, at the other end of its uplink.

    `fields` are settings of its network.
    """

    def __init__(self, **fields: object) -> None:
        workers, opener = Workers(1), KernelOpener()
        self.theirs, self.pod = NetworkNamespace.create(workers), NetworkNamespace.create(workers)
        own = Kernel(CurrentNamespace(), opener)
        own.attach("theirs", self.theirs)
        cable = Link(name="eth0", kind="veth", mac=uplink_mac(1), peer=Peer(netns="theirs", name="eth0", mac=uplink_mac(2)))
        rest = [value for value in uplink(1) if not isinstance(value, Link)]
        quiet = Sysctl(name="net.ipv6.conf.default.accept_dad", value="0")
        assert not own.apply([Operation(None, value) for value in (quiet, Link(name="lo"), cable, *rest)]).failed
        script = BY_HAND.format(own=device_mac("node2"), peer=device_mac("node1"))
        self.theirs.run(lambda: subprocess.run(["sh", "-ec", script], check=True))
        asyncio.run(self._start(own, fields))

    async def _start(self, kernel: Kernel, fields: dict[str, object]) -> None:
        settings = agent_settings(DUAL, backend="vxlan", vxlan_port=8472, **fields)
        self.caches = caches_of(node(1, DUAL), node(2, DUAL))
        self.agent = agent = Agent("node1", settings, kernel, self.caches)
        await agent.start()
        self.caches.subscribe(agent.changed)
        self.ips = (await agent.network.add(Attachment("a", "a", "default", "a", self.pod))).ips
        assert not agent.ledger.refused, [str(refused.error) for refused in agent.ledger.refused.values()]


def made(**fields: object) -> Two:
    """Both nodes."""
    for program in ("ip", "bridge", "sysctl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return Two(**fields)


def exchange(client: Namespace, server: Namespace, ip: str) -> str:
    """A line over TCP to a server at this address; the client's address as the server sees it."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with server.run(lambda: socket.create_server((ip, PORT), family=family)) as listener:
        listener.settimeout(3)
        with client.run(lambda: socket.create_connection((ip, PORT), timeout=3)) as near:
            far, (source, *_) = listener.accept()
            with far:
                near.sendall(b"x" * 100_000)
                received = 0
                while received < 100_000:
                    received += len(far.recv(65536))
    return str(source)


def test_pods_reach_those_of_a_node_of_others_and_are_seen_with_their_own_address() -> None:
    two = made()
    assert [exchange(two.pod, two.theirs, ip) for ip in THEIR_PODS] == list(two.ips)


def test_a_node_of_others_reaches_pods() -> None:
    two = made()
    assert [exchange(two.theirs, two.pod, ip) for ip in two.ips] == ["10.244.2.0", "fd00:10:244:2::5"]


def test_what_a_node_itself_sends_to_others_comes_from_its_address_on_the_tunnel() -> None:
    two = made()
    assert [exchange(CurrentNamespace(), two.theirs, ip) for ip in THEIR_PODS] == ["10.244.1.1", "fd00:10:244:1::1"]


def test_a_pod_that_talks_to_another_nodes_own_address_is_seen_with_its_nodes() -> None:
    two = made()
    addresses = {"192.168.1.11": "192.168.1.10", "fd00:192:168:1::11": "fd00:192:168:1::10"}
    assert {ip: exchange(two.pod, two.theirs, ip) for ip in addresses} == addresses


def at(*ips: str) -> Node:
    """node2 at these addresses."""
    addresses = tuple(NodeAddress("InternalIP", ip) for ip in ips)
    known = node(2, DUAL)
    return msgspec.structs.replace(known, status=msgspec.structs.replace(known.status, addresses=addresses))


def test_no_packet_is_lost_when_a_peer_gets_another_address_and_has_both_for_a_while() -> None:
    two = made()
    two.theirs.run(shell, "ip address add 192.168.1.12/24 dev eth0; ip address add fd00:192:168:1::12/64 dev eth0 nodad")

    async def scenario() -> None:
        with sending(THEIR_PODS) as sent:
            for number in range(40):
                ip = f"192.168.1.{12 - number % 2}"
                two.caches.nodes.set(at(ip, "fd00:192:168:1::11"))
                await two.agent.reconcile()
                assert f"dst {ip} " in shell(f"bridge fdb show dev podplane-vxlan4 | grep {device_mac('node2')}")
        assert sent[0] > 1000
        await asyncio.sleep(0.1)
        assert sum(map(int, two.theirs.run(shell, UNHEARD).split())) == sent[0]

    asyncio.run(scenario())
    assert exchange(two.pod, two.theirs, THEIR_PODS[0]) == two.ips[0]


def inner(source: str, destination: str, payload: bytes) -> bytes:
    """A UDP datagram to a port of this test in an IPv4 packet from any address."""
    datagram = struct.pack(">HHHH", PORT, PORT, 8 + len(payload), 0) + payload
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(datagram), 1, 0, 64, socket.IPPROTO_UDP)
    return header + checksum(header + b"\0\0" + ends).to_bytes(2, "big") + ends + datagram


@contextlib.contextmanager
def sending(ips: Sequence[str]) -> Iterator[list[int]]:
    """Datagrams to these addresses, all the time, to a port where nobody listens; how many, once it is over."""
    sent, is_over = [0], threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            while not is_over.is_set():
                for ip in ips:
                    sent[0] += sock.sendto(b"x", (ip if ":" in ip else f"::ffff:{ip}", 9))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        is_over.set()
        thread.join()


def forged(mac: str, source: str, destination: str, payload: bytes) -> bytes:
    """What VXLAN carries in UDP (RFC 7348) to the device with this MAC."""
    frame = bytes.fromhex(mac.replace(":", "")) + bytes(6) + b"\x08\0" + inner(source, destination, payload)
    return struct.pack(">II", 1 << 27, 1 << 8) + frame


@pytest.mark.parametrize("node", ["192.168.1.10", "192.168.1.11"])
def test_a_pod_sends_no_packet_into_the_tunnel_of_a_node(node: str) -> None:
    two = made()
    own, theirs = ("10.244.1.1", "10.244.2.9", device_mac("node1")), ("10.244.2.5", "10.244.1.9", device_mac("node2"))
    (destination, source, mac), there = (own, CurrentNamespace()) if node == "192.168.1.10" else (theirs, two.theirs)

    def send(sender: Namespace, to: tuple[str, int], packet: bytes) -> None:
        with sender.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as out:
            out.sendto(packet, to)

    with there.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as received:
        received.bind((destination, PORT))
        received.settimeout(3)
        nodes = [one for one in (CurrentNamespace(), two.theirs) if one is not there]
        for sender, payload in ((two.pod, b"forged"), (nodes[0], b"of a node")):
            send(sender, (node, 8472), forged(mac, source, destination, payload))
        assert received.recv(100) == b"of a node", "the first one that came"


def shell(script: str) -> str:
    """What it writes."""
    return subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True).stdout


async def told_of(change: str, *, uplink_after: str) -> list[str]:
    """What an agent says was repaired after `change`, and after somebody deleted a route into its tunnel then."""
    told = list[str]()
    kernel, now = Kernel(CurrentNamespace(), KernelOpener()), 0.0

    def agent(name: str) -> Agent:
        settings = agent_settings((4,), backend="vxlan", uplink=name)
        caches = caches_of(node(1, (4,)), node(2, (4,)))
        return Agent("node1", settings, kernel, caches, clock=lambda: now, record_event=lambda key, why, *_: told.append(why))

    one = agent("eth0")
    await one.start()
    shell(change)
    if uplink_after != "eth0":
        await one.stop()
        one = agent(uplink_after)
        await one.start()
    for words in ("true", "ip route delete 10.244.2.0/24"):
        told.append(words)
        shell(words)
        for _ in range(6):
            now += 5
            one.watcher.take_notifications()
            await one.poll()
            await one.idle()
        assert "10.244.2.0/24" in shell("ip route")
    await one.stop()
    return told


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ("ip address delete 192.168.1.10/24 dev eth0; ip address add 192.168.1.10/24 dev eth1", "eth1"),
        (
            "ip link delete eth0; ip link add eth0 type bridge; ip address add 192.168.1.10/24 dev eth0; ip link set eth0 up",
            "eth0",
        ),
    ],
)
def test_what_goes_with_the_uplink_is_not_said_to_be_somebody_elses_change(change: str, after: str) -> None:
    links = "ip link add {0} type bridge; ip link set {0} up; "
    script = f"{links.format('eth0')}{links.format('eth1')} ip address add 192.168.1.10/24 dev eth0"
    shell(script)
    told = asyncio.run(told_of(change, uplink_after=after))
    somebody = "somebody else changed podplane's objects in the kernel; repaired: 1 route"
    assert told == ["true", "ip route delete 10.244.2.0/24", somebody]

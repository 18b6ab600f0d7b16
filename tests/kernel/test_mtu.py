"""What is too large for the way is told to whoever sent it, through tunnels and address translation; what fits arrives."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.kernel.door import Kernel
from podplane.kernel.text import nft as text
from podplane.model.config import UNDERLAY_MTU
from podplane.model.objects import Node, NodeStatus
from podplane.model.policy import NetworkPolicy, PolicyMetadata
from podplane.model.service import EndpointPort, Ingress, LoadBalancerStatus, ServicePort, ServiceStatus
from podplane.model.view import HostPort
from podplane.nodes.plan import TABLE
from podplane.state.network import Link, Route
from podplane.state.nft import NftValue
from tests.fake_cluster import BOTH, endpoints, node_ip, pod_ip, service
from tests.kernel.cluster import RealCluster
from tests.policed import Policed

pytestmark = pytest.mark.kernel
PORTS = (ServicePort(80, node_port=30080, name="tcp"), ServicePort(80, node_port=30080, name="udp", protocol="UDP"))
SERVICES = [service(ports=PORTS)]
BEHIND = (EndpointPort(port=8080, name="tcp"), EndpointPort(port=8080, name="udp", protocol="UDP"))
SLICES = [msgspec.structs.replace(one, ports=BEHIND) for one in endpoints("web", (1, 1))]
VIPS = {4: "10.96.0.10", 6: "fd00:10:96::10"}
BALANCED = {4: "192.0.2.240", 6: "fd00:192:2::f0"}
NODE_PORT, HOST_PORT, PORT, FAR = 30080, 8090, 8080, {4: "198.18.0.2", 6: "fd00:198:18::2"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
IP_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
IP_MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}
DO = 2
"""IP_PMTUDISC_DO: "don't fragment" is set, and what is learned of the way is obeyed."""
HEADERS = {4: 28, 6: 48}
"""Bytes of IP and UDP."""
MEGABYTE = 1 << 20
SIOCETHTOOL, ETHTOOL_STXCSUM, ETHTOOL_GETS = 0x8946, 0x17, (0x16, 0x1E, 0x23, 0x2B)
"""ETHTOOL_ GTXCSUM, GTSO, GGSO, GGRO (include/uapi/linux/ethtool.h)."""
RETRANSMITTED = 100
"""The offset of tcpi_total_retrans in struct tcp_info."""
T = TypeVar("T")


class Narrow(RealCluster):
    """node1 is reached with packets of `narrow` bytes, once that has happened; node2 is told."""

    def to_node1(self, mtu: int) -> None:
        """The uplink of node1 comes to carry so much, and node1 says so."""
        self.in_("node1", f"ip link set eth0 mtu {mtu}")
        asyncio.run(self._follow(mtu))

    async def _follow(self, mtu: int) -> None:
        one, other = self.agents[1], self.agents[2]
        one.watcher.take_notifications()
        await one.poll()
        await one.reconcile()
        await one.idle()
        old = self.nodes["node1"]
        annotations = {**old.metadata.annotations, UNDERLAY_MTU: str(one.config.mtu)}
        new = msgspec.structs.replace(old, metadata=msgspec.structs.replace(old.metadata, annotations=annotations))
        self.caches[2].nodes.set(new)
        other.changed(type(new), self.nodes["node1"], new)
        self.nodes["node1"] = new
        await other.reconcile()
        await other.idle()
        for agent in (one, other):
            assert not agent.ledger.refused, [str(refused.error) for refused in agent.ledger.refused.values()]

    def in_(self, name: str, script: str) -> str:
        """What a script writes in a namespace."""
        words = ["sh", "-ec", script]
        run = lambda: subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: E731
        return self.namespaces[name].run(run).stdout

    def mtu(self, pod: str) -> int:
        """Of a pod's interface."""
        words = self.in_(pod, "ip -o link show dev eth0").split()
        return int(words[words.index("mtu") + 1])


class Tunnelled(Narrow):
    """Nodes reach each other's pods by vxlan."""

    network = {"backend": "vxlan"}


def path_mtu(real: Narrow, name: str, ip: str, port: int) -> int:
    """The size at which what a client sends arrives at an address, after what it learns of the way; nothing may be fragmented.

    Nobody listens there, so that what arrives is refused. Where a route of IPv6 says less than its device, the kernel tells the client
    of both, one after the other (ip6_forward, ip6_finish_output).
    """
    version = 6 if ":" in ip else 4
    with real.namespaces[name].run(lambda: socket.socket(FAMILY[version], socket.SOCK_DGRAM)) as client:
        client.setsockopt(*IP_MTU_DISCOVER[version], DO)
        client.connect((ip, port))
        for _ in range(40):
            try:
                client.send(bytes(client.getsockopt(*IP_MTU[version]) - HEADERS[version]))
            except ConnectionRefusedError:
                break
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
            time.sleep(0.02)
        return client.getsockopt(*IP_MTU[version])


def transfer(real: Narrow, client: str, at: tuple[str, int], server: str, own: tuple[str, int]) -> tuple[int, int]:
    """A megabyte each way over TCP; (segment size of the client as agreed upon, how often it sent its first packet again)."""
    family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET
    with real.namespaces[server].run(lambda: socket.create_server(own, family=family)) as listener:
        listener.settimeout(3)
        with real.namespaces[client].run(lambda: socket.create_connection(at, timeout=3)) as near:
            (again,) = struct.unpack_from("I", near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), RETRANSMITTED)
            size = near.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            far, _ = listener.accept()
            with far:
                for end in (near, far):
                    end.settimeout(5)
                for sender, receiver in ((near, far), (far, near)):
                    assert asyncio.run(_pass(sender, receiver)) == MEGABYTE
                return size, again


async def _pass(sender: socket.socket, receiver: socket.socket) -> int:
    async def receive() -> int:
        count = 0
        while count < MEGABYTE:
            got = await asyncio.to_thread(receiver.recv, 1 << 16)
            if not got:
                break
            count += len(got)
        return count

    _, count = await asyncio.gather(asyncio.to_thread(sender.sendall, bytes(MEGABYTE)), receive())
    return count


def by_versions(function: Callable[[int], T]) -> dict[int, T]:
    """IP version → what that gives."""
    return {version: function(version) for version in BOTH}


async def said_by_the_cluster(agent: Agent, mtu: int) -> None:
    """The ConfigMap says that packets between nodes have so many bytes at most."""
    await agent.set_routes(msgspec.structs.replace(agent.config, mtu=mtu))
    await agent.reconcile()


@pytest.mark.parametrize(("kind", "overhead"), [(Narrow, 0), (Tunnelled, 50)])
def test_an_uplink_that_comes_to_carry_less_is_followed_and_whoever_sends_more_is_told_through_services(
    kind: type[Narrow], overhead: int
) -> None:
    real = kind(SERVICES, SLICES)
    real.to_node1(1400)
    expected = dict.fromkeys(BOTH, 1400 - overhead)
    assert (real.mtu("node1-pod1"), real.mtu("node2-pod1")) == (1400 - overhead, 1500 - overhead)
    assert by_versions(lambda v: path_mtu(real, "node2-pod1", str(pod_ip(1, 1, v)), PORT)) == expected
    assert by_versions(lambda v: path_mtu(real, "node2-pod2", VIPS[v], 80)) == expected, "by a ClusterIP"
    assert by_versions(lambda v: path_mtu(real, "outside", str(node_ip(2, v)), NODE_PORT)) == expected, "by a node port"
    assert by_versions(lambda v: path_mtu(real, "node2", str(pod_ip(1, 1, v)), PORT)) == expected, "a node itself"
    real.to_node1(1500)
    assert real.mtu("node1-pod1") == 1500 - overhead
    assert by_versions(lambda v: path_mtu(real, "node2-pod2", str(pod_ip(1, 2, v)), PORT)) == dict.fromkeys(
        BOTH, 1500 - overhead
    )
    routes = [one for one in real.agents[2].ledger.desired.values() if isinstance(one, Route)]
    assert not any(route.mtu for route in routes)
    asyncio.run(said_by_the_cluster(real.agents[2], 1350))
    assert real.mtu("node2-pod1") == 1350 - overhead


def test_whoever_sends_to_a_pod_from_outside_is_told_what_it_takes() -> None:
    """Pods of a tunnelled network take less than the network outside."""
    balanced = ServiceStatus(LoadBalancerStatus(tuple(Ingress(ip=ip) for ip in BALANCED.values())))
    services = [msgspec.structs.replace(SERVICES[0], status=balanced)]
    real = Tunnelled(services, SLICES, {(1, 1): (HostPort(HOST_PORT, PORT, "UDP"),)})
    for version, ip in BALANCED.items():
        real.in_("outside", f"ip route add {ip} via {node_ip(1, version)}")
    expected = dict.fromkeys(BOTH, 1450)
    assert by_versions(lambda v: path_mtu(real, "outside", str(node_ip(1, v)), NODE_PORT)) == expected
    assert by_versions(lambda v: path_mtu(real, "outside", BALANCED[v], 80)) == expected
    assert by_versions(lambda v: path_mtu(real, "outside", str(node_ip(1, v)), HOST_PORT)) == expected


class Isolated(Policed, Narrow):
    """Nothing is let in to the pods of namespace a, which pod 1 of each node is in."""

    def __init__(self) -> None:
        super().__init__(SERVICES, SLICES)
        self.begin()
        self.put(NetworkPolicy(PolicyMetadata("closed", "a"), ingress=()))


@pytest.mark.parametrize("kind", [lambda: Narrow(SERVICES, SLICES), Isolated], ids=["open", "isolated"])
def test_a_pod_is_told_that_a_way_behind_its_masquerade_is_narrower(kind: Callable[[], Narrow]) -> None:
    real = kind()
    real.in_(
        "outside",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip link add far type bridge; ip link set far mtu 1300 up;"
        "ip addr add 198.18.0.1/24 dev far; ip addr add fd00:198:18::1/64 dev far nodad",
    )
    assert by_versions(lambda v: path_mtu(real, "node1-pod1", FAR[v], PORT)) == {4: 1300, 6: 1300}


def test_segments_fit_a_way_that_is_narrower_than_a_pod_knows() -> None:
    real = Narrow(SERVICES, SLICES)
    real.to_node1(1400)
    real.in_("node1-pod1", "ip link set eth0 mtu 1500")  # as a pod of before that its agent can't enter
    for version, headers in {4: 40, 6: 60}.items():
        own = (str(pod_ip(1, 1, version)), PORT)
        for at in (own, (VIPS[version], 80)):
            size, again = transfer(real, "node2-pod1", at, "node1-pod1", own)
            assert size <= 1400 - headers and not again
    assert transfer(real, "node1-pod1", (str(pod_ip(2, 1, 4)), PORT), "node2-pod1", (str(pod_ip(2, 1, 4)), PORT))[1] == 0


def test_segments_are_as_large_as_can_be_where_nothing_is_narrow() -> None:
    real = Narrow(SERVICES, SLICES)
    for version, headers in {4: 52, 6: 72}.items():  # of IP, TCP and its timestamps (RFC 7323)
        own = (str(pod_ip(1, 1, version)), PORT)
        for client, at in (("node1-pod2", own), ("node2-pod1", own), ("node2-pod1", (VIPS[version], 80))):
            assert transfer(real, client, at, "node1-pod1", own) == (1500 - headers, 0), client


def test_the_rules_for_segments_are_read_back_and_listed_as_they_are() -> None:
    real = Narrow(SERVICES, SLICES)
    wanted = [
        one for one in real.agents[1].ledger.desired.values() if isinstance(one, NftValue) and (one.family, one.table) == TABLE
    ]
    found = Kernel(real.namespaces["node1"], real.opener).read(real.agents[1].watcher.ownership)
    assert [found[one.identity] for one in wanted] == wanted
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    listed = "".join(real.in_("node1", f"nft list chain {' '.join(TABLE)} {name}") for name in ("forward", "segments"))
    lines = [line for line in text.tables(wanted).splitlines() if "syn" in line or "maxseg" in line]
    assert len(lines) == 5 and all(line in listed for line in lines)


def test_without_room_for_ipv6_all_else_goes_on_and_it_comes_back() -> None:
    real = Narrow(SERVICES, SLICES)
    real.to_node1(1200)
    assert real.mtu("node1-pod1") == 1280
    size, again = transfer(real, "node2-pod1", (VIPS[4], 80), "node1-pod1", (str(pod_ip(1, 1, 4)), PORT))
    assert size <= 1160 and not again
    beside = (str(pod_ip(1, 1, 6)), PORT)
    with pytest.raises(OSError, match=r"unreachable|No route"):
        real.namespaces["node2-pod1"].run(lambda: socket.create_connection(beside, timeout=3))
    assert transfer(real, "node1-pod2", beside, "node1-pod1", beside)[1] == 0, "pods of one node"
    real.in_("node1", f"ip link set eth0 mtu 1500; ip addr add {node_ip(1, 6)}/64 dev eth0 nodad")
    real.to_node1(1500)
    assert transfer(real, "node2-pod1", beside, "node1-pod1", beside)[1] == 0


def udp_errors(real: Narrow, name: str) -> int:
    """Datagrams that came to a node with a wrong checksum."""
    found = real.in_(
        name, "awk '/^Udp: [0-9]/ {print $8}' /proc/net/snmp; awk '/^Udp6InCsumErrors/ {print $2}' /proc/net/snmp6"
    )
    return sum(map(int, found.split()))


def ethtool(link: str, command: int, value: int = 0) -> int:
    """One command of ethtool with a value, for a link of the calling thread's namespace; what it answers."""
    buffer = ctypes.create_string_buffer(struct.pack("II", command, value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", link.encode(), ctypes.addressof(buffer)))
    return int(struct.unpack("II", buffer.raw[:8])[1])


@pytest.mark.parametrize("offloaded", [True, False])
def test_through_a_tunnel_the_first_packet_of_a_connection_to_a_service_is_answered(offloaded: bool) -> None:
    """k3s-io/k3s#2013: translated, encapsulated, its checksum left to the device (fixed in ea64d8d6c675, Linux 5.7)."""
    real = Tunnelled(SERVICES, SLICES)
    for name in () if offloaded else ("node1", "node2"):
        real.namespaces[name].run(
            ethtool, "eth0", ETHTOOL_STXCSUM, 0
        )  # of a veth pair nobody looks at a checksum that is left to it
    for version in BOTH:
        own, service, port = (
            (str(pod_ip(1, 1, version)), PORT),
            (VIPS[version], 80),
            (str(node_ip(2, version)), NODE_PORT),
        )
        ways = [("node2-pod1", service), ("node2", service), ("node2-pod1", port), ("node2", port), ("outside", port)]
        for client, at in ways:
            assert transfer(real, client, at, "node1-pod1", own)[1] == 0, (client, at)
    assert [udp_errors(real, name) for name in ("node1", "node2")] == [0, 0]


def test_a_tunnel_computes_checksums_and_leaves_to_its_uplink_what_that_can_do() -> None:
    real = Tunnelled(SERVICES, SLICES)
    for device, checksum in (("podplane-vxlan4", " udpcsum "), ("podplane-vxlan6", " noudp6zerocsumtx ")):
        assert checksum in real.in_("node1", f"ip -d link show dev {device}")
        assert [real.namespaces["node1"].run(ethtool, device, command) for command in ETHTOOL_GETS] == [1, 1, 1, 1]


class Small(Tunnelled):
    """The uplinks of all nodes carry 1,450 bytes."""

    def connect(self, name: str, kernel: Kernel, number: int) -> None:
        super().connect(name, kernel, number)
        self.in_(name, "ip link set eth0 mtu 1450")


class SmallOverIpv6(Small):
    """Nodes have their IPv6 addresses first."""

    def node(self, number: int) -> Node:
        one = super().node(number)
        return msgspec.structs.replace(one, status=NodeStatus(addresses=one.status.addresses[::-1]))


@pytest.mark.parametrize(("kind", "mtu"), [(Small, 1400), (SmallOverIpv6, 1380)])
def test_an_underlay_of_1450_bytes_leaves_pods_as_much_as_arrives(kind: type[Small], mtu: int) -> None:
    real = kind(SERVICES, SLICES)
    assert [real.mtu(f"node{n}-pod1") for n in (1, 2)] == [mtu, mtu]
    devices = [one for one in real.agents[1].ledger.desired.values() if isinstance(one, Link) and one.vxlan is not None]
    assert {link.name: link.mtu for link in devices} == {"podplane-vxlan4": 1400, "podplane-vxlan6": 1380}
    for version in BOTH:
        own = (str(pod_ip(1, 1, version)), PORT)
        assert transfer(real, "node2-pod1", own, "node1-pod1", own)[1] == 0
        with real.namespaces["node1-pod1"].run(lambda: socket.socket(FAMILY[version], socket.SOCK_DGRAM)) as server:  # noqa: B023
            server.bind(own)
            server.settimeout(3)
            with real.namespaces["node2-pod1"].run(lambda: socket.socket(FAMILY[version], socket.SOCK_DGRAM)) as client:  # noqa: B023
                client.setsockopt(*IP_MTU_DISCOVER[version], DO)
                client.sendto(bytes(mtu - HEADERS[version]), own)
                assert len(server.recv(2000)) == mtu - HEADERS[version]
                with pytest.raises(OSError, match="too long"):
                    client.sendto(bytes(mtu + 1 - HEADERS[version]), own)

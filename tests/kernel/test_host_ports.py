"""Host ports on a real kernel: route_localnet opens 127.0.0.1 for host ports, and for nothing else."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import subprocess

import pytest

from podplane.hostports.tables import TABLE
from podplane.kernel.namespace import Namespace
from podplane.model.view import HostPort
from podplane.policy import tables as policy_tables
from podplane.state.mac import mac_of
from podplane.state.nft import Chain
from podplane.state.operations import Operation
from podplane.state.value import IPAddress
from tests.fake_cluster import node_ip, pod_ip
from tests.kernel.test_trace import RealCluster

pytestmark = pytest.mark.kernel
LOOPBACK, GATEWAY = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.244.1.1")
PORT = 10250


def cluster() -> RealCluster:
    """Pod 1 of node1 has a host port."""
    return RealCluster((), (), {(1, 1): (HostPort(8080, 80),)})


def checksum(content: bytes) -> int:
    """Of an IPv4 header (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def datagram(source: IPAddress, destination: IPAddress) -> bytes:
    """A frame to the bridge of node1 with a UDP datagram to PORT."""
    udp = struct.pack("!4H", 40000, PORT, 8 + 5, 0) + b"hello"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    addresses = source.packed + destination.packed
    head = head[:10] + struct.pack("!H", checksum(head + addresses))
    macs = (bytes.fromhex(mac_of(ip).replace(":", "")) for ip in (GATEWAY, pod_ip(1, 2)))
    return b"".join(macs) + b"\x08\x00" + head + addresses + udp


def send_frame(pod: Namespace, frame: bytes) -> None:
    with contextlib.closing(pod.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)) as sender:
        sender.bind(("eth0", 0))
        sender.send(frame)


@pytest.mark.parametrize(("source", "destination"), [(pod_ip(1, 2), LOOPBACK), (ipaddress.ip_address("127.0.0.2"), node_ip(1))])
def test_a_pod_does_not_reach_what_listens_on_the_node_s_loopback_address(source: IPAddress, destination: IPAddress) -> None:
    """Without the chain `localnet`, and those of policies, which let no address pass that is no pod's, it does: the packet would arrive."""
    real = cluster()
    pod, agent = real.namespaces["node1-pod2"], real.agents[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((str(destination), PORT))
        server.settimeout(0.3)
        send_frame(pod, datagram(source, destination))
        with pytest.raises(TimeoutError):
            server.recv(100)
        family, table = TABLE
        own, policy = (family, table), policy_tables.TABLE
        chains = ((own, "localnet"), (policy, "input"), (policy, "senders"))
        guards = [Chain(family=f, table=t, name=name).identity for (f, t), name in chains]
        removals = [Operation(agent.ledger.desired[guard], None) for guard in guards]
        assert not agent._kernel.apply(removals).failed  # type: ignore[attr-defined]  # a door
        server.settimeout(5)
        send_frame(pod, datagram(source, destination))
        assert server.recv(100) == b"hello"


@pytest.mark.parametrize("protocol", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_of_the_loopback_address_of_ipv6_is_for_other_addresses_of_the_node(protocol: socket.SocketKind) -> None:
    """As Kubernetes' own test of host ports asks (`curl --interface`). From ::1 it is refused."""
    word = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}[protocol]
    real = RealCluster((), (), {(1, 1): (HostPort(8080, 80, word, "::1"),)})
    with contextlib.ExitStack() as stack:
        server, client, other = (
            stack.enter_context(real.namespaces[name].run(socket.socket, socket.AF_INET6, protocol))
            for name in ("node1-pod1", "node1", "node1")
        )
        server.bind(("::", 80))
        client.bind((str(node_ip(1, 6)), 0))
        for one in (server, client, other):
            one.settimeout(5)
        if protocol == socket.SOCK_STREAM:
            server.listen()
        client.connect(("::1", 8080))
        client.send(b"hello")
        if protocol == socket.SOCK_STREAM:
            taken = stack.enter_context(server.accept()[0])
            content = taken.recv(100)
            taken.send(b"answer")
        else:
            content, place = server.recvfrom(100)
            server.sendto(b"answer", place)
        assert (content, client.recv(100)) == (b"hello", b"answer")
        with pytest.raises(ConnectionRefusedError):  # at once: nobody of the node listens
            other.connect(("::1", 8080))
            other.send(b"hello")
            other.recv(100)


SCTP = 132
INIT = bytes.fromhex("0100001400000001000100000001000100000001")
"""A chunk (RFC 9260, 3.3.2) with the tag 1."""
INIT_ACK = bytes.fromhex("020000180000000200010000000100010000000100070004")


def sctp(source: int, destination: int, tag: int, chunk: bytes) -> bytes:
    """A packet with its CRC32c (RFC 9260, appendix A)."""
    head = struct.pack("!HHI", source, destination, tag)
    crc = 0xFFFFFFFF
    for byte in head + bytes(4) + chunk:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return head + struct.pack("<I", crc ^ 0xFFFFFFFF) + chunk


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("client", ["outside", "node1", "node1-pod1", "node1-pod2", "node2-pod1"])
def test_sctp_reaches_the_pod_and_its_answer_comes_back(client: str, version: int) -> None:
    """This kernel may have no sockets of SCTP: raw ones send and receive packets. The pod itself and its neighbours are clients too."""
    real = RealCluster((), (), {(1, 1): (HostPort(8080, 80, "SCTP"),)})
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    host = str(node_ip(1, version))
    with contextlib.ExitStack() as stack:
        at_pod, at_client = (
            stack.enter_context(real.namespaces[name].run(socket.socket, family, socket.SOCK_RAW, SCTP))
            for name in ("node1-pod1", client)
        )
        at_client.sendto(sctp(40000, 8080, 0, INIT), (host, 0))
        packet, source = received(at_pod, version, 80)
        assert (packet[12:], packet[4:8]) == (INIT, bytes(4)) and packet == sctp(source[1], 80, 0, INIT)
        at_pod.sendto(sctp(80, source[1], 1, INIT_ACK), (source[0], 0))
        answer, place = received(at_client, version, 40000)
        assert place == (host, 8080) and answer == sctp(8080, 40000, 1, INIT_ACK)


def received(sock: socket.socket, version: int, port: int) -> tuple[bytes, tuple[str, int]]:
    """The next packet to this port, and from which address and port it came; what a raw socket sees of other ports is passed over."""
    sock.settimeout(3)
    for _ in range(10):
        packet, place = sock.recvfrom(2000)
        content = packet[(packet[0] & 15) * 4 :] if version == 4 else packet
        source, destination = struct.unpack_from("!HH", content)
        if destination == port:
            return content, (place[0], source)
    raise AssertionError(f"nothing came to port {port}")


def test_nft_reads_the_table() -> None:
    cluster()
    family, table = TABLE
    text = subprocess.run(["nft", "list", "table", family, table], check=True, capture_output=True, text=True).stdout
    own = "ip daddr != 10.244.1.0/24 ip daddr != 10.96.0.0/16"
    assert f"{own} fib daddr type local dnat ip to meta l4proto . th dport map @ports4" in text
    own6 = "ip6 daddr != fd00:10:244:1::/64 ip6 daddr != fd00:10:96::/112 ip6 saddr != ::1"
    assert f"{own6} fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @addressed6" in text
    assert 'tcp . 8080 comment "pod/default/node1-pod1" : 10.244.1.2 . 80' in text

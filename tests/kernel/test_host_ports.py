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
    """Without the chain `localnet`, and that of policies, which lets no address pass that is no pod's, it does: the packet would arrive."""
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
        guards = [Chain(family=f, table=t, name=name).identity for (f, t), name in ((own, "localnet"), (policy, "input"))]
        removals = [Operation(agent.ledger.desired[guard], None) for guard in guards]
        assert not agent._kernel.apply(removals).failed  # type: ignore[attr-defined]  # a door
        server.settimeout(5)
        send_frame(pod, datagram(source, destination))
        assert server.recv(100) == b"hello"


def test_nft_reads_the_table() -> None:
    cluster()
    family, table = TABLE
    text = subprocess.run(["nft", "list", "table", family, table], check=True, capture_output=True, text=True).stdout
    own = "ip daddr != 10.244.1.0/24 ip daddr != 10.96.0.0/16"
    assert f"{own} fib daddr type local dnat ip to meta l4proto . th dport map @ports4" in text
    own6 = "ip6 daddr != fd00:10:244:1::/64 ip6 daddr != fd00:10:96::/112 ip6 daddr != ::1"
    assert f"{own6} fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @addressed6" in text
    assert 'tcp . 8080 comment "pod/default/node1-pod1" : 10.244.1.2 . 80' in text

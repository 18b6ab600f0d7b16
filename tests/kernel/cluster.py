"""A cluster of two nodes on the real kernel, and a TCP connection in it that tests can disturb by packets of their own."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.model.service import EndpointSlice, Service
from podplane.state.network import Link, Peer, Sysctl
from podplane.state.operations import Operation
from podplane.state.value import Value
from podplane.trace.packet import checksum
from tests.fake_cluster import NO_HOST_PORTS, Cluster, HostPorts, uplink, uplink_mac
from tests.kernel.packets import flush_conntrack


class RealCluster(Cluster):
    """On the real kernel: this namespace is node1, and a bridge in a namespace of its own is the network."""

    opener = KernelOpener()

    def __init__(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], host_ports: HostPorts = NO_HOST_PORTS
    ) -> None:
        self.namespaces: dict[str, Namespace] = {"node1": CurrentNamespace()}
        self._workers = Workers(1)
        self._network = self.namespace("network")
        self._apply(Kernel(self._network, self.opener), [Link(name="br", kind="bridge")])
        super().__init__(services, slices, host_ports)

    @staticmethod
    def _apply(kernel: Kernel, values: list[Value]) -> None:
        report = kernel.apply([Operation(None, value) for value in values])
        assert not report.failed, [str(failure) for failure in report.failed]

    def namespace(self, name: str) -> Namespace:
        """A real one."""
        if name not in self.namespaces:
            self.namespaces[name] = NetworkNamespace.create(self._workers)
        return self.namespaces[name]

    def connect(self, name: str, kernel: Kernel, number: int) -> None:
        """A veth pair to the network. The kernel's limits of ICMP errors are lifted."""
        limits = {"net.ipv4.icmp_ratemask": "0", "net.ipv6.icmp.ratelimit": "0", "net.ipv6.conf.default.accept_dad": "0"}
        self._apply(kernel, [Sysctl(name=name, value=value) for name, value in limits.items()])
        cable = Link(name=name, kind="veth", master="br", peer=Peer(netns=name, name="eth0", mac=uplink_mac(number)))
        network = Kernel(self._network, self.opener)
        network.attach(name, self.namespaces[name])
        self._apply(network, [cable])
        self._apply(kernel, [v if not isinstance(v, Link) else Link(name=v.name) for v in uplink(number)])

    def forget_connections(self) -> None:
        """Delete all tracked connections of both nodes."""
        for name in ("node1", "node2"):
            self.namespaces[name].run(flush_conntrack)


FIN, SYN, RESET, PUSH, ACK = 1, 2, 4, 8, 16
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, REPAIR_OFF = 19, 20, 21, -1
RECEIVE_QUEUE, SEND_QUEUE = 1, 2
UNACKNOWLEDGED = 24
"""The offset of tcpi_unacked in struct tcp_info."""
ALL_FRAMES = 3
"""ETH_P_ALL."""
TEXT = b"0123456789"


class Talk:
    """A TCP connection between a client and a server, each in a namespace; `at` is where the client connects to."""

    def __init__(self, client: Namespace, at: tuple[str, int], server: Namespace, own: tuple[str, int]) -> None:
        self.ends = (client, server)
        family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET
        with server.run(lambda: socket.create_server(own, family=family)) as listener:
            self.client = client.run(lambda: socket.create_connection(at, timeout=3))
            self.server = listener.accept()[0]
        self.server.settimeout(3)
        self.exchange()

    def exchange(self) -> None:
        """Say something each way. Packets of the connection take one way, so those sent before have arrived. OSError when it is dead."""
        for sender, receiver in ((self.server, self.client), (self.client, self.server), (self.server, self.client)):
            sender.send(TEXT)
            assert receiver.recv(len(TEXT)) == TEXT, "the other side has ended the connection"

    def settle(self) -> None:
        """Have all that was sent acknowledged, so that neither end sends anything more by itself."""
        for end in (self.client, self.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        for end in (self.client, self.server):
            for _ in range(1000):
                if not struct.unpack_from("I", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 100), UNACKNOWLEDGED)[0]:
                    break
                time.sleep(0.001)

    def disturb(self, flags: int, offset: int, *, by_client: bool = False, data: bytes = b"") -> None:
        """Send a segment by one end, `offset` bytes from where its next one would begin."""
        end, namespace = (self.client, self.ends[0]) if by_client else (self.server, self.ends[1])
        sequence, expected = (_sequence(end, queue) for queue in (SEND_QUEUE, RECEIVE_QUEUE))
        send_segment(namespace, end.getsockname()[:2], end.getpeername()[:2], flags, sequence + offset, expected, data)

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()


def _sequence(end: socket.socket, queue: int) -> int:
    """The number of the next byte of one direction (tcp(7) calls this repair mode)."""
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
    number: int = struct.unpack("I", end.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, 4))[0]
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # repair mode forgets it
    return number


def send_segment(
    namespace: Namespace,
    source: tuple[str, int],
    to: tuple[str, int],
    flags: int,
    sequence: int,
    acknowledged: int = 0,
    data: bytes = b"",
) -> None:
    """Send a TCP segment as it is given (RFC 9293)."""
    numbers = (sequence & 0xFFFF_FFFF, acknowledged & 0xFFFF_FFFF)
    segment = struct.pack(">HHIIBBHHH", source[1], to[1], *numbers, 5 << 4, flags, 502, 0, 0) + data
    send_raw(namespace, source[0], to[0], socket.IPPROTO_TCP, segment, checksum_at=16)


def send_raw(namespace: Namespace, source: str, to: str, protocol: int, content: bytes, checksum_at: int = -1) -> None:
    """Send what follows an IP header; with its checksum at this place, when there is one."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    if checksum_at >= 0:
        addresses = socket.inet_pton(family, source) + socket.inet_pton(family, to)
        pseudo = addresses + struct.pack(">II", len(content), protocol)
        with_zero = content[:checksum_at] + b"\0\0" + content[checksum_at + 2 :]
        plain = with_zero if protocol == socket.IPPROTO_ICMP else pseudo + with_zero
        content = (
            content[:checksum_at] + checksum(plain + b"\0" * (len(plain) % 2)).to_bytes(2, "big") + content[checksum_at + 2 :]
        )
    with contextlib.closing(namespace.run(socket.socket, family, socket.SOCK_RAW, protocol)) as raw:
        raw.bind((source, 0))
        with contextlib.suppress(PermissionError):  # dropped in output
            raw.sendto(content, (to, 0))


@contextlib.contextmanager
def seen(namespace: Namespace) -> Iterator[list[tuple[str, str, bytes]]]:
    """The packets that come to the first interface of a namespace, as (source, destination, what follows the IP header)."""
    tap = namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_FRAMES))
    tap.bind(("eth0", ALL_FRAMES))
    tap.setblocking(False)
    found: list[tuple[str, str, bytes]] = []
    try:
        yield found
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, (_, _, direction, *_) = tap.recvfrom(4000)
                if direction != socket.PACKET_OUTGOING:
                    found.extend(_addressed(packet))
    finally:
        tap.close()


def _addressed(packet: bytes) -> Iterator[tuple[str, str, bytes]]:
    if packet[0] >> 4 == 4:
        start = 4 * (packet[0] & 15)
        yield socket.inet_ntop(socket.AF_INET, packet[12:16]), socket.inet_ntop(socket.AF_INET, packet[16:20]), packet[start:]
    elif packet[0] >> 4 == 6:
        yield socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40]), packet[40:]

"""Real packets among real namespaces, and what became of them: what the packet evaluator is compared with.

Each namespace has a TCP and a UDP socket on each port of each family, that tell to which address a packet came and from which one.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from podplane.kernel.namespace import Namespace
from podplane.state.value import IPAddress
from podplane.trace.packet import Packet
from podplane.trace.trace import Delivered, Rejected, Trace

PORTS = (80, 81, 8080, 30080)
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
IP_PKTINFO, IP_RECVERR, IPV6_RECVERR = 8, 11, 25
QUIET_SECONDS, PATIENCE_SECONDS = 0.02, 2.0
"""So long is waited for a packet that should not come, and for one that should."""
ICMP = {
    4: {(3, 0): "net unreachable", (3, 1): "host unreachable", (3, 3): "port unreachable", (3, 13): "admin prohibited"},
    6: {(1, 0): "no route", (1, 1): "admin prohibited", (1, 3): "host unreachable", (1, 4): "port unreachable"},
}
ERRNO = {
    4: {"net unreachable": errno.ENETUNREACH, "no route": errno.ENETUNREACH},
    6: {"no route": errno.ENETUNREACH, "admin prohibited": errno.EACCES},
}
"""Which error a TCP client gets; for others see `tcp_error`."""
_ports = itertools.count(20000)


class Seen(NamedTuple):
    """What became of a packet: "delivered", "rejected" or "nothing"; where, to which address and port, from which, or how."""

    what: str
    netns: str = ""
    destination: tuple[IPAddress, int] | None = None
    source: tuple[IPAddress, int] | None = None
    how: str = ""
    answered: bool = False


NOTHING = Seen("nothing")


def tcp_error(version: int, how: str) -> int:
    """The error of a TCP client that is refused so."""
    kind = how.removeprefix("icmp ")
    if kind in ("tcp reset", "port unreachable"):
        return errno.ECONNREFUSED
    return ERRNO[version].get(kind, errno.EHOSTUNREACH)


def expected(trace: Trace, answer: Trace | None) -> Seen:
    """What should be seen of a packet that went like this, and whose answer went like that."""
    match trace.end:
        case Delivered(netns=netns, ip=ip, port=port):
            packet = trace.packet
            source = (packet.source, packet.source_port)
            return Seen("delivered", netns, (ip, port), source, answered=is_answered(trace.sent, answer))
        case Rejected(how=how):
            version = trace.sent.version
            return Seen(
                "rejected", how=how.removeprefix("icmp ") if trace.sent.protocol == "udp" else str(tcp_error(version, how))
            )
    return NOTHING


def is_answered(sent: Packet, answer: Trace | None) -> bool:
    """Does the answer come to the sender, from whom it sent to?"""
    if answer is None or not isinstance(answer.end, Delivered):
        return False
    came = answer.packet
    return (came.source, came.source_port, came.destination, came.destination_port) == (
        sent.destination,
        sent.destination_port,
        sent.source,
        sent.source_port,
    )


def next_port() -> int:
    """A source port that nobody had before."""
    return next(_ports)


class Sockets:
    """The sockets of some namespaces."""

    def __init__(self, namespaces: dict[str, Namespace], versions: Iterable[int] = (4, 6)) -> None:
        self._namespaces = namespaces
        self._servers: dict[socket.socket, tuple[str, str, int, int]] = {}
        for name, namespace in namespaces.items():
            for version, protocol, port in itertools.product(versions, KINDS, PORTS):
                server = namespace.run(_server, version, protocol, port)
                self._servers[server] = (name, protocol, version, port)

    def send(self, packet: Packet, netns: str, candidates: list[Seen]) -> Seen:
        """Send a packet from a namespace, and look what became of it. A packet that should come is waited for."""
        client = self._namespaces[netns].run(_client, packet)
        patience = QUIET_SECONDS if candidates == [NOTHING] else PATIENCE_SECONDS
        with contextlib.closing(client):
            try:
                if packet.protocol == "udp":
                    return self._udp(client, packet, patience)
                return self._tcp(client, packet, patience)
            finally:
                self._drain()

    def _udp(self, client: socket.socket, packet: Packet, patience: float) -> Seen:
        try:
            client.connect((str(packet.destination), packet.destination_port))
            client.send(b"question")
        except PermissionError:  # dropped in output; a rejection there is told as one from elsewhere
            pass
        except OSError as error:
            if error.errno != errno.ENETUNREACH:
                raise
            return Seen("rejected", how="net unreachable" if packet.version == 4 else "no route")
        ready, _, _ = select.select([client, *self._servers], [], [], patience)
        if client in ready:
            return Seen("rejected", how=_icmp(client, packet.version))
        for server in ready:
            name, _, version, port = self._servers[server]
            _, control, _, source = server.recvmsg(100, 1000)
            to = _destination(control, version)
            with contextlib.suppress(PermissionError):  # the answer is dropped in output
                server.sendmsg([b"answer"], _from(to, version), 0, source)
            answered = bool(select.select([client], [], [], QUIET_SECONDS * 5)[0]) and _receives(client)
            return Seen("delivered", name, (to, port), _pair(source), answered=answered)
        return NOTHING

    def _tcp(self, client: socket.socket, packet: Packet, patience: float) -> Seen:
        result = client.connect_ex((str(packet.destination), packet.destination_port))
        if result not in (0, errno.EINPROGRESS):
            return NOTHING if result == errno.EPERM else Seen("rejected", how=str(result))
        select.select([*self._servers], [client], [], patience)
        error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            return Seen("rejected", how=str(error))
        for server in select.select([*self._servers], [], [], QUIET_SECONDS)[0]:
            with contextlib.closing(server.accept()[0]) as accepted:
                to, source = _pair(accepted.getsockname()), _pair(accepted.getpeername())
                return Seen("delivered", self._servers[server][0], to, source, answered=True)
        return NOTHING

    def _drain(self) -> None:
        """Take what is left, so that it is not taken for the next packet's."""
        for server in select.select([*self._servers], [], [], 0)[0]:
            with contextlib.suppress(OSError):
                if self._servers[server][1] == "udp":
                    server.recv(100)
                else:
                    server.accept()[0].close()

    def close(self) -> None:
        """Close all sockets."""
        for server in self._servers:
            server.close()


def _server(version: int, protocol: str, port: int) -> socket.socket:
    made = socket.socket(FAMILIES[version], KINDS[protocol])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if version == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if protocol == "udp":
        level, option = (socket.IPPROTO_IP, IP_PKTINFO) if version == 4 else (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)
        made.setsockopt(level, option, 1)
    made.bind(("::" if version == 6 else "0.0.0.0", port))
    if protocol == "tcp":
        made.listen(100)
    made.setblocking(False)
    return made


def _client(packet: Packet) -> socket.socket:
    made = socket.socket(FAMILIES[packet.version], KINDS[packet.protocol])
    made.setblocking(False)
    if packet.protocol == "udp":
        level, option = (socket.IPPROTO_IP, IP_RECVERR) if packet.version == 4 else (socket.IPPROTO_IPV6, IPV6_RECVERR)
        made.setsockopt(level, option, 1)
    else:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT: it ends with a reset
    made.bind((str(packet.source), packet.source_port))
    return made


def _icmp(client: socket.socket, version: int) -> str:
    """Of which kind the error is that a UDP socket was told."""
    _, control, _, _ = client.recvmsg(100, 1000, socket.MSG_ERRQUEUE)
    _, _, kind, code = struct.unpack("=IBBB", control[0][2][:7])
    return ICMP[version].get((kind, code), f"{kind} {code}")


def _destination(control: list[tuple[int, int, bytes]], version: int) -> IPAddress:
    content = control[0][2]
    return ipaddress.ip_address(content[8:12] if version == 4 else content[:16])


def _from(ip: IPAddress, version: int) -> Iterator[tuple[int, int, bytes]]:
    """The control message that sends from this address."""
    if version == 4:
        yield socket.IPPROTO_IP, IP_PKTINFO, struct.pack("i4s4s", 0, ip.packed, bytes(4))
    else:
        yield socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, ip.packed + struct.pack("i", 0)


def _receives(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b"answer"
    except OSError:
        return False


def _pair(name: tuple[str, int]) -> tuple[IPAddress, int]:
    return ipaddress.ip_address(name[0]), name[1]


def flush_conntrack() -> None:
    """Delete all tracked connections of the current namespace (IPCTNL_MSG_CT_DELETE without a tuple)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, 0, 0, 0))
        netlink.recv(1000)

"""Ends TCP connections at a socket, whatever it waits for: its program gets an error, and the other end a reset (RFC 9293, 3.10.5). And
lists the sockets that wait for clients.

The kernel ends connections for whoever has CAP_NET_ADMIN in the user namespace of the socket's network namespace, if it was built with
CONFIG_INET_DIAG_DESTROY. Sources: include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c, tcp_abort of net/ipv4/tcp.c.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator

from podplane.kernel.errors import from_errno
from podplane.kernel.netlink import Message, Socket
from podplane.state.conntrack import Revoked
from podplane.state.value import IPAddress

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
REQUEST = struct.Struct("=BBBxI")
"""struct inet_diag_req_v2 up to its socket: family, protocol, extensions, states."""
ANY_SOCKET = 48
"""Bytes of struct inet_diag_sockid, which say nothing in a dump."""
ANY_COOKIE = b"\xff" * 8
"""INET_DIAG_NOCOOKIE, twice."""
PORTS, COOKIE = slice(4, 8), slice(44, 52)
"""In struct inet_diag_msg: those of its struct inet_diag_sockid. Its second byte is the state."""
LISTEN = 10
"""TCP_LISTEN."""
UNCONNECTED = 7
"""TCP_CLOSE, which a socket of UDP is in until it is connected."""
WAITING = {"tcp": (socket.IPPROTO_TCP, LISTEN), "udp": (socket.IPPROTO_UDP, UNCONNECTED)}
"""Protocols, and the state of their sockets that wait for clients."""
SOURCE_PORT, SOURCE = struct.Struct(">H"), slice(8, 24)
GONE = (errno.ENOENT, errno.ESTALE)
"""The connection has ended by itself, or another one is in its place."""


class Sockets:
    """Those of the namespace in which `sock` (of NETLINK_SOCK_DIAG) was opened."""

    def __init__(self, sock: Socket) -> None:
        self._socket = sock

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def end_at_server(self, connections: Iterable[Revoked]) -> int:
        """End these connections at the sockets of their servers; how many those were. KernelError when the kernel can't do it."""
        return sum(map(self._end, connections))

    def listening(self) -> Iterator[tuple[str, int, IPAddress]]:
        """Protocol, port and address of the sockets that wait for clients; none of a protocol that the kernel does not list. :: may be for
        IPv4, too. OSError when there is no answer."""
        for protocol, (number, state) in WAITING.items():
            for family in (socket.AF_INET, socket.AF_INET6):
                query = REQUEST.pack(family, number, 0, 1 << state) + bytes(ANY_SOCKET)
                with contextlib.suppress(FileNotFoundError):  # udp_diag is a module of its own
                    for _, found in self._socket.dump(SOCK_DIAG_BY_FAMILY, query):
                        address = found[SOURCE] if family == socket.AF_INET6 else found[SOURCE][:4]
                        yield protocol, SOURCE_PORT.unpack_from(found, 4)[0], ipaddress.ip_address(address)

    def _end(self, one: Revoked) -> bool:
        cookie = self._cookie(one)
        if not cookie:
            return False
        for refused in self._socket.request([Message(SOCK_DESTROY, 0, _request(one, cookie), "end a connection")]):
            if refused.errno not in GONE:
                raise from_errno("end a connection", refused.errno, refused.text)
            return False
        return True

    def _cookie(self, one: Revoked) -> bytes:
        """What tells the socket of a connection from all others; nothing when there is none. When a connection has no socket any more, the
        kernel tells the one that listens at its port (inet_lookup): to end that would end the server."""
        try:
            found = self._socket.ask(SOCK_DIAG_BY_FAMILY, _request(one, ANY_COOKIE))
        except OSError as error:
            if error.errno in GONE:
                return b""
            raise from_errno("look for a connection", error.errno or 0, error.strerror or "") from None
        is_its_own = found[PORTS] == _ports(one) and found[1] != LISTEN
        return found[COOKIE] if is_its_own else b""


def _ports(one: Revoked) -> bytes:
    return struct.pack(">HH", one.server_port, one.client_port)


def _request(one: Revoked, cookie: bytes) -> bytes:
    family = socket.AF_INET if one.server.version == 4 else socket.AF_INET6
    ips = b"".join(ip.packed.ljust(16, b"\0") for ip in (one.server, one.client))
    return REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFF_FFFF) + _ports(one) + ips + bytes(4) + cookie

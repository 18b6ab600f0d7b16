"""Ends TCP connections at a socket, whatever it waits for: its program gets an error, and the other end a reset (RFC 9293, 3.10.5).

The kernel does that for whoever has CAP_NET_ADMIN in the user namespace of the socket's network namespace, if it was built with
CONFIG_INET_DIAG_DESTROY. Sources: include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c, tcp_abort of net/ipv4/tcp.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from podplane.kernel.errors import from_errno
from podplane.kernel.netlink import Message, Socket
from podplane.state.conntrack import Revoked

NETLINK_SOCK_DIAG = 4
SOCK_DESTROY = 21
REQUEST = struct.Struct("=BBBxI")
"""struct inet_diag_req_v2 up to its socket: family, protocol, extensions, states."""
ANY_COOKIE = b"\xff" * 8
"""INET_DIAG_NOCOOKIE, twice."""


class Sockets:
    """Those of the namespace in which `sock` (of NETLINK_SOCK_DIAG) was opened."""

    def __init__(self, sock: Socket) -> None:
        self._socket = sock

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def end_at_server(self, connections: Iterable[Revoked]) -> int:
        """End these connections at the sockets of their servers; how many those were. KernelError when the kernel can't do it."""
        messages = [Message(SOCK_DESTROY, 0, _request(one), "end a connection") for one in connections]
        refused = self._socket.request(messages)
        for one in refused:
            if one.errno != errno.ENOENT:  # it has ended by itself
                raise from_errno("end a connection", one.errno, one.text)
        return len(messages) - len(refused)


def _request(one: Revoked) -> bytes:
    family = socket.AF_INET if one.server.version == 4 else socket.AF_INET6
    ports = struct.pack(">HH", one.server_port, one.client_port)
    ips = b"".join(ip.packed.ljust(16, b"\0") for ip in (one.server, one.client))
    return REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFF_FFFF) + ports + ips + bytes(4) + ANY_COOKIE

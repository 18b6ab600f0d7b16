"""Asking servers whether TCP connections stand, in the name of their clients: of those that policies took back the answer is denied.

A probe has a sequence number that its server does not wait for, as a keep-alive has (RFC 9293, 3.8.4). A server that knows the connection
answers with an acknowledgement (3.10.7.4), and the node's tables answer that with a reset of the number that the server waits for, which is
the only one that ends it (RFC 5961, 3.2). So a server on another node, which only reads, is told.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable

from podplane.kernel.announce import checksum
from podplane.state.conntrack import Sent

TCP = struct.Struct("!HHIIBBHHH")
"""Ports, sequence and acknowledgement number, length of the header, flags, window, checksum, urgent pointer."""
IPV4, IPV6 = struct.Struct("!BBHHHBBH4s4s"), struct.Struct("!IHBB16s16s")
WORDS, ACK, HOPS = 5, 0x10, 64
SEQUENCES = 0, 1 << 31
"""Of two numbers so far apart a server waits for one at most."""


class KeepAlives:
    """Raw sockets of the namespace in which it is made."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # the kernel has no IPv6
                self._sockets[family] = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def probe(self, connections: Iterable[Sent]) -> int:
        """Ask the servers of these connections; how many were asked."""
        return sum(map(self._probe, connections))

    def _probe(self, one: Sent) -> bool:
        own = self._sockets.get(socket.AF_INET if one.to.version == 4 else socket.AF_INET6)
        if own is None:
            return False
        try:
            for number in SEQUENCES:
                own.sendto(packet(one, number), (str(one.to), 0))
        except OSError:  # nothing leads there any more
            return False
        return True

    def close(self) -> None:
        """Close the sockets."""
        for own in self._sockets.values():
            own.close()


def packet(one: Sent, sequence: int) -> bytes:
    """A segment without data, with its IP header. Of IPv4's header the kernel writes the checksum."""
    ends = one.source.packed + one.to.packed
    pseudo = ends + struct.pack("!II", TCP.size, socket.IPPROTO_TCP)  # the same sum in both families
    bare = TCP.pack(one.source_port, one.to_port, sequence, 0, WORDS << 4, ACK, 0, 0, 0)
    segment = TCP.pack(one.source_port, one.to_port, sequence, 0, WORDS << 4, ACK, 0, checksum(pseudo + bare), 0)
    if one.to.version == 6:
        return IPV6.pack(6 << 28, TCP.size, socket.IPPROTO_TCP, HOPS, one.source.packed, one.to.packed) + segment
    size = IPV4.size + TCP.size
    return IPV4.pack(4 << 4 | WORDS, 0, size, 0, 0, HOPS, socket.IPPROTO_TCP, 0, one.source.packed, one.to.packed) + segment

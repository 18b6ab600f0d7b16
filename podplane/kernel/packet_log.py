"""Packets that rules logged: the reader of one group of NFLOG in one network namespace.

Each group has one reader. Without one, a rule that logs costs what its match costs, and the kernel keeps nothing. The kernel collects up to
`QUEUED` packets, or those of `FLUSH_SECONDS`, in one datagram; what the socket has no room for is lost, and only that is known of it.

Sources: include/uapi/linux/netfilter/nfnetlink_log.h, net/netfilter/nfnetlink_log.c; RFC 791, RFC 8200 (4, extension headers), RFC 4302.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from podplane.kernel.errors import from_errno
from podplane.kernel.netlink import Message, Overrun, Socket, attribute, be32, messages, parse_attributes, u8
from podplane.state.packet_log import LoggedPacket

ULOG = 4 << 8
PACKET, CONFIG = ULOG | 0, ULOG | 1
GENERIC = struct.Struct(">BBH")
"""struct nfgenmsg: family, version, group."""
COMMAND, MODE, BUFFER, TIMEOUT, QUEUE = 1, 2, 3, 4, 5
"""NFULA_CFG_*."""
BIND, COPY_PACKET = 1, 2
PAYLOAD, PREFIX = 9, 10
"""NFULA_*."""
COPIED = 128
"""Bytes of a packet, from its network header on: that, a few extension headers, and ports."""
QUEUED, BUFFER_BYTES = 32, 16 * 1024
FLUSH_SECONDS = 0.1
DATAGRAMS = 4
"""Read in one call: 128 packets, some 3 ms. The descriptor stays readable when there is more."""
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
WITH_PORTS = frozenset(("tcp", "udp", "sctp"))
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION))


class PacketLog:
    """The reader of a group; used from one thread at a time."""

    def __init__(self, sock: Socket, group: int) -> None:
        """`sock` is of NETLINK_NETFILTER, opened in the namespace. KernelError when the kernel has no NFLOG, or the group a reader."""
        self._socket = sock
        head = GENERIC.pack(socket.AF_UNSPEC, 0, group)
        how = attribute(MODE, struct.pack(">IBx", COPIED, COPY_PACKET))
        how += be32(BUFFER, BUFFER_BYTES) + be32(TIMEOUT, int(100 * FLUSH_SECONDS)) + be32(QUEUE, QUEUED)
        try:
            for body in (u8(COMMAND, BIND), how):
                for refusal in sock.request([Message(CONFIG, 0, head + body)]):
                    raise from_errno(f"read packets of NFLOG group {group}", refusal.errno, refusal.text)
        except BaseException:
            sock.close()
            raise

    def fileno(self) -> int:
        """Readable when there are packets."""
        return self._socket.fileno()

    def packets(self) -> list[LoggedPacket]:
        """Some of those that wait; what is no packet of IP is left out. Returns at once."""
        found: list[LoggedPacket] = []
        for _ in range(DATAGRAMS):
            try:
                found += packets_in(self._socket.receive_waiting())
            except BlockingIOError:
                break
            except Overrun:
                continue
        return found

    def close(self) -> None:
        """End; the rules log nothing from then on."""
        self._socket.close()


def packets_in(datagram: bytes) -> Iterator[LoggedPacket]:
    """The packets in one datagram of the kernel."""
    for kind, _, _, content in messages(datagram):
        if kind == PACKET:
            parts = parse_attributes(content, GENERIC.size)
            prefix = parts.get(PREFIX, b"").rstrip(b"\0").decode(errors="replace")
            if (packet := packet_from(prefix, parts.get(PAYLOAD, b""))) is not None:
                yield packet


def packet_from(prefix: str, content: bytes) -> LoggedPacket | None:
    """A packet by its first bytes; None for one whose network header is not whole."""
    version = content[0] >> 4 if content else 0
    if version == 4 and len(content) >= 20:
        is_first = not int.from_bytes(content[6:8], "big") & 0x1FFF
        source, destination = (socket.inet_ntop(socket.AF_INET, content[at : at + 4]) for at in (12, 16))
        upper = _upper(content, content[9], 4 * (content[0] & 0xF), is_first)
        return LoggedPacket(prefix, source, destination, *upper)
    if version == 6 and len(content) >= 40:
        source, destination = (socket.inet_ntop(socket.AF_INET6, content[at : at + 16]) for at in (8, 24))
        return LoggedPacket(prefix, source, destination, *_upper(content, *_behind_extensions(content)))
    return None


def _behind_extensions(content: bytes) -> tuple[int, int, bool]:
    """Of IPv6: the protocol, where its header begins, and whether the packet is no later fragment."""
    kind, at = content[6], 40
    while kind in EXTENSIONS and at + 8 <= len(content):
        length = 8 if kind == FRAGMENT else 4 * (content[at + 1] + 2) if kind == AUTHENTICATION else 8 * (content[at + 1] + 1)
        if kind == FRAGMENT and int.from_bytes(content[at + 2 : at + 4], "big") >> 3:
            return content[at], at + length, False
        kind, at = content[at], at + length
    return kind, at, True


def _upper(content: bytes, number: int, at: int, is_first: bool) -> tuple[str, int]:
    """The protocol, and the port that the packet was sent to."""
    name = PROTOCOLS.get(number, str(number))
    has_port = is_first and name in WITH_PORTS and at + 4 <= len(content)
    return name, int.from_bytes(content[at + 2 : at + 4], "big") if has_port else 0

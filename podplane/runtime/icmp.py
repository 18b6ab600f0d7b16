"""ICMP echo requests (RFC 792, RFC 4443): made, sent with "don't fragment", and recognized when answered.

They go over a raw socket, or, without CAP_NET_RAW, over one for pings alone (icmp(7)): the kernel puts an identifier of its own into
what is sent there, and what answers that is received without the header of IP.
"""

from __future__ import annotations

import socket
import struct

from podplane.runtime.sockets import family_of

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
HEADER = struct.Struct("!BBHHH")
IP_HEADER_BYTES = {4: 20, 6: 40}
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3
IPV6_DONTFRAG = 62
"""Options of linux/in.h and linux/in6.h. With PMTUDISC_PROBE a packet goes as it is, with DF set, or not at all."""


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def request(version: int, identifier: int, sequence: int, size: int = 0) -> bytes:
    """An echo request; `size` is the length of the whole IP packet in bytes, 0 for a small one."""
    payload = bytes(max(8, size - IP_HEADER_BYTES[version] - HEADER.size) if size else 8)
    message = HEADER.pack(ECHO_REQUEST[version], 0, 0, identifier, sequence) + payload
    if version == 6:
        return message  # the kernel fills in the checksum of ICMPv6 (RFC 3542, 3.1)
    return HEADER.pack(ECHO_REQUEST[4], 0, checksum(message), identifier, sequence) + payload


def reply(version: int, packet: bytes, *, is_raw: bool = True) -> tuple[int, int] | None:
    """(identifier, sequence) of an echo reply as a raw socket receives it, or one for pings; None for anything else."""
    start = (packet[0] & 15) * 4 if version == 4 and is_raw else 0
    if len(packet) < start + HEADER.size:
        return None
    kind, _, _, identifier, sequence = HEADER.unpack_from(packet, start)
    return (identifier, sequence) if kind == ECHO_REPLY[version] else None


def echo_socket(version: int) -> socket.socket:
    """A socket for ICMP that never fragments: a raw one, or else one for pings. OSError when this process may have neither."""
    try:
        return _socket(version, socket.SOCK_RAW)
    except PermissionError:
        return _socket(version, socket.SOCK_DGRAM)


def is_raw(sock: socket.socket) -> bool:
    """Is it a raw one?"""
    return sock.type == socket.SOCK_RAW


def _socket(version: int, kind: socket.SocketKind) -> socket.socket:
    if version == 4:
        sock = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    else:
        sock = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
    sock.setblocking(False)
    return sock


def version_of(ip: str) -> int:
    """4 or 6."""
    return 6 if family_of(ip) == socket.AF_INET6 else 4

"""Telling the neighbours on a link that an address is here now, so that nobody waits until he asks again.

IPv4: an ARP announcement (RFC 5227, 3); IPv6: an unsolicited neighbour advertisement that overrides (RFC 4861, 7.2.6).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable

from podplane.state.value import IPAddress

ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0806, 0x86DD
ARP = struct.Struct("!HHBBH6s4s6s4s")
"""Hardware and protocol type, their lengths, operation, sender's MAC and IP, target's MAC and IP (RFC 826)."""
ETHERNET, IPV4, ARP_REQUEST = 1, 0x0800, 1
IPV6 = struct.Struct("!IHBB16s16s")
"""Version, class and flow; payload length; next header; hop limit; source; destination (RFC 8200)."""
ADVERTISEMENT = struct.Struct("!BBHI16sBB6s")
"""Type, code, checksum, flags, target; option: type, length in units of 8 bytes, MAC."""
ICMPV6, HOP_LIMIT = 58, 255
NEIGHBOUR_ADVERTISEMENT, OVERRIDE, TARGET_LINK_ADDRESS = 136, 0x2000_0000, 2
ALL_NODES, ALL_NODES_MAC = ipaddress.IPv6Address("ff02::1").packed, bytes.fromhex("333300000001")
BROADCAST = b"\xff" * 6


class LinkSocket:
    """A socket that sends frames out of one link of the namespace in which it is opened (AF_PACKET)."""

    def __init__(self, link: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind((link, 0))

    def announce(self, ips: Iterable[IPAddress]) -> None:
        """Say that these addresses have the link's MAC. OSError when the link is down or gone."""
        with self._socket:
            mac = self._socket.getsockname()[4]
            for ip in ips:
                self._socket.send(frame(ip, mac))


def frame(ip: IPAddress, mac: bytes) -> bytes:
    """The frame that says so."""
    if isinstance(ip, ipaddress.IPv4Address):
        request = ARP.pack(ETHERNET, IPV4, 6, 4, ARP_REQUEST, mac, ip.packed, bytes(6), ip.packed)
        return BROADCAST + mac + struct.pack("!H", ETHERTYPE_ARP) + request
    body = _advertisement(ip.packed, mac, 0)
    body = _advertisement(ip.packed, mac, checksum(ip.packed + ALL_NODES + struct.pack("!II", len(body), ICMPV6) + body))
    header = IPV6.pack(6 << 28, len(body), ICMPV6, HOP_LIMIT, ip.packed, ALL_NODES)
    return ALL_NODES_MAC + mac + struct.pack("!H", ETHERTYPE_IPV6) + header + body


def _advertisement(ip: bytes, mac: bytes, checksum: int) -> bytes:
    return ADVERTISEMENT.pack(NEIGHBOUR_ADVERTISEMENT, 0, checksum, OVERRIDE, ip, TARGET_LINK_ADDRESS, 1, mac)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

"""Frames as bytes, as root in a pod can send them, and what comes to others of them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator

from podplane.kernel.namespace import Namespace
from podplane.state.value import IPAddress
from podplane.trace.packet import checksum

IPV4, ARP, IPV6, VLAN, QINQ = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8
ALL_FRAMES = 3
"""ETH_P_ALL."""
UDP, ICMP6 = 17, 58
BROADCAST = "ff:ff:ff:ff:ff:ff"
MARK = b"of this test"
"""In the payload of each packet."""


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def frame(to: str, source: str, kind: int, content: bytes) -> bytes:
    """An Ethernet frame."""
    return mac_bytes(to) + mac_bytes(source) + struct.pack(">H", kind) + content


def tagged(whole: bytes, vlan: int, kind: int = VLAN) -> bytes:
    """The frame with a VLAN tag (IEEE 802.1Q)."""
    return whole[:12] + struct.pack(">HH", kind, vlan) + whole[12:]


def arp(operation: int, mac: str, ip: IPAddress, to_mac: str, to: IPAddress) -> bytes:
    """RFC 826: 1 asks, 2 answers."""
    return (
        struct.pack(">HHBBH", 1, IPV4, 6, 4, operation)
        + mac_bytes(mac)
        + ip.packed
        + mac_bytes(to_mac)
        + to.packed
        + bytes(18)  # as short as a frame may be
    )


def packet(source: IPAddress, to: IPAddress, protocol: int, content: bytes, *, ttl: int = 64, options: bytes = b"") -> bytes:
    """An IPv4 packet, or one of IPv6, where `options` are extension headers, the first of them named by `protocol`."""
    if to.version == 6:
        length = len(options) + len(content)
        return struct.pack(">IHBB", 6 << 28, length, protocol, ttl) + source.packed + to.packed + options + content
    size = 20 + len(options)
    start = struct.pack(">BBHHHBB", 4 << 4 | size // 4, 0, size + len(content), 1, 0, ttl, protocol)
    addresses = source.packed + to.packed
    return start + checksum(start + b"\0\0" + addresses + options).to_bytes(2, "big") + addresses + options + content


def udp(source: IPAddress, to: IPAddress, ports: tuple[int, int], content: bytes = MARK, **more: object) -> bytes:
    """A UDP datagram in its packet."""
    header = struct.pack(">HHHH", *ports, 8 + len(content), 0)
    return packet(source, to, UDP, with_checksum(source, to, UDP, header + content, 6), **more)  # type: ignore[arg-type]


def icmp6(source: IPAddress, to: IPAddress, kind: int, content: bytes, *, ttl: int = 255) -> bytes:
    """An ICMPv6 message in its packet (RFC 4443)."""
    message = struct.pack(">BBH", kind, 0, 0) + content
    return packet(source, to, ICMP6, with_checksum(source, to, ICMP6, message, 2), ttl=ttl)


def with_checksum(source: IPAddress, to: IPAddress, protocol: int, content: bytes, at: int) -> bytes:
    """The content with its checksum at this offset."""
    pseudo = source.packed + to.packed + struct.pack(">II", len(content), protocol)
    whole = pseudo + content
    return content[:at] + (checksum(whole + bytes(len(whole) % 2)) or 0xFFFF).to_bytes(2, "big") + content[at + 2 :]


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The address that an interface with this MAC gives itself (RFC 4291, appendix A)."""
    own = mac_bytes(mac)
    return ipaddress.IPv6Address(bytes.fromhex("fe80" + "00" * 6) + bytes((own[0] ^ 2,)) + own[1:3] + b"\xff\xfe" + own[3:])


class Wire:
    """The interface of a pod, for whole frames."""

    def __init__(self, namespace: Namespace, interface: str = "eth0") -> None:
        self._socket = namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
        self._socket.bind((interface, ALL_FRAMES))
        self._socket.settimeout(2)

    def send(self, *frames: bytes) -> None:
        """Send them."""
        for one in frames:
            self._socket.send(one)

    def until(self, last: bytes) -> list[bytes]:
        """What came before the frame with these bytes. TimeoutError when it does not come."""
        found = []
        while last not in (content := self._receive()):
            found.append(content)
        return [one for one in found if one]

    def _receive(self) -> bytes:
        content, (_, _, direction, *_) = self._socket.recvfrom(4000)
        return b"" if direction == socket.PACKET_OUTGOING else content

    def close(self) -> None:
        """No more."""
        self._socket.close()


@contextlib.contextmanager
def receiver(namespace: Namespace, family: int, port: int) -> Iterator[socket.socket]:
    """A UDP socket of a namespace on all its addresses."""
    with contextlib.closing(namespace.run(socket.socket, family, socket.SOCK_DGRAM)) as own:
        own.bind(("", port))
        own.settimeout(2)
        yield own

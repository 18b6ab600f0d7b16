"""A packet as the evaluator sees it, and its headers as bytes, which nf_tables reads by offset.

Sources: RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443, RFC 9260; include/uapi/linux/if_packet.h.
"""

from __future__ import annotations

import ipaddress
import struct

import msgspec

from podplane.state.value import IPAddress

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "gre": 47, "icmp": 1, "icmpv6": 58}
NAMES = {number: name for name, number in PROTOCOLS.items()}
WITH_PORTS = frozenset({"tcp", "udp", "sctp"})
ICMP = frozenset({"icmp", "icmpv6"})
ECHO_REQUEST = {"icmp": 8, "icmpv6": 128}
ECHO_REPLY = {"icmp": 0, "icmpv6": 129}
NO_MAC = "00:00:00:00:00:00"
HOST, BROADCAST, MULTICAST, OTHER, OUTGOING = 0, 1, 2, 3, 4
"""PACKET_*: whom a received frame is for."""
SYN, RESET, ACK = 2, 4, 16
"""Flags of TCP."""
ETHERTYPE = {4: 0x0800, 6: 0x86DD}


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """One packet at one place.

    `protocol` is one of PROTOCOLS, or the number of another protocol as text. Of ICMP, `source_port` is the identifier of an
    echo and `destination_port` the type. `link` is the interface by which it came, "" on the machine that sends it.
    `state` is what connection tracking says of it in the first namespace ("new", "established", "related", "invalid",
    "untracked"); "" lets the evaluator's memory of connections decide.
    """

    source: IPAddress
    destination: IPAddress
    protocol: str = "tcp"
    source_port: int = 40000
    destination_port: int = 80
    ttl: int = 64
    source_mac: str = NO_MAC
    destination_mac: str = NO_MAC
    mark: int = 0
    link: str = ""
    state: str = ""
    pkttype: int = HOST
    tcp_flags: int = SYN
    payload_length: int = 0

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.destination.version

    @property
    def protocol_number(self) -> int:
        """The number of the transport protocol."""
        number = PROTOCOLS.get(self.protocol)
        return int(self.protocol) if number is None else number

    def __str__(self) -> str:
        if self.protocol not in WITH_PORTS:
            return f"{self.protocol} {self.source} → {self.destination}"
        return f"{self.protocol} {_socket(self.source, self.source_port)} → {_socket(self.destination, self.destination_port)}"


def _socket(ip: IPAddress, port: int) -> str:
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def echo(source: IPAddress, destination: IPAddress, identifier: int = 1) -> Packet:
    """An echo request (ping)."""
    protocol = "icmp" if destination.version == 4 else "icmpv6"
    return Packet(
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=identifier,
        destination_port=ECHO_REQUEST[protocol],
    )


def link_header(packet: Packet) -> bytes:
    """The Ethernet header, 14 bytes."""
    macs = bytes.fromhex((packet.destination_mac + packet.source_mac).replace(":", ""))
    return macs + ETHERTYPE[packet.version].to_bytes(2, "big")


def network_header(packet: Packet) -> bytes:
    """The IPv4 header without options, 20 bytes, or the IPv6 header without extensions, 40 bytes."""
    length = len(transport_header(packet)) + packet.payload_length
    addresses = packet.source.packed + packet.destination.packed
    if packet.version == 6:
        return struct.pack(">IHBB", 6 << 28, length, packet.protocol_number, packet.ttl) + addresses
    start = struct.pack(">BBHHHBB", 0x45, 0, 20 + length, 0, 0x4000, packet.ttl, packet.protocol_number)
    return start + checksum(start + b"\0\0" + addresses).to_bytes(2, "big") + addresses


def checksum(content: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport_header(packet: Packet) -> bytes:
    """The header of TCP (20 bytes), UDP (8), SCTP (12), GRE without key (4) or an ICMP echo (8), checksums zero; nothing for another
    protocol."""
    ports = (packet.source_port, packet.destination_port)
    match packet.protocol:
        case "tcp":
            return struct.pack(">HHIIBBHHH", *ports, 0, 0, 5 << 4, packet.tcp_flags, 0xFFFF, 0, 0)
        case "udp":
            return struct.pack(">HHHH", *ports, 8 + packet.payload_length, 0)
        case "sctp":
            return struct.pack(">HHII", *ports, 0, 0)
        case "gre":
            return struct.pack(">HH", 0, ETHERTYPE[packet.version])
        case "icmp" | "icmpv6":
            return struct.pack(">BBHHH", packet.destination_port, 0, 0, packet.source_port, 1)
    return b""


def with_link_header(packet: Packet, header: bytes) -> Packet:
    """The packet in a frame with this Ethernet header."""
    return msgspec.structs.replace(packet, destination_mac=header[:6].hex(":"), source_mac=header[6:12].hex(":"))


def with_network_header(packet: Packet, header: bytes) -> Packet:
    """The packet with the addresses, the TTL and the protocol of this header."""
    if packet.version == 6:
        protocol, ttl, addresses = header[6], header[7], (header[8:24], header[24:40])
    else:
        protocol, ttl, addresses = header[9], header[8], (header[12:16], header[16:20])
    source, destination = map(ipaddress.ip_address, addresses)
    name = NAMES.get(protocol, str(protocol))
    return msgspec.structs.replace(packet, source=source, destination=destination, ttl=ttl, protocol=name)


def with_transport_header(packet: Packet, header: bytes) -> Packet:
    """The packet with the ports and TCP flags of this header, or the type and identifier of an ICMP echo."""
    if packet.protocol in ICMP:
        return msgspec.structs.replace(packet, destination_port=header[0], source_port=int.from_bytes(header[4:6], "big"))
    ports = (int.from_bytes(header[:2], "big"), int.from_bytes(header[2:4], "big"))
    flags = header[13] if packet.protocol == "tcp" else packet.tcp_flags
    return msgspec.structs.replace(packet, source_port=ports[0], destination_port=ports[1], tcp_flags=flags)

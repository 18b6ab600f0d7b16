"""Connection tracking and address translation of one packet in one namespace, as nf_conntrack and nf_nat do it.

The first packet of a connection chooses its translation; later ones, and answers, follow what was chosen.
Sources: net/netfilter/{nf_conntrack_core,nf_nat_core}.c, include/uapi/linux/netfilter/nf_nat.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from podplane.state.value import IPAddress
from podplane.trace.memory import CONFIRMED, DST_NAT, SEEN_REPLY, SRC_NAT, Connection, Tuple, tuple_of
from podplane.trace.packet import ICMP, WITH_PORTS, Packet

SOURCE, DESTINATION = 0, 1
"""Which end of a packet is translated (NF_NAT_MANIP_*, NFT_NAT_SNAT and NFT_NAT_DNAT)."""
BIT = {SOURCE: SRC_NAT, DESTINATION: DST_NAT}
RANDOM_PORT = 1 << 2 | 1 << 4
"""NF_NAT_RANGE_PROTO_RANDOM, NF_NAT_RANGE_PROTO_RANDOM_FULLY."""
FIRST_PORT, LAST_PORT = 1024, 65535


@dataclass(slots=True)
class Track:
    """What connection tracking knows of a packet: its connection (None: invalid or untracked), and its direction.

    `done` are the ends whose translation is decided.
    """

    state: str
    connection: Connection | None = None
    is_reply: bool = False
    done: set[int] = field(default_factory=set)


def track(packet: Packet, known: Mapping[Tuple, Connection]) -> Track:
    """Find the packet's connection, or begin one."""
    own = tuple_of(packet)
    if packet.state in ("invalid", "untracked"):
        return Track(packet.state)
    found = known.get(own)
    if found is None:
        begun = Connection(own, own.inverse)
        settled = packet.state == "established"
        return Track(packet.state or "new", begun, done={SOURCE, DESTINATION} if settled else set())
    is_reply = own == found.reply and own != found.original
    if is_reply:
        found = msgspec.structs.replace(found, status=found.status | SEEN_REPLY)
    state = "established" if found.status & SEEN_REPLY else "new"
    return Track(packet.state or state, found, is_reply, {SOURCE, DESTINATION})


def confirm(seen: Track, known: dict[Tuple, Connection]) -> None:
    """Remember the connection of a packet that passed all hooks."""
    if seen.connection is None:
        return
    seen.connection = msgspec.structs.replace(seen.connection, status=seen.connection.status | CONFIRMED)
    known[seen.connection.original] = known[seen.connection.reply] = seen.connection


@dataclass(frozen=True, slots=True)
class Range:
    """What a translation may choose: an address (None: as it is), ports (0: as they are), NF_NAT_RANGE_* flags."""

    address: IPAddress | None = None
    port: int = 0
    port_max: int = 0
    flags: int = 0


def choose_translation(
    seen: Track, end: int, wanted: Range, known: Mapping[Tuple, Connection], choose: Callable[[int], int]
) -> None:
    """Decide what becomes of one end of a connection (nf_nat_setup_info); a decision is made once.

    A source port that another connection has, or that shall be random, becomes the first free one; the kernel takes any.
    """
    connection = seen.connection
    if connection is None or end in seen.done:
        return
    seen.done.add(end)
    current = connection.reply.inverse
    new = _free(_within(current, end, wanted, choose), end, wanted, known, connection)
    if new != current:
        seen.connection = msgspec.structs.replace(connection, reply=new.inverse, status=connection.status | BIT[end])


def _within(current: Tuple, end: int, wanted: Range, choose: Callable[[int], int]) -> Tuple:
    """The tuple with the wanted address and port."""
    port = current.source_port if end == SOURCE else current.destination_port
    if current.protocol in WITH_PORTS and wanted.port and not wanted.port <= port <= wanted.port_max:
        port = wanted.port + (choose(wanted.port_max - wanted.port + 1) if wanted.port_max > wanted.port else 0)
    if end == SOURCE:
        return current._replace(source=wanted.address or current.source, source_port=port)
    return current._replace(destination=wanted.address or current.destination, destination_port=port)


def _free(new: Tuple, end: int, wanted: Range, known: Mapping[Tuple, Connection], own: Connection) -> Tuple:
    """The tuple, with a source port that makes its answers those of this connection alone."""

    def is_taken(candidate: Tuple) -> bool:
        other = known.get(candidate.inverse)
        return other is not None and other.original != own.original

    random = bool(wanted.flags & RANDOM_PORT) and new.protocol in WITH_PORTS
    if end == DESTINATION or not (random or is_taken(new)) or new.protocol not in WITH_PORTS | ICMP:
        return new
    first, last = (wanted.port, wanted.port_max) if wanted.port else (FIRST_PORT, LAST_PORT)
    candidates = (new._replace(source_port=port) for port in range(first, last + 1))
    return next((candidate for candidate in candidates if not is_taken(candidate)), new)


def translate(packet: Packet, seen: Track, end: int) -> Packet:
    """The packet with one end as its connection has it (nf_nat_packet). An answer is translated back, its other end first."""
    connection = seen.connection
    if connection is None:
        return packet
    changed = BIT[end] if not seen.is_reply else BIT[1 - end]
    if not connection.status & changed:
        return packet
    target = (connection.original if seen.is_reply else connection.reply).inverse
    has_ports = packet.protocol in WITH_PORTS
    if end == SOURCE:
        port = target.source_port if has_ports or packet.protocol in ICMP else packet.source_port
        return msgspec.structs.replace(packet, source=target.source, source_port=port)
    if packet.protocol in ICMP and seen.is_reply:  # the identifier of an echo is one, for both ends
        return msgspec.structs.replace(packet, destination=target.destination, source_port=target.source_port)
    port = target.destination_port if has_ports else packet.destination_port
    return msgspec.structs.replace(packet, destination=target.destination, destination_port=port)

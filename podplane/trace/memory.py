"""What a kernel remembers from packet to packet: tracked connections, and elements that rules added to sets.

It is an input and an output of an evaluation. Time does not pass in it: nothing expires.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from podplane.state.value import IPAddress
from podplane.trace.packet import ECHO_REPLY, ECHO_REQUEST, ICMP, Packet

SEEN_REPLY, CONFIRMED, SRC_NAT, DST_NAT = 1 << 1, 1 << 3, 1 << 4, 1 << 5
"""Bits of a connection's status (IPS_*)."""
TURNED = {ECHO_REQUEST[name]: ECHO_REPLY[name] for name in ICMP} | {ECHO_REPLY[name]: ECHO_REQUEST[name] for name in ICMP}


class Tuple(NamedTuple):
    """What tells packets of one direction of a connection (nf_conntrack_tuple); ports as in Packet."""

    protocol: str
    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int

    @property
    def inverse(self) -> Tuple:
        """The tuple of an answer."""
        if self.protocol in ICMP:
            kind = TURNED.get(self.destination_port, self.destination_port)
            return Tuple(self.protocol, self.destination, self.source_port, self.source, kind)
        return Tuple(self.protocol, self.destination, self.destination_port, self.source, self.source_port)


def tuple_of(packet: Packet) -> Tuple:
    """The tuple of a packet as it is."""
    return Tuple(packet.protocol, packet.source, packet.source_port, packet.destination, packet.destination_port)


class Connection(msgspec.Struct, frozen=True):
    """A tracked connection: the tuple that the client sends, and the one that answers have."""

    original: Tuple
    reply: Tuple
    status: int = 0
    mark: int = 0


SetName = tuple[str, str, str, str]
"""(namespace, family, table, set)."""


@dataclass(slots=True)
class Memory:
    """Connections of each namespace by both of their tuples; keys and data of elements that rules added."""

    connections: dict[str, dict[Tuple, Connection]] = field(default_factory=dict)
    elements: dict[SetName, dict[bytes, bytes]] = field(default_factory=dict)

    def copy(self) -> Memory:
        """The same, to be changed on its own."""
        return Memory(
            {name: dict(own) for name, own in self.connections.items()},
            {name: dict(own) for name, own in self.elements.items()},
        )

"""What an evaluation says: where the packet went, by which steps, and what decided each of them."""

from __future__ import annotations

import msgspec

from podplane.state.nft import Element
from podplane.state.value import IPAddress, Value
from podplane.trace.memory import Memory
from podplane.trace.packet import Packet


class Hop(msgspec.Struct, frozen=True):
    """One step: in which namespace, at which stage, what decided (None: the kernel itself), in words, and the packet after it.

    `comment` is that of the rule, or the alias of the link: it names the API object that asked for it. `elements` are those
    of sets and maps that the rule found; their comments name objects too.
    """

    netns: str
    stage: str
    text: str
    packet: Packet
    value: Value | None = None
    comment: str = ""
    elements: tuple[Element, ...] = ()

    def __str__(self) -> str:
        names = [self.comment, *(element.comment for element in self.elements)]
        told = ", ".join(dict.fromkeys(name for name in names if name))
        return f"{self.netns or 'node'} {self.stage}: {self.text}{f' ({told})' if told else ''}"


class Delivered(msgspec.Struct, frozen=True):
    """It reached this address and port of a namespace; whether a socket listens there is not known."""

    netns: str
    ip: IPAddress
    port: int
    protocol: str

    def __str__(self) -> str:
        return f"delivered to {self.netns or 'node'}, {self.protocol} {self.ip} port {self.port}"


class Forwarded(msgspec.Struct, frozen=True):
    """It left the world by a link, to a MAC; "" when that must be asked for (ARP, neighbour solicitation)."""

    netns: str
    link: str
    mac: str = ""

    def __str__(self) -> str:
        return f"left {self.netns or 'node'} by {self.link} to {self.mac or 'who answers for the next hop'}"


class Dropped(msgspec.Struct, frozen=True):
    """Nobody is told."""

    by: Hop

    def __str__(self) -> str:
        return f"dropped: {self.by}"


class Rejected(msgspec.Struct, frozen=True):
    """The sender is told: `how` is "tcp reset", or "icmp …" with the reason."""

    by: Hop
    how: str

    def __str__(self) -> str:
        return f"rejected with {self.how}: {self.by}"


class Unknown(msgspec.Struct, frozen=True):
    """The values don't say."""

    why: str

    def __str__(self) -> str:
        return f"unknown: {self.why}"


Ending = Delivered | Forwarded | Dropped | Rejected | Unknown


class Trace(msgspec.Struct, frozen=True):
    """The way of one packet: as it was sent, as it was at its end, and what the machines remember afterwards."""

    sent: Packet
    hops: tuple[Hop, ...]
    end: Ending
    packet: Packet
    memory: Memory

    @property
    def comments(self) -> tuple[str, ...]:
        """The API objects that had a part in it, in the order of the steps."""
        names = (name for hop in self.hops for name in (hop.comment, *(e.comment for e in hop.elements)))
        return tuple(dict.fromkeys(name for name in names if name))

    def __str__(self) -> str:
        return "\n".join([str(self.sent), *(f"  {hop}" for hop in self.hops), f"  → {self.end}"])

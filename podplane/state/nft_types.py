"""nft's data types: their numbers in concatenations, their sizes, and parts of keys as bytes (nft's datatype.h)."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from podplane.state.nft import Part

HOST_ENDIAN, BIG_ENDIAN = 1, 2


@dataclass(frozen=True, slots=True)
class DataType:
    """A type: number, size in bytes, byte order (host 1, big 2, none 0)."""

    number: int
    size: int
    order: int


TYPES: dict[str, DataType] = {
    "mark": DataType(19, 4, HOST_ENDIAN),
    "ipv4_addr": DataType(7, 4, BIG_ENDIAN),
    "ipv6_addr": DataType(8, 16, BIG_ENDIAN),
    "ether_addr": DataType(9, 6, BIG_ENDIAN),
    "inet_proto": DataType(12, 1, BIG_ENDIAN),
    "inet_service": DataType(13, 2, BIG_ENDIAN),
    "ifname": DataType(41, 16, HOST_ENDIAN),
    "integer": DataType(4, 4, HOST_ENDIAN),
    "verdict": DataType(1, 0, 0),
}
VERDICT_TYPE = 0xFFFF_FF00
"""NFT_DATA_VERDICT: the data type number of verdict maps."""
TYPE_BITS = 6
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "ipv6-icmp": 58}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def type_number(names: tuple[str, ...]) -> int:
    """One type's number; of a concatenation, all numbers in six bits each."""
    if names == ("verdict",):
        return VERDICT_TYPE
    number = 0
    for name in names:
        number = number << TYPE_BITS | TYPES[name].number
    return number


def size(names: tuple[str, ...]) -> int:
    """Bytes of a key: a single type's own size, parts of a concatenation padded to whole registers of four bytes."""
    if len(names) == 1:
        return TYPES[names[0]].size
    return sum((TYPES[name].size + 3) & ~3 for name in names)


def _address(part: Any) -> bytes:
    packed: bytes = part.packed if hasattr(part, "packed") else part.network_address.packed
    return packed


def _number(size: int, order: Literal["big", "little"]) -> Callable[[Any], bytes]:
    return lambda part: part.to_bytes(size, order)


PACKERS: dict[str, Callable[[Any], bytes]] = {
    "mark": _number(4, "little"),
    "integer": _number(4, "little"),
    "ipv4_addr": _address,
    "ipv6_addr": _address,
    "ether_addr": lambda part: bytes.fromhex(part.replace(":", "")),
    "inet_proto": lambda part: bytes((part if isinstance(part, int) else PROTOCOLS[part],)),
    "inet_service": _number(2, "big"),
    "ifname": lambda part: (part.encode() + b"\0").ljust(16, b"\0"),
}
PADDING = {name: bytes(-kind.size & 3) for name, kind in TYPES.items()}


def part_bytes(name: str, part: Part) -> bytes:
    """One part of a key. ValueError when the value is none of this type."""
    try:
        content = PACKERS[name](part)
    except (KeyError, OverflowError, AttributeError) as error:
        raise ValueError(f"{part!r} is no {name}") from error
    if len(content) != TYPES[name].size:
        raise ValueError(f"{part!r} is no {name}")
    return content


def key_bytes(names: tuple[str, ...], parts: tuple[Part, ...]) -> bytes:
    """A whole key; parts of a concatenation padded to registers."""
    if len(names) == 1:
        return part_bytes(names[0], parts[0])
    return b"".join([part_bytes(name, part) + PADDING[name] for name, part in zip(names, parts, strict=True)])


def key_parts(names: tuple[str, ...], content: bytes) -> tuple[Part, ...]:
    """The inverse of `key_bytes`."""
    return tuple([unpack(content[start:end]) for unpack, start, end in _layout(names)])


@functools.cache
def _layout(names: tuple[str, ...]) -> tuple[tuple[Callable[[bytes], Part], int, int], ...]:
    """How each part of a key is read, and where it lies."""
    found, offset = [], 0
    for name in names:
        length = TYPES[name].size
        found.append((UNPACKERS[name], offset, offset + length))
        offset += length if len(names) == 1 else (length + 3) & ~3
    return tuple(found)


def _host_number(content: bytes) -> int:
    return int.from_bytes(content, "little")


UNPACKERS: dict[str, Callable[[bytes], Part]] = {
    "mark": _host_number,
    "integer": _host_number,
    "ipv4_addr": ipaddress.IPv4Address,
    "ipv6_addr": ipaddress.IPv6Address,
    "ether_addr": lambda content: content.hex(":"),
    "inet_proto": lambda content: PROTOCOL_NAMES.get(content[0], content[0]),
    "inet_service": lambda content: int.from_bytes(content, "big"),
    "ifname": lambda content: content.rstrip(b"\0").decode(),
}

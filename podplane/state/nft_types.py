"""nft's data types: their numbers in concatenations, their sizes, and parts of keys as bytes (nft's datatype.h)."""

from __future__ import annotations

import functools
import ipaddress
import operator
import socket
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from podplane.state.nft import Part

HOST_ENDIAN, BIG_ENDIAN = 1, 2


class DataType(msgspec.Struct, frozen=True):
    """A type: number, size in bytes, byte order (host 1, big 2, none 0)."""

    number: int
    size: int
    order: int


TYPES: dict[str, DataType] = {
    "mark": DataType(19, 4, HOST_ENDIAN),
    "ipv4_addr": DataType(7, 4, BIG_ENDIAN),
    "ipv6_addr": DataType(8, 16, BIG_ENDIAN),
    "ether_addr": DataType(9, 6, BIG_ENDIAN),
    "ether_type": DataType(10, 2, BIG_ENDIAN),
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


def _ipv4(part: Any) -> bytes:
    if isinstance(part, ipaddress.IPv4Address):
        return part.packed
    if isinstance(part, ipaddress.IPv4Network):
        return part.network_address.packed
    raise ValueError("not an IPv4 address or network")


def _ipv6(part: Any) -> bytes:
    if isinstance(part, ipaddress.IPv6Address):
        return part.packed
    if isinstance(part, ipaddress.IPv6Network):
        return part.network_address.packed
    raise ValueError("not an IPv6 address or network")


def _ether(part: Any) -> bytes:
    content = bytes.fromhex(part.replace(":", ""))
    if len(content) != TYPES["ether_addr"].size:
        raise ValueError("not six bytes")
    return content


def _ifname(part: Any) -> bytes:
    content: bytes = part.encode()
    if len(content) >= TYPES["ifname"].size:
        raise ValueError("too long for an interface name")
    return content


PACKERS: dict[str, tuple[str, Callable[[Any], int | bytes]]] = {
    "mark": ("I", operator.index),
    "integer": ("I", operator.index),
    "ipv4_addr": ("4s", _ipv4),
    "ipv6_addr": ("16s", _ipv6),
    "ether_addr": ("6s", _ether),
    "inet_proto": ("B", lambda part: PROTOCOLS.get(part, part)),
    "inet_service": ("2s", lambda part: part.to_bytes(2, "big")),
    "ifname": ("16s", _ifname),
}
"""How a part is packed: its format (`struct`, little endian), and what makes the value for that."""


def address_bytes(ip: str) -> bytes:
    """An address as a key has it, of either version: in a thirtieth of the time of `ipaddress`. OSError for what is none."""
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)


def key_bytes(names: tuple[str, ...], parts: tuple[Part, ...]) -> bytes:
    """A whole key; parts of a concatenation padded to registers. ValueError when a part is no value of its type."""
    return key_packer(names)(parts)


@functools.cache
def key_packer(names: tuple[str, ...]) -> Callable[[tuple[Part, ...]], bytes]:
    """`key_bytes` for these types, which whoever packs many keys asks for once. ValueError for a type whose values are no keys."""
    if missing := [name for name in names if name not in PACKERS]:
        raise ValueError(f"no value can be packed as {missing[0]}")
    padding = ["" if len(names) == 1 else "x" * (-TYPES[name].size & 3) for name in names]
    pack = struct.Struct("<" + "".join(PACKERS[name][0] + pad for name, pad in zip(names, padding, strict=True))).pack
    converters = [PACKERS[name][1] for name in names]

    def pack_parts(parts: tuple[Part, ...]) -> bytes:
        return pack(*[convert(part) for convert, part in zip(converters, parts, strict=True)])

    if len(names) == 2:  # as in all large sets
        first, second = converters

        def pack_parts(parts: tuple[Part, ...]) -> bytes:
            one, other = parts
            return pack(first(one), second(other))

    def packed(parts: tuple[Part, ...]) -> bytes:
        try:
            return pack_parts(parts)
        except (ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise ValueError(f"{', '.join(map(str, parts))} is no {' . '.join(names)}: {error}") from error

    return packed


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

"""Rule expressions to and from NFTA_EXPR attributes: one table says how each field travels.

A row of the table is the kernel's name of the expression and, for each field, its attribute and its kind. What the
kernel leaves out of a dump comes back as the field's default.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

from podplane.kernel.netlink import NLA_F_NESTED, attribute, attributes, be16, be32, be64, nested, parse_attributes, text, u8
from podplane.state import nft

NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 1, 2
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
NUMBER, BYTE, SHORT, LONG, TEXT, DATA = "u32", "u8", "u16", "u64", "text", "data"

Field = tuple[int, str, str]
TABLE: dict[type[nft.Expression], tuple[str, tuple[Field, ...]]] = {
    nft.Payload: (
        "payload",
        (
            (1, "dreg", NUMBER),
            (2, "base", NUMBER),
            (3, "offset", NUMBER),
            (4, "length", NUMBER),
            (5, "sreg", NUMBER),
            (6, "checksum", NUMBER),
            (7, "checksum_offset", NUMBER),
            (8, "checksum_flags", NUMBER),
        ),
    ),
    nft.Meta: ("meta", ((1, "dreg", NUMBER), (2, "key", NUMBER), (3, "sreg", NUMBER))),
    nft.Ct: ("ct", ((1, "dreg", NUMBER), (2, "key", NUMBER), (3, "direction", BYTE), (4, "sreg", NUMBER))),
    nft.Cmp: ("cmp", ((1, "sreg", NUMBER), (2, "op", NUMBER), (3, "data", DATA))),
    nft.Range: ("range", ((1, "sreg", NUMBER), (2, "op", NUMBER), (3, "low", DATA), (4, "high", DATA))),
    nft.Bitwise: (
        "bitwise",
        ((1, "sreg", NUMBER), (2, "dreg", NUMBER), (3, "length", NUMBER), (4, "mask", DATA), (5, "xor", DATA)),
    ),
    nft.Lookup: ("lookup", ((1, "set", TEXT), (2, "sreg", NUMBER), (3, "dreg", NUMBER), (5, "flags", NUMBER))),
    nft.Immediate: ("immediate", ((1, "dreg", NUMBER), (2, "data", DATA))),
    nft.Counter: ("counter", ()),
    nft.CounterReference: ("objref", ((1, "type", NUMBER), (2, "name", TEXT))),
    nft.Masquerade: ("masq", ((1, "flags", NUMBER),)),
    nft.Nat: (
        "nat",
        (
            (1, "type", NUMBER),
            (2, "family", NUMBER),
            (3, "address", NUMBER),
            (4, "address_max", NUMBER),
            (5, "port", NUMBER),
            (6, "port_max", NUMBER),
            (7, "flags", NUMBER),
        ),
    ),
    nft.Redirect: ("redir", ((1, "port", NUMBER), (2, "port_max", NUMBER), (3, "flags", NUMBER))),
    nft.Reject: ("reject", ((1, "type", NUMBER), (2, "code", BYTE))),
    nft.Numgen: ("numgen", ((1, "dreg", NUMBER), (2, "modulus", NUMBER), (3, "type", NUMBER), (4, "offset", NUMBER))),
    nft.Hash: (
        "hash",
        (
            (1, "sreg", NUMBER),
            (2, "dreg", NUMBER),
            (3, "length", NUMBER),
            (4, "modulus", NUMBER),
            (5, "seed", NUMBER),
            (6, "offset", NUMBER),
            (7, "type", NUMBER),
        ),
    ),
    nft.Fib: ("fib", ((1, "dreg", NUMBER), (2, "result", NUMBER), (3, "flags", NUMBER))),
    nft.Limit: (
        "limit",
        ((1, "rate", LONG), (2, "unit", LONG), (3, "burst", NUMBER), (4, "type", NUMBER), (5, "flags", NUMBER)),
    ),
    nft.Log: ("log", ((1, "group", SHORT), (2, "prefix", TEXT))),
    nft.Notrack: ("notrack", ()),
    nft.RouteLoad: ("rt", ((1, "dreg", NUMBER), (2, "key", NUMBER))),
    nft.ByteOrder: (
        "byteorder",
        ((1, "sreg", NUMBER), (2, "dreg", NUMBER), (3, "op", NUMBER), (4, "length", NUMBER), (5, "size", NUMBER)),
    ),
    nft.SetTcpOption: (
        "exthdr",
        ((2, "option", BYTE), (3, "offset", NUMBER), (4, "length", NUMBER), (6, "operation", NUMBER), (7, "sreg", NUMBER)),
    ),
    nft.Dynset: (
        "dynset",
        ((1, "set", TEXT), (3, "op", NUMBER), (4, "key", NUMBER), (5, "data", NUMBER), (6, "timeout", LONG)),
    ),
}
NO_PORTS = {"port": 0, "port_max": 0}
NO_REGISTERS = {"address": 0, "address_max": 0, **NO_PORTS}
UNSENT: dict[type[nft.Expression], dict[str, Any]] = {
    nft.Payload: {"dreg": 0, "sreg": 0, "checksum": 0, "checksum_offset": 0, "checksum_flags": 0},
    nft.Meta: {"dreg": 0, "sreg": 0},
    nft.Ct: {"dreg": 0, "sreg": 0, "direction": -1},
    nft.Lookup: {"dreg": -1},
    nft.Nat: NO_REGISTERS,
    nft.Redirect: NO_PORTS,
    nft.Hash: {"seed": 0},
    nft.Log: {"prefix": ""},
    nft.Dynset: {"timeout": 0},
}
"""The values that say "none" to us; the kernel hears that from an attribute that is not there."""
ADDED: dict[str, dict[int, int | None]] = {
    "counter": {1: None, 2: None},
    "bitwise": {6: 0},
    "log": {3: 0, 4: None, 5: 4, 6: 0},
    "dynset": {9: 0},
    "exthdr": {5: 0},
}
"""Attributes that the kernel dumps though we never send them, and the value that they have then; None for any."""
BY_NAME = {name: (kind, fields) for kind, (name, fields) in TABLE.items()}
ENCODERS: dict[str, Callable[[int, Any], bytes]] = {
    NUMBER: be32,
    BYTE: u8,
    SHORT: be16,
    LONG: be64,
    TEXT: text,
    DATA: lambda kind, value: nested(kind, data(value)),
}
NUMBERS = {NUMBER: struct.Struct(">I"), BYTE: struct.Struct(">B"), SHORT: struct.Struct(">H"), LONG: struct.Struct(">Q")}


def data(value: bytes | nft.Verdict) -> bytes:
    """The inside of a data attribute: a value, or a verdict."""
    if isinstance(value, bytes):
        return attribute(NFTA_DATA_VALUE, value)
    parts = [be32(NFTA_VERDICT_CODE, value.code & 0xFFFF_FFFF)]
    if value.chain:
        parts.append(text(NFTA_VERDICT_CHAIN, value.chain))
    return nested(NFTA_DATA_VERDICT, *parts)


def data_from(content: bytes) -> bytes | nft.Verdict:
    """The inverse of `data`."""
    kind, value = next(attributes(content))
    if kind == NFTA_DATA_VALUE:
        return value
    verdict = parse_attributes(value)
    code = struct.unpack(">i", verdict[NFTA_VERDICT_CODE])[0]
    return nft.Verdict(code, verdict.get(NFTA_VERDICT_CHAIN, b"").rstrip(b"\0").decode(errors="surrogateescape"))


@functools.lru_cache(maxsize=2048)
def encode(expression: nft.Expression) -> bytes:
    """One NFTA_LIST_ELEM. Rules that differ have most expressions in common."""
    if isinstance(expression, nft.Opaque):
        inside = attribute(NFTA_EXPR_DATA | NLA_F_NESTED, expression.content)
        return nested(NFTA_LIST_ELEM, text(NFTA_EXPR_NAME, expression.name), inside)
    kind = type(expression)
    name, fields = TABLE[kind]
    unsent = UNSENT.get(kind, {})
    values = ((number, how, field, getattr(expression, field)) for number, field, how in fields)
    parts = [ENCODERS[how](number, value) for number, how, field, value in values if unsent.get(field, ...) != value]
    return nested(NFTA_LIST_ELEM, text(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *parts))


def decode_list(content: bytes) -> tuple[nft.Expression, ...]:
    """All expressions of a rule; opaque ones for what has no type here, or attributes that its type has no field for."""
    return tuple(_decode(element) for _, element in attributes(content))


def _decode(element: bytes) -> nft.Expression:
    found = parse_attributes(element)
    name = found[NFTA_EXPR_NAME].rstrip(b"\0").decode(errors="surrogateescape")
    content = found.get(NFTA_EXPR_DATA, b"")
    try:
        kind, fields = BY_NAME[name]
        given = parse_attributes(content)
        if _is_described(name, given, fields):
            values = {field: _value(given[number], how) for number, field, how in fields if number in given}
            return kind(**UNSENT.get(kind, {}) | values)
    except (ValueError, LookupError, TypeError, StopIteration, struct.error):
        pass
    return nft.Opaque(name=name, content=content)


def _is_described(name: str, given: dict[int, bytes], fields: tuple[Field, ...]) -> bool:
    """Do the fields say all that the kernel dumps of an expression? Some attributes it adds of itself, with one value or any."""
    added = ADDED.get(name, {})
    others = given.keys() - {number for number, _, _ in fields}
    return all(number in added and added[number] in (None, int.from_bytes(given[number], "big")) for number in others)


def _value(content: bytes, how: str) -> Any:
    if how == DATA:
        return data_from(content)
    if how == TEXT:
        return content.rstrip(b"\0").decode(errors="surrogateescape")
    return NUMBERS[how].unpack(content)[0]

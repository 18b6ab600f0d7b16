"""Responses as people read them: records with their data as zone files have it (RFC 1035, section 5; RFC 3597 for what has no words here).

Names are read through compression (RFC 1035, 4.1.4): each pointer leads to an earlier place, so that reading ends.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from podplane.dns import message as m
from podplane.dns.message import Malformed, Name
from podplane.model.name_server import RecordText

POINTER = 0xC0
SOA_TIMES = struct.Struct("!5I")
SRV_HEAD = struct.Struct("!3H")


@dataclass(frozen=True, slots=True)
class ResponseText:
    """A response: its code, the records of its sections (without OPT), and whether it was cut (TC)."""

    rcode: str
    records: list[RecordText]
    authority: list[RecordText]
    additional: list[RecordText]
    is_cut: bool


def read(message: bytes) -> ResponseText:
    """A response as text. Malformed when it is none."""
    if len(message) < m.HEADER.size:
        raise Malformed("shorter than a header")
    _, flags, questions, *counts = m.HEADER.unpack_from(message)
    at, rcode = m.HEADER.size, flags & m.RCODE_MASK
    for _ in range(questions):
        at = m.skip_name(message, at) + m.TAIL.size
    sections: list[list[RecordText]] = []
    owner, spelled = "", None
    for count in counts:
        found: list[RecordText] = []
        for _ in range(count):
            if spelled is not None and message.startswith(
                spelled, at
            ):  # most have the name of the one before, in the same bytes
                at += len(spelled)
            else:
                name, end = name_at(message, at)
                owner, spelled, at = m.text_of(name), message[at:end], end
            record, at, extended = _record(message, at, owner)
            if record is None:
                rcode |= extended
            else:
                found.append(record)
        sections.append(found)
    records, authority, additional = sections
    return ResponseText(rcode_text(rcode), records, authority, additional, bool(flags & m.TC))


def type_text(type_: int) -> str:
    """A type's name; `TYPE` and its number when it has none here (RFC 3597)."""
    return m.TYPES.get(type_, f"TYPE{type_}")


def type_of(text: str) -> int:
    """The type that a text names. ValueError when there is none."""
    text = text.upper()
    for number, name in m.TYPES.items():
        if name == text:
            return number
    digits = text.removeprefix("TYPE")
    if digits != text and digits.isascii() and digits.isdecimal() and len(digits) <= 5 and 0 < int(digits) < 0x10000:
        return int(digits)
    raise ValueError(f"{text!r} is no type of records: write A, AAAA, SRV, PTR, TXT, or TYPE and a number")


def rcode_text(rcode: int) -> str:
    """A response code's name; `RCODE` and its number when it has none here."""
    return m.RCODES.get(rcode, f"RCODE{rcode}")


def _record(message: bytes, at: int, owner: str) -> tuple[RecordText | None, int, int]:
    """The record whose name ends at this place (None: an OPT record), where it ends, and the upper bits of the response code that an OPT
    has."""
    if at + m.RECORD.size > len(message):
        raise Malformed("a record is cut off")
    type_, _, ttl, length = m.RECORD.unpack_from(message, at)
    at += m.RECORD.size
    end = at + length
    if end > len(message):
        raise Malformed("a record is cut off")
    if type_ == m.OPT:
        return None, end, ttl >> 24 << 4
    try:
        data = WRITTEN.get(type_, _unknown)(message, at, end)
    except (Malformed, struct.error, ValueError, IndexError):
        data = _unknown(message, at, end)
    return RecordText(owner, type_text(type_), ttl, data), end, 0


def name_at(message: bytes, at: int) -> tuple[Name, int]:
    """The name at this place, and where what follows it begins. Malformed when it is none."""
    labels: list[bytes] = []
    end, first, length = -1, at, 0
    while True:
        if at >= len(message):
            raise Malformed("a name that does not end")
        size = message[at]
        if size & POINTER == POINTER:
            if at + 2 > len(message):
                raise Malformed("a name that does not end")
            to = (size & ~POINTER) << 8 | message[at + 1]
            end = at + 2 if end < 0 else end
            if to >= first:
                raise Malformed("a pointer that does not lead back")
            at = first = to
            continue
        if size > m.MAX_LABEL:
            raise Malformed("a label of more than 63 bytes")
        length += 1 + size
        if length > m.MAX_NAME or at + 1 + size > len(message):
            raise Malformed("a name of more than 255 bytes, or one that does not end")
        if size == 0:
            return tuple(labels), at + 1 if end < 0 else end
        labels.append(message[at + 1 : at + 1 + size])
        at += 1 + size


# Data of records.


def _ip(message: bytes, at: int, end: int) -> str:
    if end - at == 4:
        return ".".join(map(str, message[at:end]))
    if end - at != 16:
        raise Malformed("no address")
    return str(ipaddress.ip_address(message[at:end]))


def _one_name(message: bytes, at: int, end: int) -> str:
    name, after = name_at(message, at)
    return m.text_of(name) if after == end else _unknown(message, at, end)


def _mx(message: bytes, at: int, end: int) -> str:
    return f"{int.from_bytes(message[at : at + 2], 'big')} {_one_name(message, at + 2, end)}"


def _srv(message: bytes, at: int, end: int) -> str:
    priority, weight, port = SRV_HEAD.unpack_from(message, at)
    return f"{priority} {weight} {port} {_one_name(message, at + SRV_HEAD.size, end)}"


def _soa(message: bytes, at: int, end: int) -> str:
    primary, at = name_at(message, at)
    contact, at = name_at(message, at)
    times = SOA_TIMES.unpack_from(message, at)
    return " ".join((m.text_of(primary), m.text_of(contact), *map(str, times)))


def _strings(message: bytes, at: int, end: int) -> str:
    return " ".join(_quoted(part) for part in _character_strings(message, at, end))


def _character_strings(message: bytes, at: int, end: int) -> Iterator[bytes]:
    while at < end:
        size = message[at]
        if at + 1 + size > end:
            raise Malformed("a string is cut off")
        yield message[at + 1 : at + 1 + size]
        at += 1 + size


def _quoted(data: bytes) -> str:
    return '"' + "".join(map(_quoted_byte, data)) + '"'


def _quoted_byte(byte: int) -> str:
    if byte in b'"\\':
        return f"\\{byte:c}"
    return chr(byte) if 0x20 <= byte <= 0x7E else f"\\{byte:03d}"


def _unknown(message: bytes, at: int, end: int) -> str:
    """As RFC 3597 has it: the length, and the bytes in hexadecimal."""
    return f"\\# {end - at} {message[at:end].hex()}".rstrip()


WRITTEN: Mapping[int, Callable[[bytes, int, int], str]] = {
    m.A: _ip,
    m.AAAA: _ip,
    m.NS: _one_name,
    m.CNAME: _one_name,
    m.PTR: _one_name,
    m.MX: _mx,
    m.SRV: _srv,
    m.SOA: _soa,
    m.TXT: _strings,
    m.HINFO: _strings,
}
"""How the data of a type is written, from where it begins to where it ends."""

"""DNS messages as bytes: questions read, responses written (RFC 1035 section 4, RFC 6891).

A name is a tuple of labels in lower case, without the root: `("web", "default", "svc", "cluster", "local")` as bytes. The question section
is answered as it was asked, byte by byte, so a client that mixes upper and lower case gets its own spelling back; owner names of
records point to it (compression), and so have it, too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV, OPT, IXFR, AXFR, ANY = 1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 41, 251, 252, 255
"""Types of records."""
TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    13: "HINFO",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    41: "OPT",
    64: "SVCB",
    65: "HTTPS",
    251: "IXFR",
    252: "AXFR",
    255: "ANY",
}
INTERNET, CHAOS, ANY_CLASS = 1, 3, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    16: "BADVERS",
}
QR, AA, TC, RD, RA, AD, CD = 1 << 15, 1 << 10, 1 << 9, 1 << 8, 1 << 7, 1 << 5, 1 << 4
OPCODE_MASK, RCODE_MASK = 0x7800, 0xF
PLAIN_BYTES, EDNS_BYTES, TCP_BYTES = 512, 1232, 65535
"""The longest response over UDP without EDNS, and what this server takes and sends with it (DNS flag day 2020); over TCP."""
MAX_LABEL, MAX_NAME = 63, 255
HEADER = struct.Struct("!6H")
TAIL = struct.Struct("!2H")
RECORD = struct.Struct("!2HIH")
DO = 0x8000

Name = tuple[bytes, ...]


class Malformed(ValueError):
    """A message that is none; `rcode` is what its sender is told, or None for nothing at all."""

    def __init__(self, why: str, rcode: int | None = FORMERR) -> None:
        super().__init__(why)
        self.rcode = rcode


class Question(NamedTuple):
    """What is asked."""

    name: Name
    type: int
    class_: int = INTERNET


class Edns(NamedTuple):
    """The OPT record of a query."""

    size: int
    version: int = 0
    dnssec: bool = False
    options: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A query: one question, which is in `asked` as it came, type and class included."""

    id: int
    flags: int
    question: Question
    asked: bytes
    edns: Edns | None = None

    @property
    def opcode(self) -> int:
        """0 for a standard query."""
        return (self.flags & OPCODE_MASK) >> 11


class Record(NamedTuple):
    """A record of class IN; names in `data` are written out."""

    name: Name
    type: int
    ttl: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be answered: records, and what they were made of.

    `source` names the object that decided, for people: `Service default/web`. `depends` are keys of what the answer was made of, of what is
    missing, too: when one of them changes, the answer may not be true any more. `follow` is the target of a CNAME that leads out of the
    zone: what that has belongs into the answer.
    """

    rcode: int = NOERROR
    records: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = True
    source: str = ""
    depends: tuple[str, ...] = ()
    follow: Name | None = None
    message: bytes = b""
    """A whole response of another server, in place of records: its id and question are the client's own when it is sent."""


# Names.


def name_of(text: str) -> Name:
    """The name that a text like `web.default.svc.cluster.local` means, with or without a dot at its end. ValueError when it is none."""
    labels = tuple(label.encode("ascii").lower() for label in text.removesuffix(".").split(".")) if text.strip(".") else ()
    if any(not 0 < len(label) <= MAX_LABEL for label in labels) or sum(map(len, labels)) + len(labels) + 1 > MAX_NAME:
        raise ValueError(f"{text!r} is no name")
    return labels


def text_of(name: Name) -> str:
    """A name as people write it, with a dot at its end; bytes that are not printed, and dots in labels, as `\\ddd` (RFC 4343)."""
    return ".".join(map(_label_text, name)) + "."


def _label_text(label: bytes) -> str:
    return "".join(chr(b) if 0x21 <= b <= 0x7E and b not in b'."\\;()@$' else f"\\{b:03d}" for b in label)


def written(name: Name) -> bytes:
    """A name in a message, without compression."""
    return b"".join([bytes((len(label),)) + label for label in name]) + b"\0"


def is_under(name: Name, zone: Name) -> bool:
    """Is the name this zone's, or its apex?"""
    return name[len(name) - len(zone) :] == zone if len(name) >= len(zone) else False


# Reading.


def read_query(message: bytes) -> Query:
    """The query in a message. Malformed when it is none that can be answered."""
    if len(message) < HEADER.size:
        raise Malformed("shorter than a header", None)
    id_, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
    if flags & QR:
        raise Malformed("a response", None)
    if questions != 1 or answers or (authorities and flags & OPCODE_MASK == 0):
        raise Malformed("not exactly one question (RFC 9619)")
    name, end = _read_question_name(message)
    if end + TAIL.size > len(message):
        raise Malformed("the question is cut off")
    question = Question(name, *TAIL.unpack_from(message, end))
    end += TAIL.size
    return Query(id_, flags, question, message[HEADER.size : end], _read_edns(message, end, authorities + additional))


def _read_question_name(message: bytes) -> tuple[Name, int]:
    """The name behind the header, and where it ends. There is nothing before it that it could point to."""
    labels: list[bytes] = []
    at, size = HEADER.size, len(message)
    while at < size and (length := message[at]):
        if length > MAX_LABEL:
            raise Malformed("a label of more than 63 bytes, or a pointer, in the question")
        labels.append(message[at + 1 : at + 1 + length].lower())
        at += 1 + length
    if at >= size or at + 1 - HEADER.size > MAX_NAME:
        raise Malformed("a name that does not end, or of more than 255 bytes")
    return tuple(labels), at + 1


def skip_name(message: bytes, at: int) -> int:
    """Where the name at this place ends. Malformed when it does not."""
    while at < len(message):
        length = message[at]
        if length == 0:
            return at + 1
        if length & 0xC0 == 0xC0:
            if at + 2 > len(message):
                break
            return at + 2
        if length > MAX_LABEL:
            raise Malformed("a label of more than 63 bytes")
        at += 1 + length
    raise Malformed("a name that does not end")


def _read_edns(message: bytes, at: int, count: int) -> Edns | None:
    """The OPT record among `count` records from here."""
    found: Edns | None = None
    for _ in range(count):
        is_root = message[at : at + 1] == b"\0"
        at = skip_name(message, at)
        if at + RECORD.size > len(message):
            raise Malformed("a record is cut off")
        type_, class_, ttl, length = RECORD.unpack_from(message, at)
        at += RECORD.size
        if at + length > len(message):
            raise Malformed("a record is cut off")
        if type_ == OPT:
            if found is not None or not is_root:
                raise Malformed("more than one OPT record, or one with a name (RFC 6891)")
            found = Edns(class_, ttl >> 16 & 0xFF, bool(ttl & DO), tuple(_options(message[at : at + length])))
        at += length
    return found


def _options(data: bytes) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + TAIL.size > len(data):
            raise Malformed("an option is cut off")
        code, length = TAIL.unpack_from(data, at)
        at += TAIL.size
        if at + length > len(data):
            raise Malformed("an option is cut off")
        yield code, data[at : at + length]
        at += length


# Writing.


def respond(query: Query, answer: Answer, limit: int = TCP_BYTES) -> bytes:
    """The response, of at most `limit` bytes: what does not fit is left out, records of the additional section first. When an answer
    or an authority is, the response says so (TC), and is complete as far as it goes."""
    offsets = _offsets(query.question.name)
    opt = _opt(query, answer.rcode)
    head = HEADER.size + len(query.asked)
    room = limit - head - len(opt)
    sections: list[list[bytes]] = []
    is_cut = False
    for records, matters in ((answer.records, True), (answer.authority, True), (answer.additional, False)):
        taken: list[bytes] = []
        for record in () if is_cut else records:
            data = _written(record, offsets)
            if len(data) > room:
                is_cut = matters
                break
            room -= len(data)
            taken.append(data)
        sections.append(taken)
    flags = QR | query.flags & (OPCODE_MASK | RD | CD) | RA | answer.rcode & RCODE_MASK
    flags |= (AA if answer.authoritative else 0) | (TC if is_cut else 0)
    counts = (1, len(sections[0]), len(sections[1]), len(sections[2]) + bool(opt))
    return b"".join((HEADER.pack(query.id, flags, *counts), query.asked, *(r for part in sections for r in part), opt))


def refusal(message: bytes, rcode: int) -> bytes | None:
    """The response to a message that can't be read as a query, or is not to be answered: the header alone; None where none is due."""
    if len(message) < HEADER.size:
        return None
    id_, flags, *_ = HEADER.unpack_from(message)
    return None if flags & QR else HEADER.pack(id_, QR | flags & (OPCODE_MASK | RD | CD) | rcode, 0, 0, 0, 0)


def _offsets(name: Name) -> dict[Name, int]:
    """Where the name of the question, and each that it ends with, begin in the message."""
    offsets, at = {}, HEADER.size
    for i, label in enumerate(name):
        offsets[name[i:]] = at
        at += 1 + len(label)
    return offsets


def _written(record: Record, offsets: dict[Name, int]) -> bytes:
    return _compressed(record.name, offsets) + RECORD.pack(record.type, INTERNET, record.ttl, len(record.data)) + record.data


def _compressed(name: Name, offsets: dict[Name, int]) -> bytes:
    """A name by the longest of its ends that the question has."""
    parts: list[bytes] = []
    for i, label in enumerate(name):
        at = offsets.get(name[i:])
        if at is not None:
            return b"".join((*parts, (0xC000 | at).to_bytes(2, "big")))
        parts.append(bytes((len(label),)) + label)
    return b"".join((*parts, b"\0"))


def _opt(query: Query, rcode: int) -> bytes:
    """The OPT record of the response, if the query has one (RFC 6891)."""
    if query.edns is None:
        return b""
    ttl = (rcode >> 4) << 24 | (DO if query.edns.dnssec else 0)
    return b"\0" + RECORD.pack(OPT, EDNS_BYTES, ttl, 0)


# Data of records.


def soa(primary: Name, contact: Name, serial: int, refresh: int, retry: int, expire: int, minimum: int) -> bytes:
    """The data of a SOA record; times in seconds (RFC 1035, 3.3.13)."""
    return written(primary) + written(contact) + struct.pack("!5I", serial, refresh, retry, expire, minimum)


def srv(priority: int, weight: int, port: int, target: Name) -> bytes:
    """The data of a SRV record (RFC 2782)."""
    return struct.pack("!3H", priority, weight, port) + written(target)


def txt(strings: Sequence[str]) -> bytes:
    """The data of a TXT record."""
    return b"".join(bytes((len(data),)) + data for data in (text.encode() for text in strings))

"""DNS messages as bytes: questions read, responses written (RFC 1035 section 4, RFC 6891).

A name is a tuple of labels in lower case, without the root: `("web", "default", "svc", "cluster", "local")` as bytes. The question section
is answered as it was asked, byte by byte, so a client that mixes upper and lower case gets its own spelling back; owner names of
records point to it (compression), and so have it, too.

Compression (RFC 1035, 4.1.4): owner names, and names in the data of CNAME, PTR, NS and SOA records, end with a pointer where the message
has the rest already. The target of a SRV record is written out (RFC 2782), and may be pointed to.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

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
STEP_BYTES = 128
MAX_LABEL, MAX_NAME = 63, 255
LENGTHS = tuple(bytes((length,)) for length in range(MAX_LABEL + 1))
POINTER, MAX_OFFSET = 0xC000, 0x3FFF
HEADER = struct.Struct("!6H")
TAIL = struct.Struct("!2H")
HEADER_BYTES, TAIL_BYTES = HEADER.size, TAIL.size
RECORD = struct.Struct("!2HIH")
LENGTH = struct.Struct("!H")
SRV_TARGET = 6
"""Where in the data of a SRV record its target begins."""
DO = 0x8000
PLAIN_HEADERS = {
    HEADER.pack(0, RD | flags, 1, 0, 0, has_edns)[2:]: (RD | flags, has_edns)
    for flags in (0, AD, CD, AD | CD)
    for has_edns in (False, True)
}
PLAIN_TAILS = frozenset(TAIL.pack(type_, INTERNET) for type_ in (A, NS, MX, TXT, AAAA, SRV, 64, 65))
PLAIN_MOST_BYTES = HEADER_BYTES + MAX_NAME + TAIL_BYTES
PLAIN_OPT_BYTES = 1 + RECORD.size
"""An OPT record without options."""
LEADING_NAMES = {NS: 1, CNAME: 1, SOA: 2, PTR: 1}
"""The number of names that the data of a record begins with, of the types whose names are compressed (RFC 3597, section 4)."""

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


class Query(msgspec.Struct, frozen=True, dict=True):
    """A query: one question, which is in `asked` as it came, type and class included."""

    id: int
    flags: int
    asked: bytes
    edns: Edns | None = None
    limit: int = TCP_BYTES
    """The longest response that who asks takes."""

    @functools.cached_property
    def question(self) -> Question:
        """What is asked, in lower case."""
        return question_in(self.asked[: -TAIL.size].lower() + self.asked[-TAIL.size :])

    @property
    def type(self) -> int:
        """The type that is asked for."""
        return int.from_bytes(self.asked[-TAIL.size : -LENGTH.size], "big")

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


class Alias(NamedTuple):
    """An alias in a response: how many records there are up to it and those of its name, and the place of its target."""

    number: int
    target: int


class Answer(msgspec.Struct, frozen=True):
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
    aliases: tuple[Alias, ...] = ()
    """Those in `message` that lead from its question's name to its end."""
    private: bool = False
    """It depends on who asks (`Client.searches`), so it may be given again only to clients with the same search domains. Of one name it is
    set in all answers or in none: what is not private is given to everybody."""
    lifetime: float | None = None
    """The seconds for which the response may be given again as it is (TTLs count down); None: until what it depends on changes."""


# Names.


def name_of(text: str) -> Name:
    """The name that a text like `web.default.svc.cluster.local` means, with or without a dot at its end. ValueError when it is none."""
    labels = (
        tuple(label.encode("ascii").lower() for label in text.removesuffix(".").split(".")) if text not in ("", ".") else ()
    )
    if not all(labels) or not fits(labels):
        raise ValueError(f"{text!r} is no name")
    return labels


def fits(name: Name) -> bool:
    """Is no label longer than 63 bytes, and the whole name no longer than 255 (RFC 1035, 2.3.4)?"""
    return sum(map(len, name)) + len(name) < MAX_NAME and (not name or max(map(len, name)) <= MAX_LABEL)


def text_of(name: Name) -> str:
    """A name as people write it, with a dot at its end; bytes that are not printed, and dots in labels, as `\\ddd` (RFC 4343)."""
    return ".".join(map(_label_text, name)) + "."


def _label_text(label: bytes) -> str:
    return "".join(chr(b) if 0x21 <= b <= 0x7E and b not in b'."\\;()@$' else f"\\{b:03d}" for b in label)


def written(name: Name) -> bytes:
    """A name in a message, without compression."""
    return b"".join([LENGTHS[len(label)] + label for label in name]) + b"\0"


def ends_with_any(name: bytes, ends: Collection[bytes]) -> bool:
    """Does a name end with one of these, or is it one? All are written out."""
    at = 0
    while name[at:] not in ends:
        if not (length := name[at]):
            return False
        at += 1 + length
    return True


def name_in(data: bytes, at: int = 0) -> Name:
    """The name that is written out, without compression, at this place of the data of a record of ours."""
    labels: list[bytes] = []
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    return tuple(labels)


def question_in(asked: bytes) -> Question:
    """The question that is written out like this, in lower case."""
    return Question(name_in(asked), *TAIL.unpack_from(asked, len(asked) - TAIL.size))


def asked_of(question: Question) -> bytes:
    """A question as it stands in a message, in lower case."""
    return written(question.name) + TAIL.pack(question.type, question.class_)


def is_under(name: Name, zone: Name) -> bool:
    """Is the name this zone's, or its apex?"""
    return name[len(name) - len(zone) :] == zone if len(name) >= len(zone) else False


# Reading.


def read_query(message: bytes, *, tcp: bool = True) -> Query:
    """The query in a message that came by TCP, or by UDP. Malformed when it is none that can be answered."""
    if len(message) < HEADER.size:
        raise Malformed("shorter than a header", None)
    id_, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
    if flags & QR:
        raise Malformed("a response", None)
    if flags & OPCODE_MASK:
        raise Malformed("no standard query", NOTIMP)
    if questions != 1 or answers:
        raise Malformed("not exactly one question (RFC 9619)")
    end = _end_of_name(message) + TAIL.size
    if end > len(message):
        raise Malformed("the question is cut off")
    edns = _read_edns(message, end, authorities + additional)
    return Query(id_, flags, message[HEADER.size : end], edns, TCP_BYTES if tcp else datagram_bytes(edns))


def read_plain(message: bytes) -> Query | None:
    """The query in a datagram, if it is of the most usual form: recursion is desired, it is for data of the class IN, and asks for nothing
    else. None for any other, also for those that are malformed."""
    found = PLAIN_HEADERS.get(message[2:HEADER_BYTES])
    if found is None:
        return None
    flags, has_edns = found
    end, size = HEADER_BYTES, len(message)
    if has_edns:
        size -= PLAIN_OPT_BYTES
    while end < size and (length := message[end]):
        if length > MAX_LABEL:
            return None
        end += 1 + length
    if end + 1 + TAIL_BYTES != size or size > PLAIN_MOST_BYTES or message[end + 1 : size] not in PLAIN_TAILS:
        return None
    end = size
    if not has_edns:
        return Query(message[0] << 8 | message[1], flags, message[HEADER_BYTES:end], None, PLAIN_BYTES)
    type_, size, ttl, length = RECORD.unpack_from(message, end + 1)
    if message[end] or type_ != OPT or length or ttl & ~DO:
        return None
    edns = Edns(size, dnssec=ttl == DO)
    return Query(int.from_bytes(message[:2], "big"), flags, message[HEADER.size : end], edns, datagram_bytes(edns))


def datagram_bytes(edns: Edns | None) -> int:
    """The longest datagram that who asks takes, and we send (RFC 6891, 6.2.3), or a little less: so there are few lengths."""
    if edns is None:
        return PLAIN_BYTES
    return EDNS_BYTES if edns.size >= EDNS_BYTES else max(PLAIN_BYTES, edns.size // STEP_BYTES * STEP_BYTES)


def _end_of_name(message: bytes) -> int:
    """Where the name behind the header ends. There is nothing before it that it could point to."""
    at, size = HEADER.size, len(message)
    while at < size and (length := message[at]):
        if length > MAX_LABEL:
            raise Malformed("a label of more than 63 bytes, or a pointer, in the question")
        at += 1 + length
    if at >= size or at + 1 - HEADER.size > MAX_NAME:
        raise Malformed("a name that does not end, or of more than 255 bytes")
    return at + 1


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
            version = ttl >> 16 & 0xFF
            options = () if version else tuple(_options(message[at : at + length]))  # of another version: of another form
            found = Edns(class_, version, bool(ttl & DO), options)
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
    opt = opt_of(query, answer.rcode)
    writer = _Writer(query, limit - len(opt))
    answers, is_cut = writer.add(answer.records)
    authorities = extra = 0
    if not is_cut:
        authorities, is_cut = writer.add(answer.authority)
    if not is_cut:
        extra, _ = writer.add(answer.additional)
    flags = QR | query.flags & (OPCODE_MASK | RD | CD) | RA | answer.rcode & RCODE_MASK
    flags |= (AA if answer.authoritative else 0) | (TC if is_cut else 0)
    HEADER.pack_into(writer.message, 0, query.id, flags, 1, answers, authorities, extra + bool(opt))
    return bytes(writer.message + opt)


class _Writer:
    """A response while it is written: `message` has the header and the question, and each record that was added."""

    def __init__(self, query: Query, limit: int) -> None:
        self.message = bytearray(HEADER.size) + query.asked
        self._limit = limit
        self._class = CHAOS if query.question.class_ == CHAOS else INTERNET
        self._last: tuple[Name, bytes] | None = None
        """The owner of the record before, and how it may be written from then on."""
        self._places: dict[bytes, int] = {}
        """Where names begin that can be pointed to, those that others end with, too."""
        name, at = written(query.question.name), 0
        while length := name[at]:
            self._places[name[at:]] = HEADER.size + at
            at += 1 + length

    def add(self, records: Iterable[Record]) -> tuple[int, bool]:
        """Add records while they fit; their number, and whether one did not."""
        number = 0
        for record in records:
            end = len(self.message)
            self._append(record)
            if len(self.message) > self._limit:
                del self.message[end:]
                return number, True
            number += 1
        return number, False

    def _append(self, record: Record) -> None:
        name, type_, ttl, data = record
        message = self.message
        if self._last is not None and name is self._last[0]:
            message += self._last[1]
        else:
            self._append_name(whole := written(name))
            place = self._places.get(whole)
            self._last = None if place is None else (name, LENGTH.pack(POINTER | place))
        message += RECORD.pack(type_, self._class, ttl, len(data))
        start = len(message)
        if names := LEADING_NAMES.get(type_):
            at = 0
            for _ in range(names):
                end = skip_name(data, at)
                self._append_name(data[at:end])
                at = end
            message += data[at:]
            LENGTH.pack_into(message, start - LENGTH.size, len(message) - start)
        else:
            message += data
            if type_ == SRV and start + SRV_TARGET <= MAX_OFFSET:
                self._places.setdefault(data[SRV_TARGET:], start + SRV_TARGET)

    def _append_name(self, name: bytes) -> None:
        """A written name, by the longest of its ends that the message has."""
        at, start = 0, len(self.message)
        while length := name[at]:
            place = self._places.get(name[at:])
            if place is not None:
                self.message += name[:at] + LENGTH.pack(POINTER | place)
                return
            if start + at <= MAX_OFFSET:
                self._places[name[at:]] = start + at
            at += 1 + length
        self.message += name


def refusal(message: bytes, rcode: int) -> bytes | None:
    """The response to a message that can't be read as a query, or is not to be answered: the header alone; None where none is due."""
    if len(message) < HEADER.size:
        return None
    id_, flags, *_ = HEADER.unpack_from(message)
    return None if flags & QR else HEADER.pack(id_, QR | flags & (OPCODE_MASK | RD | CD) | rcode, 0, 0, 0, 0)


def opt_of(query: Query, rcode: int) -> bytes:
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
    return srv_head(priority, weight, port) + written(target)


def srv_head(priority: int, weight: int, port: int) -> bytes:
    """The data of a SRV record, without its target."""
    return struct.pack("!3H", priority, weight, port)


def txt(strings: Sequence[str]) -> bytes:
    """The data of a TXT record."""
    return b"".join(bytes((len(data),)) + data for data in (text.encode() for text in strings))

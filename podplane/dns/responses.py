"""What another server says, read, checked, and brought into the form in which it is kept: the records that answer the question, no others.

A response is kept as bytes. Of each record the place of its TTL is known, so that a client gets a copy with some bytes changed, and no
record is taken apart again. What is left out: records of names that the question does not lead to (no server may say what nobody asked it),
the additional section, and name servers in the authority section, which serve those that ask on (RFC 2181, 5.4.1; RFC 5452, 6).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from podplane.dns import message as m
from podplane.dns.message import HEADER, RECORD, TAIL, Alias, Answer, Malformed, Name, Query, Question, Record

DNAME, RRSIG, NSEC, NSEC3 = 39, 46, 47, 50
PROOFS = frozenset((m.SOA, RRSIG, NSEC, NSEC3))
"""Types that say in the authority section that something is not there (RFC 2308, RFC 4035, RFC 5155)."""
MAX_ALIASES = 32
"""Aliases of one response; more are an error, as they are to other resolvers."""
MAX_POINTERS = m.MAX_NAME // 2
"""Pointers of one name: with a label between any two there can't be more."""
NAMES_AT = {m.NS: (0,), m.CNAME: (0,), m.PTR: (0,), DNAME: (0,), m.MX: (2,), m.SRV: (6,), m.SOA: (0, 0)}
"""Types whose data has names that may be compressed, by the bytes before each (RFC 3597, 4; that of SRV is by some)."""
POINTER_TO_QUESTION = b"\xc0\x0c"
OWN_RECORD, TTL_AT = len(POINTER_TO_QUESTION) + RECORD.size, len(POINTER_TO_QUESTION) + TAIL.size
"""The bytes of a record of the question's name before its data, and where in them its TTL is."""
ROOT_OPT, EMPTY_OPT = b"\0" + m.OPT.to_bytes(2, "big"), 11
"""What an OPT record begins with, and the length of one without options."""
OPT_RCODE_AT = 1 + TAIL.size
ONE, RESPONSE = b"\0\1", m.QR >> 8
"""A count of a header; its first byte of flags in a response to a standard query."""
LEAST_BYTES = 1 + RECORD.size
"""Of a record, beside its data."""
MAX_TTL = 1 << 31
_kept_flags = m.QR | m.AA | m.TC | m.RD | m.RA | m.AD
_ttl = struct.Struct("!I")
TTL_AND_LENGTH = struct.Struct("!IH")


class Endless(Malformed):
    """The aliases of a response lead in a circle, or to too many others: its server is well, and the name has no answer."""


class Limits(NamedTuple):
    """How long answers are kept, in seconds: at least, at most, and at most those that say that there is nothing."""

    least: int = 0
    most: int = 3600
    negative: int = 300


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A response as it is kept: id 0, the question in lower case, records that answer it, no OPT. `ttls` are the places of their TTLs in
    `message`; `seconds` is how long it may be kept, 0 for not at all."""

    message: bytes
    rcode: int
    ttls: tuple[int, ...] = ()
    seconds: int = 0
    is_negative: bool = False
    """Does it say that there is no such name, or nothing of this type?"""
    is_referral: bool = False
    """Does it name servers to be asked in its server's place? Then that one does not look for answers itself."""
    aliases: tuple[Alias, ...] = ()
    """Those that lead from the question's name to the end."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """A record in a message: where its own bytes begin behind the name, and where it ends."""

    name: Name
    type: int
    class_: int
    ttl: int
    at: int
    end: int


def matches(message: bytes, asked: bytes) -> bool:
    """Is it a response to this question, as far as its header and its question say? Case counts. The id is the caller's to look at."""
    return message[4:6] == ONE and message[2] & 0xF8 == RESPONSE and message.startswith(asked, m.HEADER_BYTES)


def read(message: bytes, asked: bytes, limits: Limits = Limits()) -> Reply:  # noqa: B008  # it is immutable
    """A response to a question, given in lower case, which it `matches` already. Malformed when it can't be read to its end, or answers
    another question; Endless when its aliases lead to no end."""
    if (plain := _plain(message, asked, limits)) is not None:
        return plain
    question, begin = m.question_in(asked), HEADER.size + len(asked)
    answer, authority, additional = _sections(message, begin, question.name)
    flags = int.from_bytes(message[2:4], "big")
    rcode = flags & m.RCODE_MASK | next((one.ttl >> 24 << 4 for one in additional if one.type == m.OPT), 0)  # RFC 6891, 6.1.3
    kept, name, aliases = _chain(message, answer, question)
    if answer and not kept:
        raise Malformed("it answers another question")
    is_negative = rcode == m.NXDOMAIN or not any(one.name == name and question.type in (one.type, m.ANY) for one in kept)
    proofs = _proofs(authority, name, is_negative=is_negative)
    if kept != answer or proofs != authority[: len(proofs)]:
        return _rewritten(message, question, flags, (kept, proofs), limits)
    places = [*kept, *proofs]
    end = places[-1].end if places else begin
    head = HEADER.pack(0, flags & _kept_flags | rcode & m.RCODE_MASK, 1, len(kept), len(proofs), 0)
    seconds = _negative_seconds(message, proofs) if is_negative else None
    is_referral = is_negative and not (rcode or kept or proofs) and bool(authority) and not flags & m.AA
    reply = _limited(head + asked + message[begin:end], rcode, places, seconds, limits)
    return replace(reply, is_negative=is_negative, is_referral=is_referral, aliases=tuple(aliases))


def _plain(message: bytes, asked: bytes, limits: Limits) -> Reply | None:
    """The same for what most responses are: records of the question's own name and type, and OPT. None for all others."""
    _, flags, _, answers, authorities, additional = HEADER.unpack_from(message)
    if not answers or authorities or additional > 1 or flags & m.RCODE_MASK:
        return None
    begin = at = m.HEADER_BYTES + len(asked)
    end = len(message) - (EMPTY_OPT if additional else 0)
    least, seconds, _ = limits
    most, ttls = seconds, []
    wanted = POINTER_TO_QUESTION + asked[-m.TAIL_BYTES :]
    for _ in range(answers):
        if at + OWN_RECORD > end or not message.startswith(wanted, at):
            return None
        ttl, length = TTL_AND_LENGTH.unpack_from(message, at + TTL_AT)
        if not least <= ttl <= most:
            return None
        if ttl < seconds:
            seconds = ttl
        ttls.append(at + TTL_AT)
        at += OWN_RECORD + length
    if at > end or (additional and (message[at + OPT_RCODE_AT] or not message.startswith(ROOT_OPT, at))):
        return None
    head = HEADER.pack(0, flags & _kept_flags, 1, answers, 0, 0)
    return Reply(head + asked + message[begin:at], m.NOERROR, tuple(ttls), seconds)


def records(message: bytes, limit: int = m.TCP_BYTES, most: int = 1 << 16) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """The answer and the authority section of a kept response, names written out: of the answer `most` records, and no more of all
    than, by one, fit into a message of `limit` bytes."""
    name, end = name_at(message, HEADER.size)
    known: dict[int, Name] = {}
    sections: tuple[list[Record], list[Record]] = ([], [])
    answers, authorities = HEADER.unpack_from(message)[3:5]
    places = _places(message, end + TAIL.size, min(answers, most) + (authorities if most >= answers else 0), name, known)
    for number, place in enumerate(places):
        record = _record(message, place, known)
        sections[number >= answers].append(record)
        limit -= LEAST_BYTES + (0 if record.type in m.LEADING_NAMES else len(record.data))
        if limit < 0:
            break
    return tuple(sections[0]), tuple(sections[1])


def name_at(message: bytes, at: int, known: dict[int, Name] | None = None) -> tuple[Name, int]:
    """The name at this place in lower case, and where it ends. A pointer leads to a place before it, or the message is Malformed.

    `known` are names by the places that pointers lead to; those that are found out are added.
    """
    labels: list[bytes] = []
    known, places = {} if known is None else known, list[tuple[int, int]]()
    end, least, size = 0, at, 1
    while at < len(message):
        length = message[at]
        if length & 0xC0 == 0xC0:
            end = end or at + 2
            at = int.from_bytes(message[at : at + 2], "big") & 0x3FFF
            if at >= least or len(places) == MAX_POINTERS:
                raise Malformed("a pointer that does not lead back, or too many of them")
            if (rest := known.get(at)) is not None:
                size += sum(map(len, rest)) + len(rest)
                labels += rest
                break
            places.append((at, len(labels)))
            least = at
            continue
        if not length:
            end = end or at + 1
            break
        size += 1 + length
        if length > m.MAX_LABEL or size > m.MAX_NAME or at + 1 + length > len(message):
            raise Malformed("a label of more than 63 bytes, or a name of more than 255")
        labels.append(message[at + 1 : at + 1 + length].lower())
        at += 1 + length
    else:
        raise Malformed("a name that does not end")
    if size > m.MAX_NAME:
        raise Malformed("a name of more than 255 bytes")
    known.update((place, tuple(labels[count:])) for place, count in places)
    return tuple(labels), end


def _sections(message: bytes, at: int, asked: Name) -> tuple[list[Place], list[Place], list[Place]]:
    """The records of each section."""
    answers, authorities, additional = HEADER.unpack_from(message)[3:]
    found = list(_places(message, at, answers + authorities + additional, asked, {}))
    return found[:answers], found[answers : answers + authorities], found[answers + authorities :]


def _places(message: bytes, at: int, count: int, asked: Name, known: dict[int, Name]) -> Iterator[Place]:
    """So many records from this place on. Most have the name of the one before, in the same bytes."""
    size = len(message)
    name, spelled = asked, POINTER_TO_QUESTION
    known[HEADER.size] = asked
    for _ in range(count):
        if not message.startswith(spelled, at):
            name, end = name_at(message, at, known)
            spelled = message[at:end]
        at += len(spelled)
        if at + RECORD.size > size:
            raise Malformed("a record is cut off")
        type_, class_, ttl, length = RECORD.unpack_from(message, at)
        end = at + RECORD.size + length
        if end > size:
            raise Malformed("a record is cut off")
        yield Place(name, type_, class_, ttl, at, end)
        at = end


def _chain(message: bytes, answer: Sequence[Place], question: Question) -> tuple[list[Place], Name, list[Alias]]:
    """The records that the question's name leads to, in this order, the name at the end, and the aliases on the way. Endless when
    there is no end."""
    owned: dict[Name, list[Place]] = {}
    for one in answer:
        if one.class_ == m.INTERNET:
            owned.setdefault(one.name, []).append(one)
    kept: list[Place] = []
    name = question.name
    names, aliases = {name}, list[Alias]()
    while True:
        for above in (name[i:] for i in range(1, len(name)) if len(owned) > 1):
            if any(one.type == DNAME for one in owned.get(above, ())):
                kept += owned.pop(above)  # RFC 6672: the alias of `name` is made of it
        own = owned.pop(name, [])
        kept += own
        alias = next((one for one in own if one.type == m.CNAME), None)
        if alias is None or question.type in (m.CNAME, m.ANY):
            return kept, name, aliases
        aliases.append(Alias(len(kept), alias.at + RECORD.size))
        name, _ = name_at(message, alias.at + RECORD.size)
        if name in names:
            raise Endless("aliases lead in a circle")
        names.add(name)
        if len(aliases) > MAX_ALIASES:
            raise Endless(f"more than {MAX_ALIASES} aliases, which is too long")


def _proofs(authority: Sequence[Place], name: Name, *, is_negative: bool) -> list[Place]:
    """What the authority section says about records that are not there: that of the name's zone, or, in an answer, of the wildcard that it
    was made of (RFC 4035, 3.1.3.3)."""
    if not is_negative:
        found = [one for one in authority if one.type in (NSEC, NSEC3, RRSIG)]
        return found if any(one.type != RRSIG for one in found) else []
    zone = next((one.name for one in authority if one.type == m.SOA and m.is_under(name, one.name)), None)
    return [one for one in authority if one.type in PROOFS and m.is_under(one.name, zone)] if zone is not None else []


def _negative_seconds(message: bytes, proofs: Sequence[Place]) -> int:
    """How long it is true that there is nothing (RFC 2308, 5); 0 when the zone does not say."""
    for one in proofs:
        if one.type == m.SOA and one.end - one.at >= RECORD.size + 22:
            return min(one.ttl, int.from_bytes(message[one.end - 4 : one.end], "big"))
    return 0


def _limited(message: bytes, rcode: int, places: Sequence[Place], negative: int | None, limits: Limits) -> Reply:
    """The response with TTLs within the limits. `negative` is how long it is true that there is nothing: no TTL is longer (RFC 2308, 3)."""
    most = limits.most
    if negative is not None:
        most = min(most, limits.negative, max(negative, limits.least) if negative else limits.negative)
    changed: bytearray | None = None
    least = 0 if negative == 0 else most
    for one in places:
        own = one.ttl if one.ttl < MAX_TTL else 0  # RFC 2181, 8
        ttl = min(max(own, limits.least), most)
        least = min(least, ttl)
        if ttl != one.ttl:
            changed = changed or bytearray(message)
            _ttl.pack_into(changed, one.at + 4, ttl)
    kept = bytes(changed) if changed else message
    return Reply(kept, rcode, tuple(one.at + 4 for one in places), least if rcode in (m.NOERROR, m.NXDOMAIN) else 0)


def _rewritten(
    message: bytes, question: Question, flags: int, sections: tuple[Sequence[Place], Sequence[Place]], limits: Limits
) -> Reply:
    """The response, written anew with these records alone."""
    known: dict[int, Name] = {}
    answer, authority = (tuple(_record(message, one, known) for one in places) for places in sections)
    asked = m.written(question.name) + TAIL.pack(question.type, question.class_)
    clean = m.respond(Query(0, 0, asked), Answer(0, answer, authority))
    return read(clean[:2] + flags.to_bytes(2, "big") + clean[4:], asked, limits)


def _record(message: bytes, place: Place, known: dict[int, Name]) -> Record:
    """A record with the names in its data written out."""
    at = place.at + RECORD.size
    if (skips := NAMES_AT.get(place.type)) is None:
        return Record(place.name, place.type, place.ttl, message[at : place.end])
    data = b""
    for skip in skips:
        data += message[at : at + skip]
        name, at = name_at(message, at + skip, known)
        data += m.written(name)
    if at > place.end:
        raise Malformed("a name that does not end in its record")
    return Record(place.name, place.type, place.ttl, data + message[at : place.end])

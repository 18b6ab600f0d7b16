"""Responses that are passed on: kept as another server gave them, and sent with the id, the question and the limit of the client."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from podplane.dns import message as m
from podplane.dns.message import HEADER, RECORD, Answer, Query

_ttl = struct.Struct("!I")
_ECHOED = m.OPCODE_MASK | m.RD | m.CD
_OWN, _PASSED = m.QR | m.RA, m.TC | m.AD
"""Flags of a response: those of its question, our own, and those of the server for who wants them."""


def rendered(query: Query, answer: Answer, limit: int = m.TCP_BYTES) -> bytes:
    """The response of any answer to a query, of at most `limit` bytes."""
    return relayed(query, answer.message, answer.rcode, limit) if answer.message else m.respond(query, answer, limit)


def relayed(query: Query, message: bytes, rcode: int, limit: int) -> bytes:
    """The response of a kept one. Its data is authentic to a client that asks for that (RFC 6840, 5.7); it is not our own authority."""
    flags, asked, edns = query.flags, query.asked, query.edns
    is_authentic = flags & m.AD or (edns is not None and edns.dnssec)
    opt = b"" if edns is None else m.opt_of(query, rcode)
    _, found, _, answers, authorities, _ = HEADER.unpack_from(message)
    flags = flags & _ECHOED | _OWN | rcode & m.RCODE_MASK | found & (_PASSED if is_authentic else m.TC)
    end = len(message)
    if end + len(opt) > limit:
        end, answers, authorities = _cut(message, limit - len(opt), answers, authorities)
        flags |= m.TC
    head = HEADER.pack(query.id, flags, 1, answers, authorities, opt != b"")
    return head + asked + message[m.HEADER_BYTES + len(asked) : end] + opt


def _cut(message: bytes, limit: int, answers: int, authorities: int) -> tuple[int, int, int]:
    """Where to end so that whole records are left, and how many of each section those are."""
    at = m.skip_name(message, HEADER.size) + m.TAIL.size
    for i in range(answers + authorities):
        data_at = m.skip_name(message, at) + RECORD.size
        end = data_at + int.from_bytes(message[data_at - 2 : data_at], "big")
        if end > limit:
            return at, min(i, answers), max(0, i - answers)
        at = end
    return at, answers, authorities


def aged(message: bytes, ttls: Sequence[int], seconds: int) -> bytes:
    """The response after some seconds: that much is gone of each TTL."""
    if not seconds:
        return message
    changed = bytearray(message)
    for at in ttls:
        _ttl.pack_into(changed, at, max(0, _ttl.unpack_from(message, at)[0] - seconds))
    return bytes(changed)


def with_ttl(message: bytes, ttls: Sequence[int], seconds: int) -> bytes:
    """The response with one TTL for all records."""
    changed = bytearray(message)
    for at in ttls:
        _ttl.pack_into(changed, at, seconds)
    return bytes(changed)

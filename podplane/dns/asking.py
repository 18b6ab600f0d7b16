"""Questions to other servers, as bytes.

Letters of the name are in upper or lower case by chance: a server gives them back as they came, and who forges an answer has to guess them,
as he has to guess the id and the port (draft-vixie-dnsext-dns0x20; RFC 5452).
"""

from __future__ import annotations

import itertools

import msgspec

from podplane.dns import message as m
from podplane.dns.message import HEADER, RECORD, TAIL, Question

PADDING, BLOCK = 12, 128
"""Questions over TLS have one of few lengths (RFC 7830; RFC 8467, 4.1)."""
_letters = bytes(0x20 if 0x61 <= b <= 0x7A else 0 for b in range(256))
"""The bit of case of each byte; lengths of labels are below all letters."""
ASKED_FLAGS = m.RD | m.CD
"""Flags of a client's question that are asked with."""
_TAIL_BITS = 8 * TAIL.size


class Ask(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """What is to be found out; equal ones have the same answer. `asked`: a question as it stands in a message, its name in lower case.
    `flags`: recursion desired, checking disabled. `dnssec`: with signatures."""

    asked: bytes
    flags: int = m.RD
    dnssec: bool = False

    @property
    def question(self) -> Question:
        """What `asked` says."""
        return m.question_in(self.asked)

    @property
    def name(self) -> bytes:
        """The name in `asked`."""
        return self.asked[: -TAIL.size]


def mixed(asked: bytes, randomness: bytes) -> bytes:
    """A question in lower case, with letters of its name in upper case where a bit (0x20 of each byte) of as many random bytes is set."""
    bits = int.from_bytes(asked.translate(_letters), "big") & int.from_bytes(randomness, "big") << _TAIL_BITS
    return (int.from_bytes(asked, "big") ^ bits).to_bytes(len(asked), "big")


def written(ask: Ask, asked: bytes, *, edns: bool, pad: bool = False) -> bytes:
    """The message without its id, with the question spelled like this. The AD bit asks whether data is authentic (RFC 6840, 5.7)."""
    head = _heads[ask.flags, edns]
    if not edns:
        return head + asked
    if not pad:
        return head + asked + _opts[ask.dnssec]
    missing = -(HEADER.size + len(asked) + 1 + RECORD.size + TAIL.size) % BLOCK
    return head + asked + _opt(TAIL.pack(PADDING, missing) + bytes(missing), dnssec=ask.dnssec)


def _opt(options: bytes = b"", *, dnssec: bool) -> bytes:
    return b"\0" + RECORD.pack(m.OPT, m.EDNS_BYTES, m.DO * dnssec, len(options)) + options


_bools = (False, True)
_heads = {
    (flags, edns): HEADER.pack(0, flags | m.AD, 1, 0, 0, edns)[2:]
    for flags, edns in itertools.product((0, m.RD, m.CD, m.RD | m.CD), _bools)
}
"""Headers without ids."""
_opts = {dnssec: _opt(dnssec=dnssec) for dnssec in _bools}

"""Jenkins' hash as the kernel computes it over bytes (lookup3; include/linux/jhash.h), for `jhash` of nft(8)."""

from __future__ import annotations

INITIAL = 0xDEADBEEF
WORD = 0xFFFF_FFFF


def _rotate(value: int, by: int) -> int:
    return (value << by | value >> 32 - by) & WORD


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by in (4, 6, 8, 16, 19, 4):
        a = (a - c & WORD) ^ _rotate(c, by)
        c = c + b & WORD
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _rotate(b, by) & WORD
        a, b, c = b, c, a
    return b


def jhash(content: bytes, seed: int) -> int:
    """The hash of these bytes, 32 bits."""
    a = b = c = INITIAL + len(content) + seed & WORD
    while len(content) > 12:
        words = [int.from_bytes(content[i : i + 4], "little") for i in (0, 4, 8)]
        a, b, c = _mix(a + words[0] & WORD, b + words[1] & WORD, c + words[2] & WORD)
        content = content[12:]
    if not content:
        return c
    padded = content.ljust(12, b"\0")
    words = [int.from_bytes(padded[i : i + 4], "little") for i in (0, 4, 8)]
    return _final(a + words[0] & WORD, b + words[1] & WORD, c + words[2] & WORD)

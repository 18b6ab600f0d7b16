"""The elements of one large set as one value: a million of them are no million objects.

An element is packed: the bytes of its key (`nft_types.key_bytes`), then its comment. The key of a network, in an interval set, is its first
address and a byte with the length of its prefix. All are in order, in chunks that versions of the set
share; so one more or one less costs a chunk, and two versions are compared by the chunks that they do not share.
"""

from __future__ import annotations

import ipaddress
import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from podplane.state import nft_types as types
from podplane.state.nft import Element, NftValue, Part, Set
from podplane.state.value import Identity

CHUNK = 256
"""So many elements are in a chunk when it is made; one of twice as many is divided."""
MEMBERS = "nft members"
Chunk = tuple[bytes, ...]


class SomeMembers(NftValue, frozen=True, gc=False, kw_only=True):
    """Some elements of a packed set: a part of an operation on `Members`, and never a desired value."""

    set: str
    contents: tuple[bytes, ...]


def packed(key: bytes, comment: str) -> bytes:
    """One element."""
    return key + comment.encode()


def packed_key(names: tuple[str, ...], parts: tuple[Part, ...]) -> bytes:
    """The key of one, of these types: of a network, with its length."""
    lengths = [one.prefixlen for one in parts if isinstance(one, ipaddress.IPv4Network | ipaddress.IPv6Network)]
    return types.key_bytes(names, parts) + bytes(lengths)


class Members(NftValue, frozen=True, gc=False, kw_only=True, eq=False):
    """All elements of a set of addresses, say, or of networks of one type (`interval`), that is no map. `key` is that of its `Set`;
    `chunks` are those of `of` and `with_`. One without any is never wanted."""

    set: str
    key: tuple[str, ...]
    chunks: tuple[Chunk, ...] = ()
    interval: bool = False

    @classmethod
    def of(cls, owner: Set, elements: Iterable[bytes]) -> Members:
        """Those of a set, packed, each key once, in any order."""
        return cls(
            netns=owner.netns,
            family=owner.family,
            table=owner.table,
            set=owner.name,
            key=owner.key,
            chunks=_chunks(elements),
            interval=owner.interval,
        )

    @property
    def size(self) -> int:
        """Bytes of the key of an element."""
        return types.size(self.key) + self.interval

    @property
    def identity(self) -> Identity:
        return (MEMBERS, self.netns, self.family, self.table, self.set)

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain.from_iterable(self.chunks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Members):
            return NotImplemented
        if self.identity != other.identity or self.key != other.key:
            return False
        return self.chunks == other.chunks or (len(self) == len(other) and all(map(bytes.__eq__, self, other)))

    def __ne__(self, other: object) -> bool:
        return not self == other  # Struct has one of its own, which tells two objects from each other

    def __hash__(self) -> int:
        return hash(self.identity)

    def at(self, key: bytes) -> bytes | None:
        """The element of a key."""
        _, chunk, place = self._find(key)
        found = chunk[place] if place < len(chunk) else b""
        return found if found.startswith(key) else None

    def with_(self, element: bytes) -> Members:
        """With this element, in the place of the one of its key."""
        number, chunk, place = self._find(key := element[: self.size])
        replaced = place < len(chunk) and chunk[place].startswith(key)
        new = (*chunk[:place], element, *chunk[place + replaced :])
        parts = (new,) if len(new) <= 2 * CHUNK else (new[:CHUNK], new[CHUNK:])
        return self._replaced(number, parts)

    def without(self, key: bytes) -> Members:
        """Without the element of a key, which is there."""
        number, chunk, place = self._find(key)
        new = (*chunk[:place], *chunk[place + 1 :])
        return self._replaced(number, (new,) if new else ())

    def differences(self, old: Members | None) -> tuple[list[bytes], list[bytes]]:
        """(elements that `old` has and this one does not, those that this one has and `old` does not), in order; None has none."""
        if old is None:
            return [], list(self)
        mine, theirs = (set(map(id, one.chunks)) for one in (self, old))
        before = set(itertools.chain.from_iterable(one for one in old.chunks if id(one) not in mine))
        after = set(itertools.chain.from_iterable(one for one in self.chunks if id(one) not in theirs))
        return sorted(before - after), sorted(after - before)

    def element(self, content: bytes) -> Element:
        """One element, unpacked."""
        key, comment = self.parts(content), content[self.size :].decode(errors="replace")
        return Element(netns=self.netns, family=self.family, table=self.table, set=self.set, key=key, comment=comment)

    def elements(self) -> Iterator[Element]:
        """All, unpacked."""
        return map(self.element, self)

    def parts(self, content: bytes) -> tuple[Part, ...]:
        """The key of an element."""
        key = content[: types.size(self.key)]
        return (ipaddress.ip_network((key, content[len(key)])),) if self.interval else types.key_parts(self.key, key)

    def _find(self, key: bytes) -> tuple[int, Chunk, int]:
        """The number of the chunk that has a key, or would have it, that chunk, and the place there."""
        number = max(0, bisect_right(self.chunks, key, key=lambda one: one[0][: len(key)]) - 1)
        chunk = self.chunks[number] if self.chunks else ()
        return number, chunk, bisect_left(chunk, key)

    def _replaced(self, number: int, parts: Sequence[Chunk]) -> Members:
        return msgspec.structs.replace(self, chunks=(*self.chunks[:number], *parts, *self.chunks[number + 1 :]))


def _chunks(elements: Iterable[bytes]) -> tuple[Chunk, ...]:
    ordered = sorted(elements)
    return tuple(tuple(ordered[start : start + CHUNK]) for start in range(0, len(ordered), CHUNK))

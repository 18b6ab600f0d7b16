"""Networks that Nodes say that they have, by place: what is the same, what holds it and what is in it. Pure.

CIDRs that overlap are one within the other, so all that overlaps one is found by a look-up for each length in use, and by one slice of
what is sorted.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

BITS = {4: 32, 6: 128}
Rank = tuple[bool, bool, str, str]
"""The lesser one has precedence: is it an address at which no node is reached, is its Node not ready, since when that is there, and its
name."""


class Place(NamedTuple):
    """A network: the first `length` bits of `start`."""

    version: int
    start: int
    length: int

    def overlaps(self, other: Place) -> bool:
        """Do they have an address in common?"""
        if self.version != other.version:
            return False
        room = BITS[self.version] - min(self.length, other.length)
        return self.start >> room == other.start >> room


class Claim(NamedTuple):
    """What a Node says that it has, an address of its own or a block of its pods. Those of one place are sorted by precedence."""

    rank: Rank
    place: Place
    is_block: bool
    text: str

    @property
    def node(self) -> str:
        """The Node's name."""
        return self.rank[3]

    @property
    def is_spare(self) -> bool:
        """Is it an address at which no node is reached?"""
        return self.rank[0]


class Places:
    """Claims of one IP version by place."""

    def __init__(self, version: int) -> None:
        self._version, self._bits = version, BITS[version]
        self._rows: dict[tuple[int, int, int], list[Claim]] = {}
        self._lengths: dict[int, int] = {}
        self._sorted: list[Place] = []

    def add(self, claim: Claim) -> None:
        """A claim comes."""
        if (row := self._rows.get(claim.place)) is not None:
            bisect.insort(row, claim)
            return
        self._rows[claim.place] = [claim]
        self._lengths[claim.place.length] = self._lengths.get(claim.place.length, 0) + 1
        bisect.insort(self._sorted, claim.place)

    def remove(self, claim: Claim) -> None:
        """It goes."""
        place, row = claim.place, self._rows[claim.place]
        del row[bisect.bisect_left(row, claim)]
        if not row:
            del self._rows[place]
            del self._sorted[bisect.bisect_left(self._sorted, place)]
            self._lengths[place.length] -= 1
            if not self._lengths[place.length]:
                del self._lengths[place.length]

    def row(self, place: Place) -> list[Claim]:
        """The claims to exactly this, by precedence."""
        return self._rows.get(place, [])

    def is_free(self, place: Place, name: str) -> bool:
        """Does nothing of other Nodes overlap it, as almost always?"""
        version, start, own_length = place
        for length in self._lengths:
            if length <= own_length:
                room = self._bits - length
                row = self._rows.get((version, start >> room << room, length))
                if row and (len(row) > 1 or row[0].node != name):
                    return False
        return own_length == self._bits or next(self.within(place), None) is None

    def holding(self, place: Place) -> Iterator[Place]:
        """Those there that hold it, in no order; it is one of them, if it is there."""
        for length in self._lengths:
            room = self._bits - length
            if length <= place.length and (one := Place(self._version, place.start >> room << room, length)) in self._rows:
                yield one

    def within(self, place: Place) -> Iterator[Place]:
        """Those there that it holds and that are smaller."""
        if place.length == self._bits:
            return
        end = Place(self._version, place.start + (1 << (self._bits - place.length)), 0)
        index = bisect.bisect_left(self._sorted, place)
        while index < len(self._sorted) and (one := self._sorted[index]) < end:
            if one.length > place.length:
                yield one
            index += 1

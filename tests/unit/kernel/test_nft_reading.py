"""Which dumps of a set are believed: commits come between their datagrams, and the kernel resizes the hash tables of sets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest

from podplane.kernel.netlink import Socket, be32
from podplane.kernel.nft import codec
from podplane.kernel.nft import constants as c
from podplane.kernel.nft.reading import ELEMENT_TRIES, Reader
from podplane.kernel.slices import result
from podplane.state.nft import Element, Set, Table, UnreadElements
from podplane.state.nft_members import Members, SomeMembers, packed

PLACE = {"family": "inet", "table": "t"}
PLAIN, PACKED = (Set(**PLACE, name="s", key=("ipv4_addr",), packed=one) for one in (False, True))
both = pytest.mark.parametrize("owner", [PLAIN, PACKED], ids=["elements", "members"])
Dump = tuple[Iterable[int], bool]
"""The elements that a dump has, by their numbers, and whether there is a commit during it."""


class Dumps:
    """A socket to a kernel with one set, which answers each request for its elements by the next one of these dumps."""

    def __init__(self, owner: Set, *dumps: Dump) -> None:
        self._owner = owner
        self.left = list(dumps)
        self._generation = 7

    def dump(self, kind: int, payload: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
        """The table, and the set."""
        rows = {c.GETTABLE: codec.table(Table(**PLACE)), c.GETSET: codec.set_(self._owner, 1)}
        return [(kind, rows[kind].payload)] if kind in rows else []

    def dump_steps(self, kind: int, payload: bytes, flags: int = 0) -> Iterator[list[tuple[int, bytes]]]:
        """A datagram for each element."""
        numbers, has_commit = self.left.pop(0)
        for number in numbers:
            message = codec.elements(self._owner, [self._value(number)], delete=False)
            yield [(kind, message.payload)]
        self._generation += has_commit

    def ask(self, kind: int, payload: bytes) -> bytes:
        """The generation."""
        assert kind == c.GETGEN
        return payload + be32(c.GEN_ID, self._generation)

    def _value(self, number: int) -> Any:
        if self._owner.packed:
            return SomeMembers(**PLACE, set="s", contents=(packed(number.to_bytes(4, "big"), "x"),))
        return Element(**PLACE, set="s", key=(ipaddress.ip_address(number),), comment="x")


def read(owner: Set, *dumps: Dump) -> list[int] | None:
    """The numbers of the elements that are read, None when it can't be said what is in the set."""
    socket = Dumps(owner, *dumps)
    found = result(Reader(cast(Socket, socket)).tables(frozenset({("inet", "t")})))
    assert not socket.left, "no dump is asked for in vain"
    unread = UnreadElements(**PLACE, set="s")
    if unread.identity in found:
        assert set(found) == {Table(**PLACE).identity, owner.identity, unread.identity}, "nothing of it is believed"
        return None
    members = [one for value in found.values() if isinstance(value, Members) for one in value.elements()]
    elements = [*members, *(value for value in found.values() if isinstance(value, Element))]
    return sorted(int(cast(ipaddress.IPv4Address, one.key[0])) for one in elements)


@both
def test_a_dump_without_a_commit_during_it_is_believed(owner: Set) -> None:
    assert read(owner, ((1, 2, 3), False)) == [1, 2, 3]
    assert read(owner, ((), False)) == []


@both
def test_after_a_dump_with_a_commit_during_it_the_set_is_read_again(owner: Set) -> None:
    assert read(owner, ((1, 2), True), ((1, 2, 3), False)) == [1, 2, 3]


@both
def test_dumps_with_commits_during_them_are_believed_when_two_are_the_same(owner: Set) -> None:
    """The commits are not about this set, then."""
    assert read(owner, ((1, 2), True), ((2, 1), True)) == [1, 2]
    assert read(owner, ((1,), True), ((1, 2), True), ((2, 1), True)) == [1, 2]


@both
def test_of_a_set_that_is_changed_all_the_time_nothing_is_said(owner: Set) -> None:
    """Each dump has left out what is there."""
    assert read(owner, *(((number, 9), True) for number in range(ELEMENT_TRIES))) is None


@both
def test_a_dump_in_which_an_element_comes_twice_has_left_out_another_one(owner: Set) -> None:
    """Though there was no commit: the kernel has resized the set's hash table."""
    assert read(owner, ((1, 2, 2), False), ((3, 2, 1), False)) == [1, 2, 3]
    assert read(owner, *[((1, 2, 2), False)] * ELEMENT_TRIES) is None

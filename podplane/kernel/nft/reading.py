"""Tables of an owner, read back in slices. Tables of others are not looked into."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from podplane.kernel.netlink import NLM_F_DUMP, Socket, be32, parse_attributes, text
from podplane.kernel.nft import constants as c
from podplane.kernel.nft import decode
from podplane.state.nft import (
    COUNTER_OBJECT,
    Chain,
    NamedCounter,
    NftValue,
    OpaqueElement,
    OpaqueObject,
    Rule,
    Set,
    Table,
    UnreadElements,
)
from podplane.state.nft_members import Members
from podplane.state.value import Identity, Value

Found = dict[Identity, Value]
ELEMENTS_AT_ONCE = 200
"""Decoded in one slice: some 2 ms."""
ELEMENT_TRIES = 3
"""Of a set that a commit changes during its dump, some elements are left out that were there all the time, and others come twice; the
kernel does not say so (nf_tables_dump_set sets no NLM_F_DUMP_INTR), so the generation is asked for. While it resizes the hash table of a
set, which it does a moment after a commit, the same happens (rhashtable_walk_next). And any commit, be it in a table of others, is a new
generation. So a dump is believed if there was no commit during it and no element came twice, or if it is the same as the one before it."""


class Reader:
    """Reads over a socket of its own: a dump may be under way while another socket commits."""

    def __init__(self, socket: Socket, port: int = 0) -> None:
        """`port` is that of the socket that protects the tables, if one does: one that it does not own is opaque."""
        self._socket = socket
        self._port = port

    def tables(self, names: frozenset[tuple[str, str]]) -> Generator[None, None, Found]:
        """All objects of these (family, table), as the generator's value; a slice is at most ELEMENTS_AT_ONCE elements."""
        found: Found = {}
        for family, name in sorted(names):
            row = self._table(family, name)
            if row is None:
                continue
            _add(found, decode.table_from(row, self._port))
            yield
            for value in (*self._chains(family, name), *self._objects(family, name)):
                _add(found, value)
            yield
            for owner in self.sets(family, name):
                _add(found, owner)
                if isinstance(owner, Set) and not owner.is_dynamic:
                    yield from self._elements(owner, found)
        return found

    def orphans(self, names: Iterable[tuple[str, str]]) -> list[Table]:
        """The tables of these (family, table) that outlived who protected them."""
        return [Table(family=family, table=name) for family, name in names if self._is_orphan(self._table(family, name))]

    @staticmethod
    def _is_orphan(row: bytes | None) -> bool:
        return row is not None and decode.table_flags(row) & c.TABLE_PROTECTED == c.TABLE_PERSISTENT

    def _table(self, family: str, name: str) -> bytes | None:
        try:
            return self._dump(c.GETTABLE, family, text(c.TABLE_NAME, name), flags=0)[0][1]
        except FileNotFoundError:
            return None

    def _dump(self, kind: int, family: str, payload: bytes = b"", flags: int = NLM_F_DUMP) -> list[tuple[int, bytes]]:
        return self._socket.dump(kind, c.GENERIC.pack(c.FAMILIES[family], 0, 0) + payload, flags)

    def _chains(self, family: str, name: str) -> Iterator[Chain | OpaqueObject]:
        rules: dict[tuple[str, str], list[Rule]] = {}
        for _, row in self._dump(c.GETRULE, family, text(c.RULE_TABLE, name)):
            place, rule = decode.rule_from(row)
            rules.setdefault(place, []).append(rule)
        for _, row in self._dump(c.GETCHAIN, family):  # the kernel has no filter by table here
            if decode.is_in_table(row, name):
                chain = decode.chain_from(row, ())
                if isinstance(chain, Chain):
                    chain = decode.with_rules(chain, tuple(rules.get((name, chain.name), ())))
                if chain is not None:
                    yield chain

    def _objects(self, family: str, name: str) -> Iterator[NamedCounter | OpaqueObject]:
        kinds: tuple[tuple[int, int, Callable[[bytes], NamedCounter | OpaqueObject]], ...] = (
            (c.GETOBJECT, c.OBJECT_TABLE, decode.object_from),
            (c.GETFLOWTABLE, c.FLOWTABLE_TABLE, decode.flowtable_from),
        )
        for kind, attribute, from_row in kinds:
            for _, row in self._dump(kind, family, text(attribute, name)):
                value = from_row(row)
                if value.table == name:
                    yield value

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """The counters of a table, all or those of these names that there are: how many packets each counted."""
        query = text(c.OBJECT_TABLE, table) + be32(c.OBJECT_TYPE, COUNTER_OBJECT)
        if names is None:
            return dict(decode.count_from(row) for _, row in self._dump(c.GETOBJECT, family, query))
        found: dict[str, int] = {}
        for name in names:
            try:
                _, row = self._dump(c.GETOBJECT, family, query + text(c.OBJECT_NAME, name), flags=0)[0]
            except FileNotFoundError:
                continue
            found |= (decode.count_from(row),)
        return found

    def sets(self, family: str, name: str) -> list[Set | OpaqueObject]:
        """The sets of a table; none when there is no such table."""
        try:
            rows = self._dump(c.GETSET, family, text(c.SET_TABLE, name))
        except FileNotFoundError:
            return []
        return [value for value in map(decode.set_from, (row for _, row in rows)) if value is not None]

    def _elements(self, owner: Set, found: Found) -> Iterator[None]:
        """What is in a set; UnreadElements when that can't be said, nothing when the set is gone."""
        before: Found | None = None
        began = generation(self._socket)
        for _ in range(ELEMENT_TRIES):
            try:
                contents = yield from self._dump_elements(owner)
            except FileNotFoundError:
                return
            ended = generation(self._socket)
            if contents is not None and (began == ended or contents == before):
                found.update(contents)
                return
            before, began = contents, ended
        _add(found, UnreadElements(family=owner.family, table=owner.table, set=owner.name))

    def _dump_elements(self, owner: Set) -> Generator[None, None, Found | None]:
        """The elements of a set by one dump; None if some came twice."""
        decoded: Callable[[Set, bytes], Iterable[Any]] = (
            decode.packed_from if owner.packed and not owner.interval else decode.elements_from
        )
        rows: list[Any] = []
        for messages in self._socket.dump_steps(c.GETSETELEM, _query(owner)):
            more = itertools.chain.from_iterable(decoded(owner, message) for _, message in messages)
            while some := list(itertools.islice(more, ELEMENTS_AT_ONCE)):
                rows += some
                yield
        if owner.packed and owner.interval:
            return _networks(owner, rows)
        return (_members if owner.packed else _each)(owner, rows)


def generation(socket: Socket) -> int:
    """The kernel's own count of commits in this namespace (NFT_MSG_GETGEN); it wraps at 32 bits."""
    content = socket.ask(c.GETGEN, c.GENERIC.pack(0, 0, 0))
    return int.from_bytes(parse_attributes(content, c.GENERIC.size)[c.GEN_ID], "big")


def _members(owner: Set, rows: Sequence[bytes | OpaqueElement]) -> Found | None:
    """The elements of a packed set as one value; one that is none of podplane's is a value of its own."""
    others = [one for one in rows if isinstance(one, OpaqueElement)]
    own = {one for one in rows if isinstance(one, bytes)}
    if len(own) + len(others) < len(rows):
        return None
    return {one.identity: one for one in (*others, *((Members.of(owner, own),) if own else ()))}


def _networks(owner: Set, rows: Sequence[decode.Row]) -> Found | None:
    """The same of a set of networks."""
    if len({row[:2] for row in rows}) < len(rows):
        return None
    return _members(owner, list(decode.packed_intervals(owner, rows)))


def _each(owner: Set, rows: Sequence[decode.Row]) -> Found | None:
    elements = decode.join_intervals(owner, rows)
    found: Found = {one.identity: one for one in elements}
    return found if len(found) == len(elements) else None


def _query(owner: Set) -> bytes:
    """What asks for the elements of a set."""
    query = c.GENERIC.pack(c.FAMILIES[owner.family], 0, 0)
    return query + text(c.ELEM_LIST_TABLE, owner.table) + text(c.ELEM_LIST_SET, owner.name)


def _add(found: Found, value: NftValue) -> Identity:
    identity = value.identity
    found[identity] = value
    return identity

"""Tables of an owner, read back in slices. Tables of others are not looked into."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator

from podplane.kernel.netlink import NLM_F_DUMP, DumpInterrupted, Socket, be32, text
from podplane.kernel.nft import constants as c
from podplane.kernel.nft import decode
from podplane.state.nft import COUNTER_OBJECT, Chain, NamedCounter, NftValue, OpaqueElement, OpaqueObject, Rule, Set
from podplane.state.nft_members import Members
from podplane.state.value import Identity, Value

Found = dict[Identity, Value]
ELEMENTS_AT_ONCE = 200
"""Decoded in one slice: some 2 ms."""
ELEMENT_TRIES = 2
"""Any commit, be it in a table of others, interrupts a dump. A long dump is read again once, and then taken as it is: if this set was
changed meanwhile, the generation says so, and all is read again."""


class Reader:
    """Reads over a socket of its own: a dump may be under way while another socket commits."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def tables(self, names: frozenset[tuple[str, str]]) -> Generator[None, None, Found]:
        """All objects of these (family, table), as the generator's value; a slice is at most ELEMENTS_AT_ONCE elements."""
        found: Found = {}
        for family, name in sorted(names):
            try:
                _, row = self._dump(c.GETTABLE, family, text(c.TABLE_NAME, name), flags=0)[0]
            except FileNotFoundError:
                continue
            _add(found, decode.table_from(row))
            yield
            for value in (*self._chains(family, name), *self._objects(family, name)):
                _add(found, value)
            yield
            for owner in self.sets(family, name):
                _add(found, owner)
                if isinstance(owner, Set) and owner.packed:
                    yield from self._packed(owner, found)
                elif isinstance(owner, Set) and not owner.is_dynamic:
                    yield from self._elements(owner, found)
        return found

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

    def _packed(self, owner: Set, found: Found) -> Iterator[None]:
        """The elements of a packed set as one value; one that is none of podplane's is a value of its own."""
        for _ in range(ELEMENT_TRIES):
            own: list[bytes] = []
            others: list[OpaqueElement] = []
            try:
                for rows in self._socket.dump_steps(c.GETSETELEM, _query(owner)):
                    for _, row in rows:
                        for one in decode.packed_from(owner, row):
                            if isinstance(one, OpaqueElement):
                                others.append(one)
                            else:
                                own.append(one)
                    yield
            except FileNotFoundError:
                return
            except DumpInterrupted:
                continue
            break
        for other in others:
            _add(found, other)
        if own:
            _add(found, Members.of(owner, own))

    def _elements(self, owner: Set, found: Found) -> Iterator[None]:
        query = _query(owner)
        for attempt in range(ELEMENT_TRIES):
            own: list[Identity] = []
            intervals: list[decode.Row] = []
            try:
                for rows in self._socket.dump_steps(c.GETSETELEM, query):
                    decoded = itertools.chain.from_iterable(decode.elements_from(owner, row) for _, row in rows)
                    while some := list(itertools.islice(decoded, ELEMENTS_AT_ONCE)):
                        if owner.interval and len(owner.key) == 1:
                            intervals += some
                        else:
                            own += [_add(found, element) for _, _, element in some]
                        yield
            except FileNotFoundError:
                return
            except DumpInterrupted:
                if attempt + 1 < ELEMENT_TRIES:
                    for identity in own:
                        found.pop(identity, None)
                    continue
            for element in decode.join_intervals(owner, intervals):
                _add(found, element)
            return


def _query(owner: Set) -> bytes:
    """What asks for the elements of a set."""
    query = c.GENERIC.pack(c.FAMILIES[owner.family], 0, 0)
    return query + text(c.ELEM_LIST_TABLE, owner.table) + text(c.ELEM_LIST_SET, owner.name)


def _add(found: Found, value: NftValue) -> Identity:
    identity = value.identity
    found[identity] = value
    return identity

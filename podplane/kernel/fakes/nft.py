"""nf_tables of a fake namespace, as strict as the kernel's.

What is created must not be there, what is deleted must be, with nothing that refers to it; what a rule or an element refers to must be
there. A transaction takes effect whole or not at all. Transactions, their order and what is sent again after a refusal are the real door's
own code (`kernel.nft.table`); messages are packed as for the kernel, so that what can't be packed fails here too.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterable, Mapping, Sequence

from podplane.kernel.fakes.objects import Objects
from podplane.kernel.nft.packed import SetKey
from podplane.kernel.nft.table import Refused
from podplane.kernel.nft.units import Unit
from podplane.state.nft import (
    GOTO,
    JUMP,
    Chain,
    CounterReference,
    Dynset,
    Element,
    Immediate,
    Lookup,
    NamedCounter,
    NftValue,
    OpaqueElement,
    OpaqueObject,
    Set,
    Table,
    Verdict,
)
from podplane.state.nft_members import Members, SomeMembers, packed, packed_key
from podplane.state.operations import Operation
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value


class Refusal(Exception):
    """What the kernel would answer."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.errno = number


class FakeTables:
    """`kernel.nft.table.Tables` over the objects of a fake namespace, as of a kernel that protects no tables."""

    table_flags = 0

    def __init__(self, objects: Objects) -> None:
        self._namespace = objects
        self._values = objects.nft

    def close(self) -> None:
        """Nothing."""

    def generation(self) -> int:
        """Commits of everybody."""
        return self._namespace.commits + self._namespace.foreign_commits

    def adopt(self, names: Iterable[tuple[str, str]]) -> int:
        """None."""
        return 0

    def try_table(self, value: Table, flags: int = 0) -> int:
        """0, EEXIST, or EOPNOTSUPP for a family that this kernel does not have."""
        try:
            self._check_arrival(None, value)
        except Refusal as refused:
            return refused.errno
        self._namespace.commits += 1
        return 0

    def prolong(self, family: str, table: str, name: str, key: bytes, milliseconds: int) -> int:
        """It is remembered, for a set that is there."""
        if self.find_set((family, table, name)) is None:
            return errno.ENOENT
        self._namespace.commits += 1
        self._namespace.prolonged[family, table, name, key] = milliseconds
        return 0

    def find_set(self, key: SetKey) -> Set | None:
        """A set of this name."""
        found = self._values.get(Set(family=key[0], table=key[1], name=key[2], key=("mark",)).identity)
        return found if isinstance(found, Set) else None

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """What a test says that was counted (`Objects.counts`)."""
        own = [
            v for v in tuple(self._values.values()) if isinstance(v, NamedCounter) and (v.family, v.table) == (family, table)
        ]
        return {one.name: self._namespace.counts.get(one.name, 0) for one in own if names is None or one.name in tuple(names)}

    def read_steps(self, owner: Ownership) -> Generator[None, None, dict[Identity, Value]]:
        """All objects of the owner's tables, in one slice."""
        yield
        own = {
            identity: value
            for identity, value in tuple(self._values.items())
            if isinstance(value, NftValue) and (value.family, value.table) in owner.tables
        }
        return _packed(own)

    def commit(self, batch: Sequence[Unit]) -> list[Refused]:
        """All units or, when one is refused, none."""
        before: list[tuple[Identity, Value | None]] = []
        refused: list[Refused] = []
        for number, unit in enumerate(batch):
            for position, operation in _in_order(unit):
                try:
                    self._carry_out(operation, before)
                except Refusal as error:
                    refused.append(Refused(number, 0, position, error.errno, ""))
                    break
        if refused:
            for identity, value in reversed(before):
                self._set(identity, value)
        else:
            self._namespace.commits += 1
        return refused

    def _set(self, identity: Identity, value: Value | None) -> None:
        if value is None:
            self._values.pop(identity, None)
        else:
            self._values[identity] = value

    def _change(self, identity: Identity, value: Value | None, before: list[tuple[Identity, Value | None]]) -> None:
        before.append((identity, self._values.get(identity)))
        self._set(identity, value)

    def _carry_out(self, operation: Operation, before: list[tuple[Identity, Value | None]]) -> None:
        old, new = operation
        if old is not None:
            self._check_removal(old, new)
        if new is not None:
            self._check_arrival(old, new)
        if old is not None and new is None:
            for identity in self._inside(old):
                self._change(identity, None, before)
        self._change(operation.value.identity, new, before)

    def _check_removal(self, old: Value, new: Value | None) -> None:
        """ENOENT when it is not there, EBUSY when something refers to it."""
        if old.identity not in self._values:
            raise Refusal(errno.ENOENT)
        recreated = new is None or isinstance(old, OpaqueObject)
        if isinstance(old, Chain) and isinstance(new, Chain):
            recreated = (old.hook, old.comment) != (new.hook, new.comment)
        names = REFERENCES.get(str(old.identity[0]))  # nothing refers to what is of another kind: elements, which are many
        if recreated and names and any(old.identity in names(v) for i, v in self._values.items() if i != old.identity):
            raise Refusal(errno.EBUSY)

    def _check_arrival(self, old: Value | None, new: Value) -> None:
        """EEXIST when it is there already, ENOENT when something that it needs is not."""
        assert isinstance(new, NftValue)
        if new.family not in self._namespace.nft_families:
            raise Refusal(errno.EOPNOTSUPP)
        if not isinstance(new, Table) and Table(family=new.family, table=new.table).identity not in self._values:
            raise Refusal(errno.ENOENT)
        if old is None and new.identity in self._values and not isinstance(new, Element):
            raise Refusal(errno.EEXIST)
        if isinstance(new, Element):
            owner = self.find_set((new.family, new.table, new.set))
            if owner is None:
                raise Refusal(errno.ENOENT)
            if bool(owner.data) != (new.data is not None):
                raise Refusal(errno.EINVAL)
        for needed in _needs(new):
            found = new if needed == new.identity else self._values.get(needed)
            if found is None:
                raise Refusal(errno.ENOENT)
            if getattr(found, "hook", None) is not None:  # nobody jumps to a base chain
                raise Refusal(errno.EOPNOTSUPP)
        if old is None and new.identity in self._values:
            raise Refusal(errno.EEXIST)
        if _jumps(new):
            self._check_circles(new)

    def _check_circles(self, new: NftValue) -> None:
        """ELOOP when a base chain leads into a circle; one that no base chain leads to stands (nft_chain_validate)."""
        values = {**self._values, new.identity: new}
        if not _ends_in_a_circle([new.identity], values):
            return  # it brings none, and what base chains lead to need not be followed
        if _ends_in_a_circle([i for i, v in values.items() if isinstance(v, Chain) and v.hook is not None], values):
            raise Refusal(errno.ELOOP)

    def _inside(self, old: Value) -> list[Identity]:
        """What goes with a set or a table."""
        match old:
            case Table(family=family, table=table) | OpaqueObject(kind="table", family=family, table=table):
                return [
                    i for i, v in self._values.items() if isinstance(v, NftValue) and (v.family, v.table) == (family, table)
                ]
            case Set(name=name) | OpaqueObject(kind="set", name=name):
                return [
                    i
                    for i, v in self._values.items()
                    if isinstance(v, Element | OpaqueElement) and (v.family, v.table, v.set) == (old.family, old.table, name)
                ]
        return []


def _unpacked(owner: Set, value: Value | None) -> Value | None:
    return Members.of(owner, ()).element(*value.contents) if isinstance(value, SomeMembers) else value


def _packed(values: Mapping[Identity, Value]) -> dict[Identity, Value]:
    """As they are read: with the elements of packed sets as one value."""
    owners = {(v.family, v.table, v.name): v for v in values.values() if isinstance(v, Set) and v.packed}
    own: dict[tuple[str, str, str], list[bytes]] = {}
    found: dict[Identity, Value] = {}
    for identity, value in values.items():
        if isinstance(value, Element) and (key := (value.family, value.table, value.set)) in owners:
            own.setdefault(key, []).append(packed(packed_key(owners[key].key, value.key), value.comment))
        else:
            found[identity] = value
    members = (Members.of(owners[key], contents) for key, contents in own.items())
    return found | {one.identity: one for one in members}


def _in_order(unit: Unit) -> list[tuple[int, Operation]]:
    """The operations as the messages have them, with their places: elements that change are deleted first, then added."""
    rows = list(enumerate(unit.single))
    if unit.owner is not None and unit.owner.packed:
        rows = [(i, Operation(*(_unpacked(unit.owner, value) for value in one))) for i, one in rows]
    if unit.owner is None:
        return rows[:1]  # what else is in the unit goes with its table
    deleted = [(i, Operation(o.old, None)) for i, o in rows if o.old is not None]
    return [*deleted, *((i, Operation(None, o.new)) for i, o in rows if o.new is not None)]


def _needs(value: Value) -> set[Identity]:
    """The sets, chains and counters that must be there."""
    return _jumps(value) | _lookups(value) | _counters(value)


def _jumps(value: Value) -> set[Identity]:
    found: list[Verdict] = []
    if isinstance(value, Chain):
        found = [e.data for r in value.rules for e in r.expressions if isinstance(e, Immediate) and isinstance(e.data, Verdict)]
    elif isinstance(value, Element) and isinstance(value.data, Verdict):
        found = [value.data]
    return {
        ("nft chain", value.netns, value.family, value.table, verdict.chain)
        for verdict in found
        if verdict.code in (JUMP, GOTO) and isinstance(value, NftValue)
    }


def _ends_in_a_circle(starts: Iterable[Identity], values: Mapping[Identity, Value]) -> bool:
    """Does one of these lead into a circle of chains?"""
    done: set[Identity] = set()

    def walk(identity: Identity, path: tuple[Identity, ...]) -> bool:
        if identity in path:
            return True
        if identity not in done:
            if any(walk(ahead, (*path, identity)) for ahead in _leads_to(values[identity], values)):
                return True
            done.add(identity)
        return False

    return any(walk(start, ()) for start in starts)


def _leads_to(value: Value, values: Mapping[Identity, Value]) -> set[Identity]:
    """The chains that packets get to from a chain: by its rules, and by the verdict maps that they look into."""
    maps = {e.set for r in value.rules for e in r.expressions if isinstance(e, Lookup)} if isinstance(value, Chain) else set()
    every = values.values() if maps else ()
    own = [v for v in every if isinstance(v, Element) and v.set in maps and _same_table(v, value)]
    return {ahead for one in (value, *own) for ahead in _jumps(one) if ahead in values}


def _same_table(one: NftValue, other: Value) -> bool:
    return isinstance(other, NftValue) and (one.family, one.table) == (other.family, other.table)


def _lookups(value: Value) -> set[Identity]:
    if not isinstance(value, Chain):
        return set()
    names = {e.set for r in value.rules for e in r.expressions if isinstance(e, Lookup | Dynset)}
    return {("nft set", value.netns, value.family, value.table, name) for name in names}


def _counters(value: Value) -> set[Identity]:
    if not isinstance(value, Chain):
        return set()
    names = {e.name for r in value.rules for e in r.expressions if isinstance(e, CounterReference)}
    return {NamedCounter(family=value.family, table=value.table, name=name).identity for name in names}


REFERENCES = {"nft chain": _jumps, "nft set": _lookups, "nft object": _counters}
"""What a value refers to of each kind."""

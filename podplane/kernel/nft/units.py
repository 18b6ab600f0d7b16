"""Operations on nf_tables as units of messages, in an order in which each finds what it needs.

Tables, counters, sets, chains that are jumped to; elements; base chains; then removals in reverse. What nothing leads to any more goes in
transactions of its own, behind those that are waited for. Between any two units the data path is
correct: sets are filled in the order of their ranks and emptied in reverse, so that a frontend never leads to an endpoint that is not
there; a chain's rules change in one unit, and so does an element. A unit takes effect whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

import msgspec

from podplane.kernel.errors import KernelError, NotFound
from podplane.kernel.netlink import Message
from podplane.kernel.nft import codec
from podplane.kernel.nft import constants as c
from podplane.kernel.nft.decode import table_flags
from podplane.kernel.nft.packed import Packed, SetKey, single
from podplane.state.nft import (
    GOTO,
    JUMP,
    Chain,
    Element,
    Hook,
    Immediate,
    NamedCounter,
    NftValue,
    OpaqueElement,
    OpaqueObject,
    Set,
    Table,
    Verdict,
)
from podplane.state.nft_members import Members, SomeMembers
from podplane.state.operations import Failure, Operation, Report

OPERATIONS_AT_ONCE = 2000
"""So many operations are sorted between two pauses: some 3 ms."""
ELEMENTS = (Element, OpaqueElement, SomeMembers)
REMOVAL_ORDER = {"set": 0, "object": 1, "flowtable": 2}


@dataclass(slots=True)
class Unit:
    """Operations, and the messages that carry them out. `owner` is the set of elements; those who are deleted come first."""

    operations: list[Operation]
    messages: list[Message]
    owner: Set | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum([20 + len(m.payload) for m in self.messages])

    @property
    def single(self) -> list[Operation]:
        """Its operations; on elements, one for each element."""
        return single(self.operations) if self.owner is not None else self.operations

    def parts(self, operations: Sequence[Operation], count: int) -> list[Unit]:
        """At most so many units of some of this unit's operations on single elements, in order."""
        assert self.owner is not None
        step = -(-len(operations) // count) or 1
        return [element_unit(self.owner, list(operations[i : i + step])) for i in range(0, len(operations), step)]

    def operation_at(self, message: int, offset: int) -> int | None:
        """Which of the single operations the attribute at this offset of a message is of; None when it can't be told."""
        operations = self.single
        if len(operations) == 1:
            return 0
        if self.owner is None or not offset:
            return None
        delete = bool(_deleted(operations)) and message == 0
        values = _deleted(operations) if delete else _added(operations)
        found = codec.element_at(self.owner, values, delete, offset)
        if found is None:
            return None
        wanted = values[found]
        return next(i for i, o in enumerate(operations) if (o.old if delete else o.new) is wanted)


def _deleted(operations: Iterable[Operation]) -> list[codec.FoundElement]:
    return [o.old for o in operations if isinstance(o.old, ELEMENTS)]


def _added(operations: Iterable[Operation]) -> list[codec.FoundElement]:
    return [o.new for o in operations if isinstance(o.new, ELEMENTS)]


def element_unit(owner: Set, operations: list[Operation]) -> Unit:
    """Elements of one set: what changes is deleted and added in one transaction. ValueError for what is no element of this set."""
    old, new = _deleted(operations), _added(operations)
    messages = [codec.elements(owner, old, delete=True)] if old else []
    if new:
        messages.append(codec.elements(owner, new, delete=False))
    return Unit(operations, messages, owner)


Grouped = dict[SetKey, list[Operation]]


class Sorted(msgspec.Struct):
    """Operations by what they do."""

    tables: list[Operation] = msgspec.field(default_factory=list)
    counters: list[Operation] = msgspec.field(default_factory=list)
    sets: list[Operation] = msgspec.field(default_factory=list)
    chains: list[Operation] = msgspec.field(default_factory=list)
    elements: Grouped = msgspec.field(default_factory=dict)
    gone_elements: Grouped = msgspec.field(default_factory=dict)
    packed: dict[SetKey, Operation] = msgspec.field(default_factory=dict)
    gone_packed: dict[SetKey, Operation] = msgspec.field(default_factory=dict)
    gone_chains: list[Operation] = msgspec.field(default_factory=list)
    gone_objects: list[Operation] = msgspec.field(default_factory=list)
    gone_tables: list[Operation] = msgspec.field(default_factory=list)

    def add(self, operations: Iterable[Operation]) -> None:
        """Sort these in, after those that were."""
        for operation in operations:
            value = operation.value
            if isinstance(value, Element | OpaqueElement):
                groups = self.gone_elements if operation.new is None else self.elements
                groups.setdefault((value.family, value.table, value.set), []).append(operation)
            elif isinstance(value, Members):
                row = self.gone_packed if operation.new is None else self.packed
                row[value.family, value.table, value.set] = operation
            else:
                self._list(value, operation.new is None).append(operation)

    def _list(self, value: object, gone: bool) -> list[Operation]:
        kind = value.kind if isinstance(value, OpaqueObject) else type(value).__name__.lower()
        if gone:
            return {"table": self.gone_tables, "chain": self.gone_chains}.get(kind, self.gone_objects)
        return {"table": self.tables, "namedcounter": self.counters, "set": self.sets, "chain": self.chains}[kind]


def units(
    operations: Sequence[Operation],
    sets: dict[SetKey, Set],
    find: Find,
    packed: Packed,
    report: Report,
    table_flags: int = 0,
) -> Iterator[Unit | None]:
    """The units, in order; None where those before it are to be sent: now and then while operations are only sorted, for the caller to
    pause, and when all is in force and only leftovers are to be removed.

    `sets` are those that are known; it learns those that come and forgets those that go. `find` looks for others in the kernel. What
    can't be sent is in the report. Tables are created with `table_flags`.
    """
    by_kind = Sorted()
    for start in range(0, len(operations), OPERATIONS_AT_ONCE):
        by_kind.add(operations[start : start + OPERATIONS_AT_ONCE])
        if len(operations) > OPERATIONS_AT_ONCE:
            yield None
    for operation in by_kind.tables:
        yield from _table(operation, report, table_flags)
    for operation in by_kind.counters:
        yield from _counter(operation, report)
    for operation in sorted(by_kind.sets, key=_is_packed):
        yield from _set(operation, sets, report)
    yield from _chains(by_kind.chains, report, base=False)
    for key, owner in _in_order({**by_kind.elements, **by_kind.packed}, sets, find):
        own = by_kind.elements.get(key, [])
        if (whole := by_kind.packed.get(key)) is not None:
            puts, removals = packed.elements(whole, report)
            own = [*own, *puts]
            by_kind.gone_elements.setdefault(key, []).extend(removals)
        yield from _elements(key, owner, own, report)
    yield from _chains(by_kind.chains, report, base=True)
    yield from _removals(by_kind, sets, find, packed, report)


Find = Callable[[SetKey], Set | None]


def _fail(operation: Operation, label: str, why: str, report: Report) -> None:
    report.failed.append(Failure(operation, KernelError(label, why)))


def _table(operation: Operation, report: Report, flags: int) -> Iterator[Unit]:
    value = operation.new
    assert isinstance(value, Table)
    if isinstance(operation.old, Table):
        _fail(operation, f"change nft table {value.family} {value.table}", "the kernel can't change a table's comment", report)
    else:
        old = operation.old
        if isinstance(old, OpaqueObject):  # a table is persistent from its creation on, or never (nf_tables_updtable)
            kept = table_flags(old.content) & c.TABLE_PERSISTENT
            flags = flags | kept if kept else 0
        yield Unit([operation], [codec.table(value, flags, known=old is not None)])


def _counter(operation: Operation, report: Report) -> Iterator[Unit]:
    value, old = operation.new, operation.old
    assert isinstance(value, NamedCounter)
    if isinstance(old, NamedCounter):
        why = "the kernel can't change a counter's comment"
        _fail(operation, f"change nft counter {value.table} {value.name}", why, report)
        return
    delete = [codec.delete_object(old)] if isinstance(old, OpaqueObject) else []
    yield Unit([operation], [*delete, codec.counter(value)])


def _is_packed(operation: Operation) -> bool:
    """The kernel looks for a set by its name among all of the table, in the order in which they came, for each rule that names it: sets
    that many rules look into come before those that there may be thousands of."""
    return isinstance(operation.new, Set) and operation.new.packed


def _set(operation: Operation, sets: dict[SetKey, Set], report: Report) -> Iterator[Unit]:
    """A set comes; one that was there may only change its rank, of which the kernel needs to know nothing."""
    value, old = operation.new, operation.old
    assert isinstance(value, Set)
    key = value.family, value.table, value.name
    if isinstance(old, Set) and msgspec.structs.replace(old, rank=value.rank) != value:
        label = f"change nft set {value.table} {value.name}"
        _fail(operation, label, "the kernel can't change a set: it must be deleted and created", report)
        return
    sets[key] = value
    if isinstance(old, Set):
        report.applied.append(operation)
        return
    delete = [codec.delete_set(old)] if isinstance(old, OpaqueObject) else []
    yield Unit([operation], [*delete, codec.set_(value, 1 + len(sets))])


def _jumps(value: object) -> set[tuple[str, str, str]]:
    """The chains that a chain's rules jump to: a verdict is the last expression of its rule."""
    if not isinstance(value, Chain):
        return set()
    last = (rule.expressions[-1] for rule in value.rules if rule.expressions)
    verdicts = {one.data for one in last if isinstance(one, Immediate)}
    return {(value.family, value.table, one.chain) for one in verdicts if isinstance(one, Verdict) and one.code in (JUMP, GOTO)}


def _chain_name(operation: Operation) -> tuple[str, str, str]:
    value = operation.value
    assert isinstance(value, Chain | OpaqueObject)
    return value.family, value.table, value.name


def _called_first(operations: list[Operation], old: bool) -> list[Operation]:
    """Chains that are jumped to before those that jump to them; as they come where that is a circle, which the kernel refuses."""
    if len(operations) < 2:
        return operations
    by_name = {_chain_name(o): o for o in operations}
    graph = {name: _jumps(o.old if old else o.new) & by_name.keys() for name, o in by_name.items()}
    try:
        return [by_name[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError:
        return operations


def _chains(operations: list[Operation], report: Report, *, base: bool) -> Iterator[Unit]:
    own = [o for o in operations if isinstance(o.new, Chain) and (o.new.hook is not None) == base]
    for operation in _called_first(own, old=False):
        value = operation.new
        assert isinstance(value, Chain)
        try:
            yield Unit([operation], [*_chain(operation.old, value), *codec.rules(value)])
        except (ValueError, LookupError) as error:
            _fail(operation, f"nft chain {value.table} {value.name}", str(error), report)


def _chain(old: object, new: Chain) -> list[Message]:
    """What makes an empty chain of the wanted kind out of what is there."""
    if old is None:
        return [codec.chain(new)]
    assert isinstance(old, Chain | OpaqueObject)
    flush = codec.flush_chain(new)
    if isinstance(old, Chain) and (_place(old.hook), old.comment) == (_place(new.hook), new.comment):
        return [flush] if old.hook == new.hook else [flush, codec.chain(new, known=True)]
    return [flush, codec.delete_chain(old), codec.chain(new)]


def _place(hook: Hook | None) -> tuple[str, str, int] | None:
    """What of a hook the kernel can't change."""
    return None if hook is None else (hook.type, hook.hook, hook.priority)


def _in_order(keys: Iterable[SetKey], sets: dict[SetKey, Set], find: Find) -> list[tuple[SetKey, Set | None]]:
    """Sets by their ranks; None for one that is not there."""
    owners = [(key, sets.get(key) or find(key)) for key in keys]
    return sorted(owners, key=lambda row: row[1].rank if row[1] is not None else 0)


def _elements(key: SetKey, owner: Set | None, own: list[Operation], report: Report) -> Iterator[Unit]:
    """Elements of one set that come, change or go; many in a unit."""
    if owner is None:
        error = NotFound(f"elements of nft set {key[1]} {key[2]}", "there is no such set")
        report.failed += [Failure(operation, error) for operation in own]
        return
    portion, count = list[Operation](), 0
    for operation in own:
        value = operation.value
        size = len(value.contents) if isinstance(value, SomeMembers) else 1
        if portion and count + size > codec.ELEMENTS_PER_MESSAGE:
            yield from _element_units(owner, portion, report)
            portion, count = [], 0
        portion.append(operation)
        count += size
    if portion:
        yield from _element_units(owner, portion, report)


def _element_units(owner: Set, operations: list[Operation], report: Report) -> Iterator[Unit]:
    """One unit; but what is no element of this set is left out, and the others are units of their own."""
    try:
        unit = element_unit(owner, operations)
    except ValueError as error:
        if len(operations) > 1:
            for operation in operations:
                yield from _element_units(owner, [operation], report)
        else:
            _fail(operations[0], f"an element of nft set {owner.table} {owner.name}", str(error), report)
    else:
        yield unit


def _removals(by_kind: Sorted, sets: dict[SetKey, Set], find: Find, packed: Packed, report: Report) -> Iterator[Unit | None]:
    """Elements in reverse, chains before those that they jump to, sets, tables; what is in a table that goes, goes with it."""
    with_table: dict[tuple[str, str], list[Operation]] = {_table_of(o): [o] for o in by_kind.gone_tables}

    def stays(operation: Operation) -> bool:
        covered = with_table.get(_table_of(operation))
        if covered is not None:
            covered.append(operation)
        return covered is None

    elements = {}
    for key, own in by_kind.gone_elements.items():
        if key[:2] in with_table:
            with_table[key[:2]] += own
        else:
            elements[key] = own
    with_set = _packed_removals(by_kind, with_table, elements, packed, report)
    for key, owner in reversed(_in_order(elements, sets, find)):
        yield from _elements(key, owner, elements[key], report)
    chains, objects = list(filter(stays, by_kind.gone_chains)), list(filter(stays, by_kind.gone_objects))
    if chains or objects:
        yield None
    for operation in reversed(_called_first(chains, old=True)):
        chain = operation.old
        assert isinstance(chain, Chain | OpaqueObject)
        yield Unit([operation], [codec.flush_chain(chain), codec.delete_chain(chain)])
    for operation in sorted(objects, key=_removal_order):
        value = operation.old
        assert isinstance(value, Set | NamedCounter | OpaqueObject)
        if isinstance(value, NamedCounter):
            yield Unit([operation], [codec.delete_counter(value)])
        elif isinstance(value, Set) or value.kind == "set":
            key = value.family, value.table, value.name
            sets.pop(key, None)
            yield Unit([operation, *with_set.get(key, ())], [codec.delete_set(value)])
        else:
            yield Unit([operation], [codec.delete_object(value)])
    for (family, table), covered in with_table.items():
        for key in [key for key in sets if key[:2] == (family, table)]:
            del sets[key]
        yield Unit(covered, [codec.delete_table(Table(family=family, table=table))])


def _packed_removals(
    by_kind: Sorted, with_table: dict[tuple[str, str], list[Operation]], elements: Grouped, packed: Packed, report: Report
) -> Grouped:
    """Those of packed sets that go with their sets; others are added to what goes with tables, or to `elements`."""
    gone = {(o.value.family, o.value.table, o.value.name) for o in by_kind.gone_objects if isinstance(o.value, Set)}
    with_set: Grouped = {}
    for key, operation in by_kind.gone_packed.items():
        if key[:2] in with_table:
            with_table[key[:2]].append(operation)
        elif key in gone:
            with_set[key] = [operation]
        else:
            elements.setdefault(key, []).extend(packed.elements(operation, report)[1])
    return with_set


def _removal_order(operation: Operation) -> int:
    value = operation.value
    kind = "object" if isinstance(value, NamedCounter) else value.kind if isinstance(value, OpaqueObject) else "set"
    return REMOVAL_ORDER[kind]


def _table_of(operation: Operation) -> tuple[str, str]:
    value = operation.value
    assert isinstance(value, NftValue)
    return value.family, value.table

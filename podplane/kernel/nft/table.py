"""Operations on nf_tables as transactions, and reading tables back.

A transaction takes effect whole or not at all, and one send without privileges carries some 200 KiB. A larger change becomes several
transactions, ordered so that each leaves a working data path: tables, sets, chains that are jumped to; elements; base chains; then
removals, in reverse. Sets are filled in an order that is given, and emptied in reverse, so that nobody is misled who comes by a frontend to
its endpoint. A chain's rules change in one transaction, and so does an element.

When a transaction is refused, the refused units are left out and the rest is sent again; what can't even be packed is left out before: the
report is honest for each.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from podplane.kernel.errors import KernelError, NotFound, from_errno
from podplane.kernel.netlink import (
    BATCH_BYTES,
    NLM_F_ACK,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    Message,
    Refusal,
    Socket,
    encode,
    parse_attributes,
    text,
)
from podplane.kernel.nft import codec
from podplane.kernel.nft import constants as c
from podplane.state.nft import Chain, Element, NftValue, Rule, Set, Table
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value

SetKey = tuple[str, str, str]
ELEMENTS_PER_UNIT = 500
PROBE = "podplane-probe"


@dataclass(slots=True)
class Unit:
    """Messages that belong together, and the operations that they carry out."""

    operations: list[Operation]
    messages: list[Message]

    @property
    def size(self) -> int:
        """Bytes, with headers."""
        return sum(20 + len(m.payload) for m in self.messages)


class Nft:
    """nf_tables of the namespace in which `socket` was opened."""

    def __init__(self, socket: Socket, order: Mapping[str, int]) -> None:
        self._socket = socket
        self._order = order
        self._sets: dict[SetKey, Set] = {}
        self._numbers = itertools.count(1)
        self._generation: int | None = None
        self._commits = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out the operations in as few transactions as fit; each operation is in the report."""
        report = Report()
        for transaction in _transactions(self._units(operations, report)):
            self._commit(transaction, report)
        return report

    def has_foreign_commit(self) -> bool:
        """Did anybody else commit a change of this namespace's nf_tables since this was asked last? Each commit counts one."""
        header = c.GENERIC.pack(0, 0, 0)
        ((_, content),) = self._socket.dump(c.GETGEN, header, flags=0)
        now = int.from_bytes(parse_attributes(content, c.GENERIC.size)[c.GEN_ID], "big")
        before, own = self._generation, self._commits
        self._generation, self._commits = now, 0
        return before is not None and now - before != own

    def has_family(self, family: str) -> bool:
        """Does the kernel have tables of this family? A transaction that adds a table and deletes it again says so, and changes nothing.

        A table of that name that is there already is left alone (NLM_F_EXCL), and is an answer too.
        """
        probe = Table(family=family, table=PROBE)
        add = [Message(m.type, m.flags | NLM_F_EXCL, m.payload, m.label) for m in codec.table(probe, False)]
        refused = self._socket.transaction(_batch([*add, *codec.table(probe, True)]))
        self._commits += not refused
        return all(refusal.errno == errno.EEXIST for refusal in refused)

    # From operations to units of messages, in an order in which each finds what it needs.

    def _units(self, operations: Sequence[Operation], report: Report) -> Iterator[Unit]:
        new = [o for o in operations if o.new is not None]
        gone_tables = {_place(o.value) for o in operations if o.new is None and isinstance(o.value, Table)}
        covered = [o for o in operations if o.new is None and not isinstance(o.value, Table) and _place(o.value) in gone_tables]
        report.applied += covered  # the table takes them along
        skip = set(map(id, covered))
        gone = [o for o in operations if o.new is None and id(o) not in skip]
        chains = [o for o in new if isinstance(o.value, Chain)]
        yield from (Unit([o], codec.table(o.value, False)) for o in new if isinstance(o.value, Table))
        yield from self._new_sets(new)
        yield from (Unit([], [codec.chain(o.value)]) for o in chains if isinstance(o.value, Chain))
        yield from self._rules((o for o in chains if not _is_base(o)), report)
        yield from self._elements(new, report)
        yield from self._rules((o for o in chains if _is_base(o)), report)
        yield from self._removals(gone, report)

    def _new_sets(self, new: list[Operation]) -> Iterator[Unit]:
        for operation in new:
            value = operation.value
            if isinstance(value, Set):
                self._sets[(*_place(value), value.name)] = value
                yield Unit([operation], [codec.set_(value, False, next(self._numbers))])

    @staticmethod
    def _rules(operations: Iterable[Operation], report: Report) -> Iterator[Unit]:
        for operation in operations:
            chain = operation.value
            assert isinstance(chain, Chain)
            flush = [codec.flush_chain(chain)] if operation.old is not None else []
            try:
                yield Unit([operation], flush + codec.rules(chain))
            except ValueError as error:
                report.failed.append(Failure(operation, KernelError(f"nft chain {chain.table} {chain.name}", str(error))))

    def _elements(self, operations: Iterable[Operation], report: Report, *, reverse: bool = False) -> Iterator[Unit]:
        """Elements that come, change or go, set by set; many in a unit."""
        by_set: dict[SetKey, list[Operation]] = {}
        for operation in operations:
            if isinstance(operation.value, Element):
                by_set.setdefault((*_place(operation.value), operation.value.set), []).append(operation)
        for key in sorted(by_set, key=lambda key: self._order.get(key[2], 0), reverse=reverse):
            own = by_set[key]
            owner = self._sets.get(key) or self._find_set(key)
            if owner is None:
                error = NotFound(f"elements of nft set {key[1]} {key[2]}", "there is no such set")
                report.failed += [Failure(operation, error) for operation in own]
                continue
            for start in range(0, len(own), ELEMENTS_PER_UNIT):
                yield from self._element_units(owner, own[start : start + ELEMENTS_PER_UNIT], report)

    def _element_units(self, owner: Set, operations: list[Operation], report: Report) -> Iterator[Unit]:
        """One unit; but what is no element of this set is left out, and the others are units of their own."""
        try:
            unit = _element_unit(owner, operations)
        except ValueError as error:
            if len(operations) > 1:
                for operation in operations:
                    yield from self._element_units(owner, [operation], report)
            else:
                label = f"an element of nft set {owner.table} {owner.name}"
                report.failed.append(Failure(operations[0], KernelError(label, str(error))))
        else:
            yield unit

    def _removals(self, gone: list[Operation], report: Report) -> Iterator[Unit]:
        """First what is asked first: elements in reverse, base chains before those that they jump to, then sets and tables."""
        yield from self._elements(gone, report, reverse=True)
        chains = [o.value for o in gone if isinstance(o.value, Chain)]
        chains.sort(key=lambda chain: chain.hook is None)
        yield from (Unit([], [codec.flush_chain(chain)]) for chain in chains)
        by_chain = {o.value.identity: o for o in gone}
        yield from (Unit([by_chain[chain.identity]], [codec.delete_chain(chain)]) for chain in chains)
        for operation in gone:
            if isinstance(operation.value, Set):
                self._sets.pop((*_place(operation.value), operation.value.name), None)
                yield Unit([operation], [codec.set_(operation.value, True, 0)])
        yield from (Unit([o], codec.table(o.value, True)) for o in gone if isinstance(o.value, Table))

    # Transactions.

    def _commit(self, units: list[Unit], report: Report) -> None:
        """Send one transaction; leave out what is refused, and send the rest again."""
        while units:
            starts = list(itertools.accumulate((len(unit.messages) for unit in units), initial=2))
            refused = self._socket.transaction(_batch([m for unit in units for m in unit.messages]))
            if not refused:
                self._commits += 1
                report.applied += [o for unit in units for o in unit.operations]
                return
            bad = {_unit_of(refusal, starts): refusal for refusal in reversed(refused)}
            if None in bad:  # the commit itself: no single message is to blame
                bad = dict.fromkeys(range(len(units)), bad[None])
            again: list[Unit] = []
            for position, unit in enumerate(units):
                refusal = bad.get(position)
                if refusal is None:
                    again.append(unit)
                elif len(unit.operations) > 1 and len(bad) < len(units):
                    again += self._singly(unit)
                else:
                    self._fail(unit, refusal, refusal.index - starts[position], report)
            units = again

    def _singly(self, unit: Unit) -> list[Unit]:
        """A refused unit of many elements as units of one, to find the one to blame."""
        result = []
        for operation in unit.operations:
            element = operation.value
            assert isinstance(element, Element)
            owner = self._sets.get((*_place(element), element.set)) or self._find_set((*_place(element), element.set))
            if owner is not None:
                result.append(_element_unit(owner, [operation]))
        return result

    @staticmethod
    def _fail(unit: Unit, refusal: Refusal, position: int, report: Report) -> None:
        label = unit.messages[position if 0 <= position < len(unit.messages) else 0].name
        error = from_errno(label, refusal.errno, refusal.text)
        report.failed += [Failure(operation, error) for operation in unit.operations]

    # Reading.

    def _find_set(self, key: SetKey) -> Set | None:
        """A set that was there before this process."""
        for found in self._dump_sets([key[:2]]):
            self._sets[(*_place(found), found.name)] = found
        return self._sets.get(key)

    def _dump(self, kind: int, family: str, payload: bytes = b"") -> list[bytes]:
        header = c.GENERIC.pack(c.FAMILIES[family], 0, 0)
        return [content for _, content in self._socket.dump(kind, header + payload)]

    def _dump_sets(self, tables: Collection[tuple[str, str]]) -> list[Set]:
        found = []
        for family, name in tables:
            try:
                rows = self._dump(c.GETSET, family, text(c.SET_TABLE, name))
            except FileNotFoundError:
                continue  # there is no such table
            found += [codec.set_from(row) for row in rows]
        return found

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """All objects of the owner's tables."""
        values: list[Value] = []
        for family, name in sorted(owner.tables):
            tables = [codec.table_from(row) for row in self._dump(c.GETTABLE, family)]
            present = [t for t in tables if (t.family, t.table) == (family, name)]
            if present:
                values += [*present, *self._read_chains(family, name), *self._read_sets(family, name)]
        return {value.identity: value for value in values}

    def _read_chains(self, family: str, name: str) -> list[Chain]:
        rules: dict[tuple[str, str], list[Rule]] = {}
        for row in self._dump(c.GETRULE, family, text(c.RULE_TABLE, name)):
            place, rule = codec.rule_from(row)
            rules.setdefault(place, []).append(rule)
        chains = [codec.chain_from(row, ()) for row in self._dump(c.GETCHAIN, family)]
        own = [chain for chain in chains if chain.table == name and chain.family == family]
        return [_with_rules(chain, tuple(rules.get((name, chain.name), ()))) for chain in own]

    def _read_sets(self, family: str, name: str) -> list[Set | Element]:
        result: list[Set | Element] = []
        for owner in self._dump_sets([(family, name)]):
            self._sets[(*_place(owner), owner.name)] = owner
            result += [owner] if owner.is_dynamic else [owner, *self._read_elements(owner)]
        return result

    def _read_elements(self, owner: Set) -> list[Element]:
        query = text(c.ELEM_LIST_TABLE, owner.table) + text(c.ELEM_LIST_SET, owner.name)
        found = [e for row in self._dump(c.GETSETELEM, owner.family, query) for e in codec.elements_from(owner, row)]
        return codec.join_intervals(owner, found)


def _with_rules(chain: Chain, rules: tuple[Rule, ...]) -> Chain:
    return Chain(family=chain.family, table=chain.table, name=chain.name, hook=chain.hook, rules=rules, comment=chain.comment)


def _place(value: Value) -> tuple[str, str]:
    assert isinstance(value, NftValue)
    return value.family, value.table


def _unit_of(refusal: Refusal, starts: list[int]) -> int | None:
    """Which unit a refused sequence number belongs to; None for the batch as a whole."""
    return next((i for i in range(len(starts) - 1) if starts[i] <= refusal.index < starts[i + 1]), None)


def _is_base(operation: Operation) -> bool:
    return getattr(operation.value, "hook", None) is not None


def _element_unit(owner: Set, operations: list[Operation]) -> Unit:
    """Elements of one set: what changes is deleted and added again in the same transaction, so nobody ever misses it."""
    old = [o.old for o in operations if isinstance(o.old, Element)]
    new = [o.new for o in operations if isinstance(o.new, Element)]
    return Unit(operations, [*codec.elements(owner, old, delete=True), *codec.elements(owner, new, delete=False)])


def _transactions(units: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Units in order, as many in a transaction as one send carries."""
    batch: list[Unit] = []
    size = 0
    for unit in units:
        if batch and size + unit.size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(unit)
        size += unit.size
    if batch:
        yield batch


def _batch(messages: list[Message]) -> bytes:
    """The bytes of a transaction: begin (sequence 1), the messages (from 2 on), end."""
    edge = c.GENERIC.pack(0, 0, c.NFNL_SUBSYS_NFTABLES)
    last = len(messages) - 1
    pieces = [encode(Message(c.BATCH_BEGIN, 0, edge), 1, NLM_F_REQUEST)]
    for i, message in enumerate(messages):
        pieces.append(encode(message, i + 2, NLM_F_REQUEST | (NLM_F_ACK if i == last else 0)))
    pieces.append(encode(Message(c.BATCH_END, 0, edge), last + 3, NLM_F_REQUEST))
    return b"".join(pieces)

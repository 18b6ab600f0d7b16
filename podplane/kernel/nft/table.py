"""nf_tables of one network namespace: operations as transactions, and reading tables back.

A transaction takes effect whole or not at all. A change is cut into transactions of a few milliseconds each, in the order of `units`,
which leaves a working data path after each of them: a caller on an event loop may do something else in between (`steps`).

When a transaction is refused, the refused units are left out and the rest is sent again; what can't even be packed is left out
before. Of many elements in one message the kernel names the first that it refuses (NLMSGERR_ATTR_OFFS): this one is left out, the
others are sent again in several messages, so that each round finds more of them. When the kernel blames the transaction and none of
its messages, halves of it are tried. So the report is exact for each operation.

Tables may be protected, where the kernel can (NFT_TABLE_F_OWNER and NFT_TABLE_F_PERSIST, Linux 6.9): then the socket that commits owns
them, others are refused what they would change in them (EPERM), and `nft flush ruleset` of others passes them over (nft_flush). When the
socket is closed they stay, without an owner (nft_rcv_nl_event); who reads them next with a protecting door adopts them.
"""

from __future__ import annotations

import errno
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from podplane.kernel.errors import Denied, KernelError, from_errno
from podplane.kernel.kept import Kept
from podplane.kernel.netlink import BATCH_BYTES, BATCH_MESSAGES, Message, Overrun, Refusal, Socket
from podplane.kernel.nft import codec
from podplane.kernel.nft import constants as c
from podplane.kernel.nft.packed import Packed, SetKey
from podplane.kernel.nft.reading import Found, Reader, generation
from podplane.kernel.nft.units import Unit, element_unit, units
from podplane.kernel.slices import result
from podplane.state.nft import Set, Table
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Value

SLICE_BYTES = 48 * 1024
"""A transaction of some 600 elements, 3-5 ms to encode and commit; larger ones are no quicker in all."""
PROBE = "podplane-probe"
"""A table that is made and deleted in one transaction, to see whether the kernel would have it."""
PARTS = 4
"""A unit of elements, one of which was refused, is sent again in so many."""
WHOLE = -1
EDGE = c.GENERIC.pack(0, 0, c.NFNL_SUBSYS_NFTABLES)
BEGIN, END = Message(c.BATCH_BEGIN, 0, EDGE), Message(c.BATCH_END, 0, EDGE)


class Refused(NamedTuple):
    """What a transaction was refused for: a unit (WHOLE: it can't be told which), its message, and the operation if it is known."""

    unit: int
    message: int
    operation: int | None
    errno: int
    text: str


class Tables(Protocol):
    """What holds the tables: the kernel, or a fake."""

    @property
    def table_flags(self) -> int:
        """Those of tables that are created: TABLE_PROTECTED, or 0."""

    def adopt(self, names: Iterable[tuple[str, str]]) -> int:
        """Protect those of the tables that have nobody any more who does; how many commits that took."""

    def commit(self, batch: Sequence[Unit]) -> list[Refused]:
        """Carry out all units, or none and say what was refused. Overrun when it is not known what became of it."""

    def generation(self) -> int:
        """The number of commits so far, of all processes."""

    def try_table(self, value: Table, flags: int = 0) -> int:
        """Create a table with these flags and delete it again, in one transaction: 0, or the error number of the refusal."""

    def prolong(self, family: str, table: str, name: str, key: bytes, milliseconds: int) -> int:
        """Have a set the element with this key for so long from now on: 0, or the error number of the refusal."""

    def find_set(self, key: SetKey) -> Set | None:
        """A set of this name."""

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """How many packets each named counter of a table counted, or those of these names."""

    def read_steps(self, owner: Ownership) -> Generator[None, None, Found]:
        """All objects of the owner's tables."""

    def close(self) -> None:
        """Let go of the sockets."""


class KernelTables:
    """nf_tables of the namespace in which `open_socket` opens sockets (NETLINK_NETFILTER).

    All that changes something goes by one socket, for it may own the tables; a lock keeps threads from using it at once.
    """

    def __init__(self, open_socket: Callable[[], Socket]) -> None:
        self.table_flags = 0
        self._socket, self._using = open_socket(), threading.Lock()
        self._reading = Kept(open_socket)

    def close(self) -> None:
        """Close the sockets; tables that they protected can be changed by anybody then."""
        self._socket.close()
        self._reading.close()

    def protect(self) -> bool:
        """Protect tables that are created from now on, and those that are read. False where the kernel can't, which is tried."""
        probe = Table(family="inet", table=PROBE)
        self.table_flags = 0 if self.try_table(probe, c.TABLE_PROTECTED) else c.TABLE_PROTECTED
        return bool(self.table_flags)

    def adopt(self, names: Iterable[tuple[str, str]]) -> int:
        """By one transaction, if there are any. One that is refused is not missed: then they are read as others'."""
        if not self.table_flags:
            return 0
        with self._reading.use() as socket:
            orphans = Reader(socket).orphans(names)
        return int(bool(orphans) and not self._transaction([codec.table(one, self.table_flags, known=True) for one in orphans]))

    def _transaction(self, messages: Iterable[Message], size: int = 0) -> list[Refusal]:
        with self._using:
            if size > BATCH_BYTES:
                self._socket.make_room(size + BATCH_BYTES)
            return self._socket.transaction([BEGIN, *messages, END])

    def commit(self, batch: Sequence[Unit]) -> list[Refused]:
        """One transaction. OSError when it is too large for one send."""
        refusals = self._transaction((m for unit in batch for m in unit.messages), sum(unit.size for unit in batch))
        if not refusals:
            return []
        starts = list(itertools.accumulate((len(unit.messages) for unit in batch), initial=1))
        refused = []
        for refusal in refusals:
            unit = next((i for i in range(len(batch)) if starts[i] <= refusal.index < starts[i + 1]), WHOLE)
            message = refusal.index - starts[unit] if unit != WHOLE else 0
            operation = batch[unit].operation_at(message, refusal.offset) if unit != WHOLE else None
            refused.append(Refused(unit, message, operation, refusal.errno, refusal.text))
        return refused

    def try_table(self, value: Table, flags: int = 0) -> int:
        """The creation is exclusive: a table of this name that is there already is left alone (EEXIST)."""
        refused = self._transaction([codec.table(value, flags), codec.delete_table(value)])
        return refused[0].errno if refused else 0

    def prolong(self, family: str, table: str, name: str, key: bytes, milliseconds: int) -> int:
        """Adding what is there changes no timeout (before Linux 6.12): it is added, deleted and added again, in one transaction."""
        refused = self._transaction(codec.prolonged(family, table, name, key, milliseconds))
        return refused[0].errno if refused else 0

    def generation(self) -> int:
        """The kernel's own count."""
        with self._using:
            return generation(self._socket)

    def find_set(self, key: SetKey) -> Set | None:
        """A set that was there before this process."""
        with self._reading.use() as socket:
            found = Reader(socket).sets(*key[:2])
        return next((one for one in found if isinstance(one, Set) and one.name == key[2]), None)

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """Over a socket of its own, too."""
        with self._reading.use() as socket:
            return Reader(socket).counts(family, table, names)

    def read_steps(self, owner: Ownership) -> Generator[None, None, Found]:
        """Over a socket of its own, so that transactions may come in between."""
        with self._reading.use() as socket:
            return (yield from Reader(socket, self._socket.port if self.table_flags else 0).tables(owner.tables))


class Nft:
    """One namespace's nf_tables. Its methods, and the steps of its generators, are called from one thread at a time."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._sets: dict[SetKey, Set] = {}
        self._generation: int | None = None
        self._commits = 0
        self._is_lost = False

    def close(self) -> None:
        """Let go of the sockets."""
        self._tables.close()

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out the operations; each is in the report."""
        report = Report()
        for step in self.steps(operations):
            report.merge(step)
        return report

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        """The same in slices; each reports what it did, which may be nothing."""
        packed = Packed()
        yield from map(packed.folded, self._steps(operations, packed))

    def _steps(self, operations: Sequence[Operation], packed: Packed) -> Iterator[Report]:
        report = Report()
        batch: list[Unit] = []
        size = count = 0
        for unit in units(operations, self._sets, self._tables.find_set, packed, report, self._tables.table_flags):
            if unit is None or (batch and (size + unit.size > SLICE_BYTES or count + len(unit.messages) > BATCH_MESSAGES)):
                yield from self._carry_out(batch, report)
                batch, size, count, report.applied, report.failed = [], 0, 0, [], []
            if unit is not None:
                batch.append(unit)
                size += unit.size
                count += len(unit.messages)
        yield from self._carry_out(batch, report)

    def _carry_out(self, batch: list[Unit], before: Report) -> Iterator[Report]:
        report = Report(before.applied, before.failed)
        waiting = deque([batch] if batch else [])
        while waiting:
            waiting.extendleft(reversed(self._commit(waiting.popleft(), report)))
            yield report
            report = Report()
        if not batch:
            yield report

    def _commit(self, batch: list[Unit], report: Report) -> list[list[Unit]]:
        """Send one transaction; what of it is to be sent again, in order."""
        try:
            refused = self._tables.commit(batch)
        except OSError as error:
            self._is_lost |= isinstance(error, Overrun)
            _fail_all(batch, error, report)
            return []
        if not refused:
            self._commits += 1
            report.applied += [o for unit in batch for o in unit.operations]
            return []
        if any(one.unit == WHOLE for one in refused):
            return _halves(batch, refused[0], report)
        by_unit = _blamed(batch, refused)
        again: list[Unit] = []
        for position, unit in enumerate(batch):
            again += _without(unit, by_unit[position], report) if position in by_unit else [unit]
        return list(_transactions(again))

    def make_anew(self, tables: Sequence[Table], values: Sequence[Value]) -> bool:
        """Put these values in the place of all that the tables have, in one transaction: each packet finds the former ones or these. False
        when the kernel does not take that (it may be too large for one send); then nothing is changed."""
        report, sets = Report(), dict[SetKey, Set]()
        creations, flags = [Operation(None, value) for value in values], self._tables.table_flags
        made = units(creations, sets, lambda _: None, Packed(), report, flags)
        gone = [Unit([Operation(one, None)], [codec.delete_table(one)]) for one in tables]
        batch = [*gone, *(unit for unit in made if unit is not None)]
        try:
            if report.failed or self._tables.commit(batch):
                return False
        except OSError as error:
            self._is_lost |= isinstance(error, Overrun)
            return False
        self._commits += 1
        names = {(one.family, one.table) for one in tables}
        self._sets = {key: one for key, one in self._sets.items() if key[:2] not in names} | sets
        return True

    def foreign_commit(self) -> bool:
        """Did anybody else commit a change of this namespace's nf_tables since this was asked last? Each commit counts one.

        True also after a transaction of our own whose outcome is unknown: what the kernel holds must be read.

        A poll costs 12 µs: every 80 ms, that is 0.02 % of a core, however much is committed. A subscription (NFNLGRP_NFTABLES)
        would say who it was, but has the kernel notify of each element that we commit ourselves: 2-3 µs more for one of 44 µs,
        before anybody reads it, and an overflow with every large change, after which the generation must be asked all the same.
        """
        now = self._tables.generation()
        before, own, lost = self._generation, self._commits, self._is_lost
        self._generation, self._commits, self._is_lost = now, 0, False
        return lost or (before is not None and (now - before) % (1 << 32) != own)

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """How many packets each named counter of a table counted, or those of these names. May be called in any thread."""
        return self._tables.counts(family, table, names)

    def has_family(self, family: str) -> bool:
        """Does the kernel have tables of this family? It is tried, which changes nothing."""
        refusal = self._tables.try_table(Table(family=family, table=PROBE))
        self._commits += not refusal
        return refusal in (0, errno.EEXIST)

    def prolong(self, family: str, table: str, name: str, key: bytes, milliseconds: int) -> None:
        """Have a set with timeouts the element with this key for so long from now on. KernelError when it can't; may be called in any
        thread."""
        refusal = self._tables.prolong(family, table, name, key, milliseconds)
        if refusal:
            raise from_errno(f"prolong an element of nft set {table} {name}", refusal)
        self._commits += 1

    def read(self, owner: Ownership) -> Found:
        """All objects of the owner's tables."""
        return result(self.read_steps(owner))

    def read_steps(self, owner: Ownership) -> Generator[None, None, Found]:
        """The same in slices, as the generator's value. What is committed while it is read may be seen or not."""
        self._commits += self._tables.adopt(owner.tables)
        found = yield from self._tables.read_steps(owner)
        for value in found.values():
            if isinstance(value, Set):
                key = value.family, value.table, value.name
                known = self._sets.get(key)
                self._sets[key] = value if known is None or value.rank else _with_rank(value, known.rank)
        return found


def _with_rank(value: Set, rank: int) -> Set:
    return msgspec.structs.replace(value, rank=rank)


def _error(label: str, refused: Refused) -> KernelError:
    """Of rights, all of a transaction is refused; of one message that is said only of a table that somebody protects (nft_table_lookup)."""
    if refused.errno == errno.EPERM and refused.unit != WHOLE:
        return Denied(label, "another process owns the table", refused.errno, "end it: does another agent run?")
    return from_errno(label, refused.errno, refused.text)


def _fail(unit: Unit, refused: Refused, report: Report) -> None:
    error = _error(unit.messages[refused.message].name, refused)
    report.failed += [Failure(operation, error) for operation in unit.operations]


def _fail_all(batch: Sequence[Unit], error: OSError, report: Report) -> None:
    for unit in batch:
        why = from_errno(unit.messages[0].name, error.errno or 0, error.strerror or "")
        report.failed += [Failure(operation, why) for operation in unit.operations]


def _blamed(batch: Sequence[Unit], refused: Iterable[Refused]) -> dict[int, Refused]:
    """The first refusal of each unit, up to the first of a chain, a set or a table: what is refused behind that may be so because of it."""
    found: dict[int, Refused] = {}
    for one in sorted(refused, key=lambda one: one.unit):
        found.setdefault(one.unit, one)
        if batch[one.unit].owner is None:
            break
    return found


def _without(unit: Unit, refused: Refused, report: Report) -> list[Unit]:
    """What of a refused unit is to be sent again."""
    operations, position = unit.single, refused.operation
    if unit.owner is None or len(operations) == 1 or refused.errno == errno.EPERM:
        _fail(unit, refused, report)
        return []
    if position is None:
        return unit.parts(operations, 2)
    before, one, after = operations[:position], operations[position : position + 1], operations[position + 1 :]
    _fail(element_unit(unit.owner, one), refused._replace(message=0), report)
    return [*(unit.parts(before, 1) if before else []), *(unit.parts(after, PARTS) if after else [])]


def _halves(batch: list[Unit], refused: Refused, report: Report) -> list[list[Unit]]:
    """A transaction without a message to blame, in two; the last one that can't be divided is to blame itself."""
    if refused.errno == errno.EPERM:
        refused = refused._replace(message=0)
        for unit in batch:
            _fail(unit, refused, report)
        return []
    if len(batch) > 1:
        return [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    (unit,) = batch
    operations = unit.single
    if unit.owner is None or len(operations) == 1:
        _fail(unit, refused, report)
        return []
    return [[part] for part in unit.parts(operations, 2)]


def _transactions(again: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Units in order, as many in a transaction as one may have."""
    batch: list[Unit] = []
    size = count = 0
    for unit in again:
        if batch and (size + unit.size > SLICE_BYTES or count + len(unit.messages) > BATCH_MESSAGES):
            yield batch
            batch, size, count = [], 0, 0
        batch.append(unit)
        size += unit.size
        count += len(unit.messages)
    if batch:
        yield batch

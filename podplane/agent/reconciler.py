"""From operations to the kernel and back: what is sent together, what is read back, and what is put right.

The kernel is trusted to hold what it acknowledged. It is read back, and compared with the whole desired state, at the start, after
an operation failed, when somebody else changed nf_tables, and by a slow audit: what somebody else changed or removed is put right then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from podplane.kernel.namespace import Namespace
from podplane.services.flows import Ways
from podplane.services.report import Flow
from podplane.state.desired import Desired, compose
from podplane.state.network import Link, Sysctl
from podplane.state.nft import NftValue, Set, Table
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, IPAddress, Value

log = logging.getLogger(__name__)

AUDIT_INTERVAL, RETRY_INTERVAL = 60.0, 1.0
"""Seconds: between two audits, and from a failure to the audit that tries again."""
AUDIT_SHARE = 10
"""After an audit that somebody else's changes asked for in vain, the next such one waits so many times as long as it took."""


LARGE = 5000
"""So many values take long to compare."""
NOT_APPLIED, REPAIRED = "NotApplied", "Repaired"
"""Reasons of events."""
Failed = Mapping[Identity, Exception]
"""Why operations failed, by what they were about."""


class Trouble(Protocol):
    """Who is told what went wrong."""

    def __call__(self, key: str, why: str, reason: str = NOT_APPLIED) -> None:
        """The key that it is about (`service/default/web`), and why; `reason` is one word for it."""


class Kernel(Protocol):
    """The door to one node's kernel state, as `kernel.door` opens it."""

    def attach(self, name: str, namespace: Namespace) -> None:
        """Give a network namespace the name by which values speak of it."""

    def detach(self, name: str) -> None:
        """Forget a namespace: what was in it counts as gone."""

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out the operations; each is in the report."""

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        """What the kernel holds of this owner in the node's own namespace, and the values of these sysctls."""

    def announce(self, link: str, ips: Iterable[IPAddress]) -> None:
        """Tell the neighbours on a link that these addresses are here."""

    def has_foreign_commit(self) -> bool:
        """Did anybody else change the node's nf_tables since this was asked last?"""

    def has_bridge_family(self) -> bool:
        """Does the kernel have nf_tables of the bridge family?"""

    def forget(self, ways: Ways) -> int:
        """Delete the connections to these frontends that do not go where they may."""

    def connections(self) -> list[Flow]:
        """The node's tracked connections that were translated to another destination."""

    def matches(self, wanted: Value, found: Value) -> bool:
        """Does what was found fulfil what is wanted (fields left to the kernel may have any value)?"""


class Reconciler:
    """The way of one node's operations to its kernel; its methods run on one event loop."""

    def __init__(
        self,
        node_name: str,
        kernel: Kernel,
        ownership: Ownership,
        clock: Callable[[], float],
        trouble: Trouble,
    ) -> None:
        self.desired = Desired()
        self.ownership = ownership
        self.wake = asyncio.Event()
        self._node_name = node_name
        self._kernel = kernel
        self._clock = clock
        self._trouble = trouble
        self._audit_at = 0.0
        self._retry_seconds = RETRY_INTERVAL
        self._foreign_commit = self._is_suspect = False
        self._patience_until = 0.0
        self._busy = asyncio.Lock()
        self._queue: list[tuple[list[Operation], asyncio.Future[Failed]]] = []
        self._sending: asyncio.Task[None] | None = None

    def read(self) -> dict[Identity, Value]:
        """All that is this owner's in the kernel."""
        self._foreign_commit |= self._kernel.has_foreign_commit()  # whatever comes from now on is news
        return self._kernel.read(self.ownership)

    async def settled(self) -> dict[Identity, Value]:
        """The same, when nothing is under way."""
        async with self._busy:
            return self.read()

    def audit_soon(self) -> None:
        """Something went wrong: compare everything before long, and later each time that doesn't help."""
        self._is_suspect = True
        self._audit_at = min(self._audit_at, self._clock() + self._retry_seconds)

    async def look(self) -> bool:
        """Audit when it is time, or when somebody else was at work. Was anything of nf_tables put right?"""
        if self._sending is not None:  # what is on its way would be found missing, and come twice
            await asyncio.wait([self._sending], timeout=RETRY_INTERVAL)
        async with self._busy:
            began = self._clock()
            self._foreign_commit |= self._kernel.has_foreign_commit()
            if began < self._audit_at and not (self._foreign_commit and began >= self._patience_until):
                return False
            tables, others = self._foreign_commit or self._is_suspect, self._foreign_commit
            self._foreign_commit = False
            report = await self._audit_aside(tables)
            repaired = sum(isinstance(operation.value, NftValue) for operation in report.applied)
            if repaired and others:
                why = f"somebody else changed nf_tables: {repaired} of podplane's rules and elements were put right"
                self._trouble(f"node/{self._node_name}", why, REPAIRED)
            ended = self._clock()
            self._patience_until = ended + (1 if repaired else AUDIT_SHARE) * (ended - began)
            return repaired > 0

    async def _audit_aside(self, tables: bool) -> Report:
        """Audit; where there is much to read, in a thread, so that the loop goes on. Changes of the meantime wait for it."""
        if not tables or len(self.desired) < LARGE:
            return self.audit(tables=tables)
        began = self._clock()
        report = await asyncio.to_thread(self._compare, dict(self.desired), None, tables)
        return self._audited(report, began)

    async def idle(self) -> None:
        """Wait until nothing is on its way to the kernel."""
        while self._sending is not None:
            await asyncio.wait([self._sending])

    async def apply(self, operations: list[Operation]) -> Report:
        """Send operations, together with all others of this moment; what became of these."""
        if not operations:
            return Report()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Failed] = loop.create_future()
        self._queue.append((operations, outcome))
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        failed = await outcome
        if not failed:
            return Report(operations)
        return Report(
            [o for o in operations if o.value.identity not in failed],
            [Failure(o, failed[o.value.identity]) for o in operations if o.value.identity in failed],
        )

    async def _send(self) -> None:
        """Send what is queued until nothing is; ten pods that come at once are one change of the kernel."""
        try:
            while self._queue:
                changes, self._queue = self._queue, []
                try:
                    await self._send_together(changes)
                except Exception as error:
                    for _, outcome in changes:
                        if not outcome.done():
                            outcome.set_exception(error)
        finally:
            self._sending = None

    async def _send_together(self, changes: list[tuple[list[Operation], asyncio.Future[Failed]]]) -> None:
        together = changes[0][0] if len(changes) == 1 else compose([operation for own, _ in changes for operation in own])
        operations, removals = _staged(together)
        async with self._busy:
            report = await self._carry_out(operations)
            failed = {failure.operation.value.identity: failure.error for failure in report.failed}
            for _, outcome in changes:
                if not outcome.done():
                    outcome.set_result(failed)
            if removals:
                await self._carry_out(removals)

    async def _carry_out(self, operations: list[Operation]) -> Report:
        """Ask the kernel; what becomes of a failure that is no refusal (too many open files, say) is a report too."""
        began = self._clock()
        try:
            if any(map(_takes_long, operations)):
                report = await asyncio.to_thread(self._kernel.apply, operations)
            else:
                report = self._kernel.apply(operations)
        except Exception as error:
            log.exception("apply node=%s", self._node_name)
            report = Report(failed=[Failure(operation, error) for operation in operations])
        self._log("reconcile", report, began)
        if report.failed:
            self.audit_soon()
            self.wake.set()
        return report

    def _log(self, what: str, report: Report, began: float) -> None:
        level = logging.WARNING if report.failed else logging.DEBUG
        milliseconds = (self._clock() - began) * 1000
        counts = f"applied={len(report.applied)} failed={len(report.failed)} ms={milliseconds:.1f}"
        for failure in report.failed:
            for key in self.desired.owners(failure.operation.value.identity):
                self._trouble(key, f"the kernel refuses it: {failure.error}")
        log.log(level, "%s node=%s %s %s", what, self._node_name, counts, "; ".join(map(str, report.failed[:3])))

    def audit(self, found: Mapping[Identity, Value] | None = None, *, tables: bool = True) -> Report:
        """Compare the kernel with the desired state, and put the difference right; `found` is what was just read of it.

        Without `tables`, nf_tables is left out: where nobody else committed, it holds what it acknowledged.
        """
        began = self._clock()
        return self._audited(self._compare(self.desired, found, tables), began)

    def _compare(self, wanted: Mapping[Identity, Value], found: Mapping[Identity, Value] | None, tables: bool) -> Report:
        """Put the difference right; may run in a thread."""
        own = [value.name for value in wanted.values() if isinstance(value, Sysctl) and not value.netns]
        if found is None:
            owner = self.ownership if tables else msgspec.structs.replace(self.ownership, tables=frozenset())
            found = self._kernel.read(owner, own)
        else:
            found = {**found, **self._kernel.read(Ownership(), own)}
        found = self._without_outgrown(wanted, found)
        return self._kernel.apply(self._differences(wanted, found, tables))

    def _audited(self, report: Report, began: float) -> Report:
        """Say what became of an audit, and when there is to be the next one."""
        self._audit_at = self._clock() + AUDIT_INTERVAL
        self._log("audit", report, began)
        if report.failed:
            self._audit_at = self._clock() + self._retry_seconds
            self._retry_seconds = min(AUDIT_INTERVAL, 2 * self._retry_seconds)
        else:
            self._retry_seconds = RETRY_INTERVAL
            self._is_suspect = False
        return report

    def _without_outgrown(self, wanted: Mapping[Identity, Value], found: Mapping[Identity, Value]) -> Mapping[Identity, Value]:
        """Without tables that have a set of another shape than is wanted, as of another version of this program: those are made anew.

        The kernel can't change a set's shape, nor delete one that rules look into.
        """
        sets = [value for value in found.values() if isinstance(value, Set) and wanted.get(value.identity, value) != value]
        outgrown = {(value.family, value.table) for value in sets}
        if not outgrown:
            return found
        log.warning("audit node=%s made anew: %s", self._node_name, ", ".join(f"{one.table} {one.name}" for one in sets))
        self._kernel.apply([Operation(Table(family=family, table=table), None) for family, table in sorted(outgrown)])
        return {i: v for i, v in found.items() if not (isinstance(v, NftValue) and (v.family, v.table) in outgrown)}

    def _differences(self, wanted: Mapping[Identity, Value], found: Mapping[Identity, Value], tables: bool) -> list[Operation]:
        """Between the desired state and what was found on the node; pods' own namespaces are not read back."""
        surplus = [Operation(value, None) for identity, value in found.items() if identity not in wanted]
        missing = [
            Operation(found.get(identity), value)
            for identity, value in wanted.items()
            if not value.netns
            and (tables or not isinstance(value, NftValue))
            and (identity not in found or not self._kernel.matches(value, found[identity]))
        ]
        return surplus + missing


def _takes_long(operation: Operation) -> bool:
    """Removing a link makes the kernel wait for all its readers (synchronize_net): some 20 ms."""
    return operation.new is None and isinstance(operation.old, Link)


def _staged(operations: Sequence[Operation]) -> tuple[list[Operation], list[Operation]]:
    """What is done at once, and what nobody has to wait for: a link that is to go is only set down at first, and that ends its traffic."""
    at_once, removals = [], []
    for operation in operations:
        link = operation.old
        if _takes_long(operation) and isinstance(link, Link) and link.kind and not link.netns:
            down = msgspec.structs.replace(link, up=False)
            at_once.append(Operation(link, down))
            removals.append(Operation(down, None))
        else:
            at_once.append(operation)
    return at_once, removals

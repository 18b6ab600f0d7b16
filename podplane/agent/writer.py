"""The one writer of a node's kernel state: takes what is due from the ledger, sends it in slices, and brings back what
became of it.

Operations are computed by the ledger when they are sent. A large change is sent in slices, with turns for other tasks
between them; what somebody waits for (`settled`) and nothing in flight concerns goes in between. Removing links makes the
kernel wait for its readers, some 20 ms: links that are down already are removed in a thread, many together, while all else goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

from podplane.agent.pause import Pause
from podplane.kernel.errors import Retry
from podplane.state.ledger import Ledger
from podplane.state.network import Link
from podplane.state.operations import Failure, Operation, Report
from podplane.state.value import Identity

log = logging.getLogger(__name__)
REFUSALS_LOGGED = 3
"""Of all that the kernel refuses of one take, so many reasons are logged."""
TAKEN_AT_ONCE = 2000
"""So many operations are computed in some milliseconds."""


class Interrupted(Exception):
    """What was to be sent was not: it is still due."""


class Sink(Protocol):
    """The part of the kernel door that takes changes."""

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        """Carry out the operations in slices; each is in one report."""

    def remove_links(self, operations: Sequence[Operation]) -> Report:
        """Remove links of the node's own namespace; may be called in another thread than all else."""

    def detach(self, name: str) -> None:
        """Forget a network namespace: what was in it counts as gone."""


class Writer:
    """All methods run on one event loop."""

    def __init__(
        self,
        node_name: str,
        ledger: Ledger,
        kernel: Sink,
        clock: Callable[[], float],
        before_send: Callable[[], None],
        sent: Callable[[Report], None],
    ) -> None:
        """`before_send` is called before operations are computed, `sent` with each report."""
        self._node_name = node_name
        self._ledger = ledger
        self._kernel = kernel
        self._clock = clock
        self._before_send = before_send
        self._sent = sent
        self._waiters: dict[Identity, list[_Waiter]] = {}
        self._urgent: dict[Identity, None] = {}
        self._detached: dict[str, asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None
        self._removals: list[Operation] = []
        self._removed: dict[Identity, None] = {}
        """Links whose removal is on its way."""
        self._reaper: asyncio.Task[None] | None = None
        self._round = asyncio.Event()
        self._refused = 0
        self._refusals: list[Failure] = []
        self.operations_applied = self.operations_refused = 0
        """So many operations took effect, and were refused, since the beginning."""

    def wake(self) -> None:
        """Send what is due, soon."""
        if self._task is None and (self._ledger.has_due or self._detached):
            self._task = asyncio.get_running_loop().create_task(self._drain(), name=f"writer {self._node_name}")

    async def settled(self, identities: Collection[Identity]) -> list[Failure]:
        """Wait until nothing of these is pending; what the kernel refused of them. Interrupted when the writer ended early."""
        waiter = _Waiter(self._ledger.unsettled(identities))
        if waiter.remaining:
            for identity in waiter.remaining:
                self._waiters.setdefault(identity, []).append(waiter)
            if not self._ledger.is_any_sent(waiter.remaining):  # the others may need those that are on their way
                self._urgent |= dict.fromkeys(waiter.remaining)
            self.wake()
            await waiter.done.wait()
            if waiter.is_interrupted:
                raise Interrupted("the writer ended before this was sent")
        return [failure for identity in identities if (failure := self._failure(identity)) is not None]

    def _failure(self, identity: Identity) -> Failure | None:
        refusal = self._ledger.refusal(identity)
        if refusal is None:
            return None
        return Failure(self._ledger.refused_operation(identity), refusal.error)

    def detach(self, netns: str) -> None:
        """A network namespace goes; the kernel door forgets it when nothing is in flight."""
        self._detached.setdefault(netns, asyncio.Event())
        self.wake()

    async def detached(self, netns: str) -> None:
        """Wait until the kernel door has detached a namespace that goes: only then may another one have its name."""
        if (detached := self._detached.get(netns)) is not None:
            await detached.wait()

    async def idle(self) -> None:
        """Wait until nothing is due or in flight (what was refused may be due again later)."""
        while tasks := [task for task in (self._task, self._reaper) if task is not None]:
            await asyncio.wait(tasks)

    async def caught_up(self) -> None:
        """Wait until what is due or in flight now was sent, whatever comes meanwhile."""
        for _ in range(2):  # the round that is under way may have taken what is due already
            if self._task is not None:
                await self._round.wait()

    async def _drain(self) -> None:
        try:
            while True:
                self._detach_namespaces()
                if not self._ledger.has_due:
                    break
                if self._reaper is not None and self._ledger.is_any_due(self._removed):
                    await asyncio.wait([self._reaper])  # a link of that name is wanted again
                self._prepare()
                applied = self.operations_applied
                await self._send(await self._take())
                self._log_refusals()
                ended, self._round = self._round, asyncio.Event()
                ended.set()
                if self.operations_applied == applied:
                    await asyncio.sleep(0)  # nothing was achieved: others have a turn, whatever comes next
        except Exception:
            log.exception("apply node=%s", self._node_name)
            self._ledger.interrupt()
            for waiter in itertools.chain(*self._waiters.values()):
                waiter.is_interrupted = True
        finally:
            self._task = None
            self._round.set()
            self._round = asyncio.Event()
            self._release_waiters()
            self._urgent.clear()

    def _release_waiters(self) -> None:
        """Nothing is sent any more: nobody waits any longer but for links whose removal is on its way."""
        for waiter in {id(one): one for row in self._waiters.values() for one in row}.values():
            if waiter.is_interrupted or waiter.remaining.isdisjoint(self._removed):
                waiter.done.set()
        left = {identity: [one for one in row if not one.done.is_set()] for identity, row in self._waiters.items()}
        self._waiters = {identity: row for identity, row in left.items() if row}

    def _prepare(self) -> None:
        try:
            self._before_send()
        except Exception:
            log.exception("apply node=%s", self._node_name)

    async def _take(self) -> list[Operation]:
        """All that is due now, computed in slices."""
        due, operations, pause = self._ledger.due, list[Operation](), Pause()
        for start in range(0, len(due), TAKEN_AT_ONCE):
            operations += self._ledger.take(due[start : start + TAKEN_AT_ONCE])
            await pause()
        return operations

    def _detach_namespaces(self) -> None:
        detached, self._detached = self._detached, {}
        for netns, is_detached in detached.items():
            try:
                self._kernel.detach(netns)
                self._notify(self._ledger.vanish(netns))
            finally:
                is_detached.set()

    async def _send(self, operations: list[Operation]) -> None:
        await self._send_slices([operation for operation in operations if not _takes_long(operation)])
        self._remove([operation for operation in operations if _takes_long(operation)])

    def _remove(self, links: list[Operation]) -> None:
        """Have links removed, of which nobody waits for the end."""
        if links:
            self._removals += links
            self._removed |= dict.fromkeys(operation.value.identity for operation in links)
            if self._reaper is None:
                self._reaper = asyncio.get_running_loop().create_task(self._reap(), name=f"reaper {self._node_name}")

    async def _reap(self) -> None:
        """Remove links until there is none: what comes meanwhile is one group."""
        try:
            while self._removals:
                removals, self._removals = self._removals, []
                report = await self._in_thread(removals)
                for operation in removals:
                    self._removed.pop(operation.value.identity, None)
                self._acknowledge(report)
                self._log_refusals()
        except Exception:
            log.exception("apply node=%s", self._node_name)
        finally:
            self._reaper = None
            self._removed.clear()
            self.wake()
            if self._task is None:  # as at the end of `_drain`, which left those who wait for links
                self._release_waiters()

    async def _in_thread(self, operations: list[Operation]) -> Report:
        try:
            report = await asyncio.to_thread(self._kernel.remove_links, operations)
        except Exception as error:  # no thread can be started, say
            log.warning("apply node=%s error=%s", self._node_name, error)
            return Report(failed=[Failure(operation, error) for operation in operations])
        answered = {id(operation) for operation in _operations(report)}
        unsaid = Retry("apply", "the kernel door said nothing of it")
        return Report(report.applied, report.failed + [Failure(o, unsaid) for o in operations if id(o) not in answered])

    async def _send_slices(self, operations: list[Operation]) -> None:
        left, pause = len(operations), Pause()
        for report in self._guarded_steps(operations) if operations else ():
            self._acknowledge(report)
            await self._lose_contents(pause)
            left -= len(report.applied) + len(report.failed)
            if left:
                await pause()
                await self._send_urgent(pause)

    async def _lose_contents(self, pause: Pause) -> None:
        """What was in tables that were deleted is gone, which is noted before anything else is sent."""
        for settled in self._ledger.lose_contents():
            self._notify(settled)
            await pause()

    async def _send_urgent(self, pause: Pause) -> None:
        """What somebody waits for goes between two slices, unless it waits for one of them."""
        if not self._urgent:
            return
        urgent, self._urgent = list(self._urgent), {}
        operations = self._ledger.take(urgent)
        self._remove([operation for operation in operations if _takes_long(operation)])
        quick = [operation for operation in operations if not _takes_long(operation)]
        for report in self._guarded_steps(quick) if quick else ():
            self._acknowledge(report)
            await self._lose_contents(pause)
            await pause()

    def _guarded_steps(self, operations: list[Operation]) -> Iterator[Report]:
        """The door's steps; a failure that is no refusal (too many open files, say) is a report of what was not carried
        out yet."""
        reported: list[Report] = []
        error: Exception = Retry("apply", "the kernel door said nothing of it")
        try:
            for report in self._kernel.steps(operations):
                reported.append(report)
                yield report
        except Exception as raised:
            log.exception("apply node=%s", self._node_name)
            error = raised
        if sum(len(report.applied) + len(report.failed) for report in reported) != len(operations):
            answered = {id(operation) for report in reported for operation in _operations(report)}
            yield Report(failed=[Failure(operation, error) for operation in operations if id(operation) not in answered])

    def _acknowledge(self, report: Report) -> None:
        self.operations_applied += len(report.applied)
        self.operations_refused += len(report.failed)
        settled = self._ledger.acknowledge(report, self._clock())
        self._notify(settled)
        self._refused += len(report.failed)
        self._refusals += report.failed[: REFUSALS_LOGGED - len(self._refusals)]
        try:
            self._sent(report)
        except Exception:
            log.exception("apply node=%s", self._node_name)

    def _log_refusals(self) -> None:
        """One line for all that was refused of one take, which may be thousands of objects."""
        if self._refused:
            reasons = "; ".join(str(failure.error) for failure in self._refusals)
            more = f"; and {self._refused - len(self._refusals)} more" if self._refused > len(self._refusals) else ""
            log.warning("apply node=%s refused=%d %s%s", self._node_name, self._refused, reasons, more)
        self._refused, self._refusals = 0, []

    def _notify(self, settled: Iterable[Identity]) -> None:
        if not self._waiters:
            return
        for identity in settled:
            for waiter in self._waiters.pop(identity, ()):
                waiter.remaining.discard(identity)
                if not waiter.remaining:
                    waiter.done.set()


def _operations(report: Report) -> Iterator[Operation]:
    yield from report.applied
    yield from (failure.operation for failure in report.failed)


class _Waiter:
    """Somebody who waits until these are settled."""

    def __init__(self, remaining: set[Identity]) -> None:
        self.remaining = remaining
        self.done = asyncio.Event()
        self.is_interrupted = False


def _takes_long(operation: Operation) -> bool:
    """Removing a link makes the kernel wait for all its readers (synchronize_net): some 20 ms."""
    return operation.new is None and isinstance(operation.old, Link) and bool(operation.old.kind) and not operation.old.netns

"""Readings of the kernel: what is known of it is corrected by what it holds, and what deviates unexpectedly is noted as a
foreign change.

Everything is read at the start, after a refusal that contradicts what is known, and every 60 seconds, or more rarely where that takes
long; tables after a foreign commit; the network of the node after link events that a notification can't describe in full; a pod's namespace
when its link loses the carrier (see `watcher`).
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec

from podplane.agent.kernel import Kernel
from podplane.agent.pause import Pause, beside
from podplane.state.ledger import SET, Ledger, Reading, set_of
from podplane.state.nft import NftValue, Set, Table, UnreadElements
from podplane.state.operations import Operation
from podplane.state.ownership import Ownership, is_foreign
from podplane.state.value import Identity, Value

log = logging.getLogger(__name__)
AUDIT_TURN_SECONDS = 0.001
"""So long what was read is compared in one turn: nobody waits for it, and a request of the API takes several turns."""
FREED_AT_ONCE = 100
LARGE = 500
"""So many values take long to read: that happens in a thread."""
START_TRIES = 5
"""At a start all is read so often until it can be said of each set what is in it."""


class Part(enum.Enum):
    """What can be read by itself: links and what rtnetlink knows, or nf_tables."""

    NETWORK, TABLES = "network", "tables"


EVERYTHING = frozenset(Part)


def part_of(identity: Identity) -> Part:
    """The part that an object is read with."""
    return Part.TABLES if str(identity[0]).startswith("nft ") else Part.NETWORK


class Auditor:
    """Reads one node's kernel; its methods run on one event loop, and one reading at a time."""

    def __init__(
        self,
        node_name: str,
        ledger: Ledger,
        kernel: Kernel,
        ownership: Ownership,
        foreign_change: Callable[[Iterable[Identity]], None],
    ) -> None:
        """`foreign_change` is told what deviates and was not known to."""
        self._node_name = node_name
        self._ledger = ledger
        self._kernel = kernel
        self._ownership = ownership
        self._foreign_change = foreign_change
        self._reading = asyncio.Lock()
        self.unread: frozenset[Identity] = frozenset()
        """The sets of which the last reading of tables can't say what is in them: they were changed all the time."""

    async def read_all(self) -> dict[Identity, Value]:
        """All that is the owner's in the node's own namespace."""
        for _ in range(START_TRIES):
            found = self._known(await asyncio.to_thread(self._kernel.read, self._ownership))
            if not self.unread:
                break
        return found

    def _known(self, found: dict[Identity, Value]) -> dict[Identity, Value]:
        """What was read, and `unread` is what could not be."""
        unread = [one for one in found.values() if isinstance(one, UnreadElements)]
        for one in unread:
            del found[one.identity]
        self.unread = frozenset((SET, one.netns, one.family, one.table, one.set) for one in unread)
        return found

    async def rebuild_outgrown(self, found: Mapping[Identity, Value]) -> None:
        """Of sets that were found before it was known what is wanted: delete tables whose sets have another shape, and know of it."""
        if outgrown := await beside(len(found), self._outgrown, found):
            if await self._exchange(outgrown, found):
                return
            everything = await self.read_all()
            left = self._without(everything, outgrown)
            for identity in everything.keys() - left.keys():
                self._ledger.observe(identity, None)

    async def _exchange(self, outgrown: Iterable[Set], found: Mapping[Identity, Value]) -> bool:
        """Make the tables of these sets anew as they are wanted, and know of it. False when the kernel does not take that at once: then
        packets would find tables that are only begun."""
        tables = {(one.family, one.table): Table(family=one.family, table=one.table) for one in outgrown}

        def inside(values: Mapping[Identity, Value]) -> dict[Identity, Value]:
            return {i: v for i, v in values.items() if isinstance(v, NftValue) and (v.family, v.table) in tables}

        wanted = inside(self._ledger.desired)
        if not await asyncio.to_thread(self._kernel.make_anew, tuple(tables.values()), tuple(wanted.values())):
            return False
        log.warning("node=%s of another version, and made anew in one transaction: %s", self._node_name, _named(outgrown))
        for identity in inside(found).keys() | wanted.keys():
            self._ledger.observe(identity, wanted.get(identity))
        return True

    async def audit(self, parts: frozenset[Part] = EVERYTHING) -> bool:
        """Read these parts and correct what is known of them; does anything deviate that was not known to?"""

        def in_scope(identity: Identity) -> bool:
            if identity[1] or identity[0] == "Sysctl" or part_of(identity) not in parts:
                return False
            return not self.unread or set_of(identity) not in self.unread

        async with self._reading:
            reading = self._ledger.begin_reading()
            try:
                found = await self._read(parts)
            except BaseException:
                self._ledger.cancel_reading(reading)
                raise
            return await self._compare(reading, found, in_scope, None if Part.TABLES in parts else "")

    async def audit_pod(self, netns: str) -> bool:
        """Read a pod's namespace and correct what is known of it; does anything deviate that was not known to?"""
        async with self._reading:
            wanted = self._ledger.desired
            found = {  # the rest is the pod's own
                identity: value
                for identity, value in self._kernel.read_namespace(netns).items()
                if identity in wanted and not is_foreign(wanted[identity], value)
            }
            reading = self._ledger.begin_reading()
            return await self._compare(reading, found, lambda identity: identity[1] == netns and identity[0] != "Sysctl", netns)

    async def _compare(
        self, reading: Reading, found: dict[Identity, Value], in_scope: Callable[[Identity], bool], netns: str | None
    ) -> bool:
        """Does anything deviate that was not known to? `found` is empty afterwards."""
        deviates, pause = False, Pause(seconds=AUDIT_TURN_SECONDS)
        for slice_ in self._ledger.end_reading(reading, found, in_scope, netns):
            self._foreign_change(slice_)
            deviates |= bool(slice_)
            await pause()
        while found:  # a hundred thousand objects take a long turn to free, too
            for _ in range(min(len(found), FREED_AT_ONCE)):
                found.popitem()
            await pause()
        return deviates

    async def _read(self, parts: frozenset[Part]) -> dict[Identity, Value]:
        if len(self._ledger.desired) >= LARGE:
            found, outgrown = await asyncio.to_thread(self._read_parts, parts)
        else:
            found, outgrown = self._read_parts(parts)
        if Part.TABLES in parts:
            found = self._known(found)
        return self._without(found, outgrown)

    def _read_parts(self, parts: frozenset[Part]) -> tuple[dict[Identity, Value], list[Set]]:
        """What is there of these parts, and the sets that have outgrown their shape; may be called in any thread."""
        tables = self._ownership.tables if Part.TABLES in parts else frozenset()
        found = self._kernel.read(msgspec.structs.replace(self._ownership, tables=tables))
        if parts != EVERYTHING:
            found = {identity: value for identity, value in found.items() if part_of(identity) in parts}
        return found, self._outgrown(found)

    def _outgrown(self, found: Mapping[Identity, Value]) -> list[Set]:
        """The sets that are wanted in another shape than they have, as of another version of this program."""
        wanted = self._ledger.desired
        sets = [one for i, value in found.items() if i[0] == "nft set" and isinstance(one := wanted.get(i, value), Set)]
        return [one for one in sets if not self._kernel.matches(one, found[one.identity])]

    def _without(self, found: dict[Identity, Value], outgrown: Iterable[Set]) -> dict[Identity, Value]:
        """Without the tables of these sets: those are made anew. The kernel can't change a set's shape, nor delete a set that
        rules look into."""
        tables = {(one.family, one.table) for one in outgrown}
        if not tables:
            return found
        log.warning(
            "audit node=%s tables are made anew because these sets changed their shape: %s", self._node_name, _named(outgrown)
        )
        done = self._kernel.apply([Operation(Table(family=family, table=table), None) for family, table in sorted(tables)])
        if done.failed:
            log.warning("audit node=%s %s", self._node_name, done.failed[0].error)
            return found
        return {i: v for i, v in found.items() if not (isinstance(v, NftValue) and (v.family, v.table) in tables)}


def _named(sets: Iterable[Set]) -> str:
    return ", ".join(f"{one.table} {one.name}" for one in sets)

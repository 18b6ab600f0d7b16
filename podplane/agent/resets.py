"""Has servers told that policies took a TCP connection back: one that only reads would wait for its client for ever.

The client's next packet is answered with a reset by the node's tables, which count it, and with nothing else to its server. When that
counter rose, the connections that are marked so are looked for, and ended at the sockets of those servers that are pods of this node. Other
servers are asked whether they stand, and what they answer is reset (`kernel.keepalives`). The kernel goes through the table of connections
for that, so it rests for many times as long as it took. While there may be such connections the counter is read once a second, whether
packets are logged or not, and at once when one of TCP was logged as denied.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from podplane.kernel.errors import Denied, KernelError, Unsupported
from podplane.kernel.netlink import DumpInterrupted
from podplane.policy.tables import FAMILY, NAME, RESET
from podplane.state.value import IPAddress

log = logging.getLogger(__name__)
REST_SECONDS, REST_SHARE = 0.2, 50
"""After one walk the next one waits so long, or so many times as long as it took, when that is longer."""
LOOK_SECONDS = 1.0
"""From one reading of the counter to the next one."""


class Ending(Protocol):
    """The part of the kernel door that this needs."""

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """How many packets each of these named counters counted."""

    def end_revoked(self, namespaces: Mapping[IPAddress, str]) -> int:
        """End TCP connections that were let pass and are no more, at the sockets of those servers that are in these namespaces."""


class Resets:
    """Those of one node; its methods run on one event loop. `namespaces`: of its pods, by their addresses; `turn`: see `judging`;
    `may_be`: may there be connections that policies took back?"""

    def __init__(
        self,
        node_name: str,
        kernel: Ending,
        namespaces: Callable[[], Mapping[IPAddress, str]],
        turn: asyncio.Lock,
        may_be: Callable[[], bool],
    ) -> None:
        self._node_name, self._kernel, self._namespaces, self._turn, self._may_be = node_name, kernel, namespaces, turn, may_be
        self._is_due = self._is_over = self._has_failed = False
        self._rests_until = self._looks_at = 0.0
        self._counted = 0
        self._task: asyncio.Task[None] | None = None

    def tcp_denied(self) -> None:
        """A packet of TCP was denied, which may be of a connection that was let pass."""
        self._looks_at = 0.0
        self.begin()

    def begin(self) -> None:
        """Read the counter, or look for such connections, if that is due and it has rested; to be called again and again. Does not wait."""
        if self._is_over or (self._task is not None and not self._task.done()) or not self._may_be():
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= (self._rests_until if self._is_due else self._looks_at):
            self._looks_at = loop.time() + LOOK_SECONDS
            self._task = loop.create_task(self._follow(), name=f"resets {self._node_name}")

    async def idle(self) -> None:
        """Wait until what was begun is done."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            if not self._is_due:
                counted = (await asyncio.to_thread(self._kernel.counts, FAMILY, NAME, (RESET,))).get(RESET, 0)
                self._is_due, self._counted = counted != self._counted, counted
            if self._is_due and clock() >= self._rests_until:
                await self._walk(clock)
                self._is_due = False
            self._has_failed = False
        except (Unsupported, Denied) as error:
            self._is_over = True
            log.warning("servers are not told of connections that policies took back node=%s: %s", self._node_name, error)
        except (KernelError, OSError, DumpInterrupted, RuntimeError) as error:  # RuntimeError: no thread can be started
            self._rests_until = max(self._rests_until, clock() + LOOK_SECONDS)
            if not self._has_failed:
                log.warning("resets node=%s error=%s", self._node_name, error)
            self._has_failed = True

    async def _walk(self, clock: Callable[[], float]) -> None:
        async with self._turn:
            began = clock()
            try:
                await asyncio.to_thread(self._kernel.end_revoked, self._namespaces())
            finally:
                ended = clock()
                self._rests_until = ended + max(REST_SECONDS, REST_SHARE * (ended - began))

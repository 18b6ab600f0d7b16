"""Has tracked connections judged again when what may pass has changed, and forgotten when a pod has gone: in a task of its own, for which
neither a change nor a pod that starts waits.

The kernel goes through the table of connections of the whole machine each time that it is asked. So what changes within some milliseconds
is asked for at once, one agent of a process asks at a time, and it rests as long as the last walk took.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from podplane.kernel.netlink import DumpInterrupted
from podplane.state.value import IPAddress

log = logging.getLogger(__name__)
BATCH_SECONDS, MAX_REST_SECONDS = 0.005, 1.0
"""Changes of so many seconds are one walk; so long at most it rests after one."""
FLIGHT_SECONDS = 0.002
"""A packet that was judged before the tables changed has left the node, and its connection is tracked, after much less than this."""


class Judging(Protocol):
    """The part of the kernel door that this needs."""

    def judge_again(self, ips: Collection[IPAddress]) -> int:
        """Have the tracked connections from and to these addresses judged again."""

    def forget_connections(self, ips: Collection[IPAddress]) -> int:
        """Delete the tracked connections from and to these addresses."""


class Judge:
    """Those of one node; its methods run on one event loop. `committed` waits until all that is planned is in the kernel; whoever holds
    `turn` may go through the machine's connections."""

    def __init__(self, node_name: str, kernel: Judging, committed: Callable[[], Awaitable[None]], turn: asyncio.Lock) -> None:
        self._node_name = node_name
        self._kernel = kernel
        self._committed = committed
        self._turn = turn
        self._planned: dict[IPAddress, bool] = {}
        """Addresses, and whether their connections are to be forgotten."""
        self._due: dict[IPAddress, bool] = {}
        self._under_way: dict[IPAddress, bool] = {}
        self._task: asyncio.Task[None] | None = None
        self._round = asyncio.Event()
        """Set at the end of the walk that is under way, or comes next."""
        self.has_judged = False
        """Was any connection marked to be judged again?"""

    def add(self, ips: Collection[IPAddress]) -> None:
        """What these may send and be sent is planned otherwise."""
        self._planned = dict.fromkeys(ips, False) | self._planned

    def forget(self, ips: Collection[IPAddress]) -> None:
        """Who had these is gone, or will be when what is planned is in the kernel."""
        self._planned |= dict.fromkeys(ips, True)

    @property
    def has_due(self) -> bool:
        """Does anything wait to be begun, or to be tried again?"""
        return bool(self._planned or self._due) and not self._is_busy

    @property
    def _is_busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self) -> None:
        """What was planned was sent: have connections judged soon. Returns at once."""
        self._due |= {ip: is_gone or self._due.get(ip, False) for ip, is_gone in self._planned.items()}
        self._planned.clear()
        if self._due and not self._is_busy:
            self._task = asyncio.get_running_loop().create_task(self._walk(), name=f"conntrack {self._node_name}")

    async def forgotten(self, ips: Collection[IPAddress]) -> None:
        """Wait until connections of these are forgotten; what fails is tried again later, for which nobody waits."""
        self.begin()
        while self._task is not None and any(ip in one for ip in ips for one in (self._due, self._under_way)):
            await asyncio.wait([self._task], timeout=BATCH_SECONDS)
            if self._task.done():
                break

    async def idle(self) -> None:
        """Wait until all that was begun by now is done, or has failed, in which case the next `begin` tries it again."""
        for _ in range(2):  # the walk that is under way may have begun before the last of it came
            if self._is_busy:
                await self._round.wait()

    async def _walk(self) -> None:
        rest: float | None = BATCH_SECONDS
        while self._due and rest is not None:
            await asyncio.sleep(rest)
            self._under_way, self._due = self._due, {}
            try:
                rest = await self._judged(self._under_way)
            finally:
                self._under_way = {}
                ended, self._round = self._round, asyncio.Event()
                ended.set()

    async def _judged(self, ips: dict[IPAddress, bool]) -> float | None:
        """How long to rest after it; None when it failed: they are due again."""
        rest, clock = None, asyncio.get_running_loop().time
        try:
            await self._committed()
            await asyncio.sleep(FLIGHT_SECONDS)
            async with self._turn:
                began = clock()
                await asyncio.to_thread(self._change, ips)
                rest = min(max(clock() - began, BATCH_SECONDS), MAX_REST_SECONDS)
        except (OSError, DumpInterrupted, RuntimeError) as error:  # RuntimeError: no thread can be started
            log.warning("conntrack node=%s error=%s", self._node_name, error)
        finally:
            if rest is None:
                self._due = ips | {ip: is_gone or ips.get(ip, False) for ip, is_gone in self._due.items()}
        return rest

    def _change(self, ips: dict[IPAddress, bool]) -> None:
        """Called in a thread."""
        if gone := {ip for ip, is_gone in ips.items() if is_gone}:
            self._kernel.forget_connections(gone)
        if others := ips.keys() - gone:
            self.has_judged |= self._kernel.judge_again(others) > 0

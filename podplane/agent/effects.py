"""Carries out the effects that plans return, once their objects are in the kernel: connection tracking is flushed, connections are judged
again, addresses are announced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

from podplane.agent.judging import Judge, Judging
from podplane.kernel.netlink import DumpInterrupted
from podplane.state.conntrack import Allowed, Frontend, Target
from podplane.state.effects import Announce, Effect, FlushConntrack, Forget, JudgeAgain
from podplane.state.value import IPAddress

log = logging.getLogger(__name__)


class Actor(Judging, Protocol):
    """The part of the kernel door that effects need."""

    def announce(self, link: str, ips: Iterable[IPAddress]) -> None:
        """Tell the neighbours on a link that these addresses are here. OSError when that can't be."""

    def flush_conntrack(self, allowed: Allowed) -> int:
        """Delete the tracked connections to these frontends that go elsewhere than allowed."""


class Effects:
    """What waits to be carried out on one node; see `judging` for `committed` and `turn`."""

    def __init__(self, node_name: str, kernel: Actor, committed: Callable[[], Awaitable[None]], turn: asyncio.Lock) -> None:
        self._node_name = node_name
        self._kernel = kernel
        self._committed = committed
        self._stale: dict[Frontend, Collection[Target]] = {}
        self.judge = Judge(node_name, kernel, committed, turn)
        self._announcements: list[Announce] = []
        self._turn = turn
        self._flush: asyncio.Task[None] | None = None

    def add(self, effects: Iterable[Effect]) -> None:
        """Carry these out at the next `announce` or `begin`."""
        for effect in effects:
            match effect:
                case FlushConntrack(allowed=allowed):
                    for frontend, targets in allowed.items():
                        if targets or frontend not in self._stale:  # one Service may have lost what another one has now
                            self._stale[frontend] = targets
                case JudgeAgain(ips=ips):
                    self.judge.add(ips)
                case Forget(ips=ips):
                    self.judge.forget(ips)
                case Announce():
                    self._announcements.append(effect)

    @property
    def has_due(self) -> bool:
        """Does anything wait to be begun, or to be tried again?"""
        return bool(self._announcements or (self._stale and not self._is_flushing)) or self.judge.has_due

    @property
    def _is_flushing(self) -> bool:
        return self._flush is not None and not self._flush.done()

    async def announce(self) -> None:
        """Tell the neighbours what waits to be told, once what was planned with it is in the kernel."""
        announcements, self._announcements = self._announcements, []
        if announcements:
            await self._committed()
        for announcement in announcements:
            try:
                self._kernel.announce(announcement.link, announcement.ips)
            except OSError as error:
                log.warning("announce node=%s link=%s error=%s", self._node_name, announcement.link, error)

    def begin(self) -> None:
        """What was planned was sent: have connections flushed and judged, soon. Returns at once: the kernel may have a long list of
        connections to go through."""
        self.judge.begin()
        if self._stale and not self._is_flushing:
            self._flush = asyncio.get_running_loop().create_task(self._flush_all(), name=f"conntrack flush {self._node_name}")

    async def idle(self) -> None:
        """Wait until all that was begun is done, or has failed, in which case the next `begin` tries it again."""
        while self._flush is not None and not self._flush.done():
            await asyncio.wait([self._flush])
        await self.judge.idle()

    async def _flush_all(self) -> None:
        while self._stale:
            async with self._turn:
                stale, self._stale = self._stale, {}
                if not await self._flushed(stale):
                    self._stale = stale | self._stale  # what was added meanwhile is newer
                    return

    async def _flushed(self, allowed: Allowed) -> bool:
        """Was that done? What came meanwhile may have been planned and not sent: that is awaited first."""
        try:
            await self._committed()
            await asyncio.to_thread(self._kernel.flush_conntrack, allowed)
        except (OSError, DumpInterrupted, RuntimeError) as error:  # RuntimeError: no thread can be started
            log.warning("conntrack node=%s error=%s", self._node_name, error)
            return False
        return True

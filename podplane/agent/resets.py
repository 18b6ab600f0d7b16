"""Has servers told that policies took a TCP connection back: one that only reads would wait for its client for ever.

The client's next packet is answered with a reset by the node's tables, and with nothing else to its server. When that packet was logged as
denied, the connections that are marked so are looked for, and ended at the sockets of those servers that are pods of this node. The kernel
goes through the table of connections for that, so it rests for many times as long as it took.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from podplane.kernel.errors import Denied, KernelError, Unsupported
from podplane.kernel.netlink import DumpInterrupted
from podplane.state.value import IPAddress

log = logging.getLogger(__name__)
REST_SECONDS, REST_SHARE = 0.2, 50
"""After one walk the next one waits so long, or so many times as long as it took, when that is longer."""


class Ending(Protocol):
    """The part of the kernel door that this needs."""

    def end_revoked(self, namespaces: Mapping[IPAddress, str]) -> int:
        """End TCP connections that were let pass and are no more, at the sockets of those servers that are in these namespaces."""


class Resets:
    """Those of one node; its methods run on one event loop. `namespaces`: of its pods, by their addresses; `turn`: see `judging`."""

    def __init__(
        self, node_name: str, kernel: Ending, namespaces: Callable[[], Mapping[IPAddress, str]], turn: asyncio.Lock
    ) -> None:
        self._node_name, self._kernel, self._namespaces, self._turn = node_name, kernel, namespaces, turn
        self._is_due = self._is_over = False
        self._rests_until = 0.0
        self._task: asyncio.Task[None] | None = None

    def tcp_denied(self) -> None:
        """A packet of TCP was denied, which may be of a connection that was let pass."""
        self._is_due = not self._is_over
        self.begin()

    def begin(self) -> None:
        """Look for such connections if that is due and it has rested; to be called again and again. Returns at once."""
        if not self._is_due or (self._task is not None and not self._task.done()):
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._rests_until:
            self._is_due = False
            self._task = loop.create_task(self._walk(), name=f"resets {self._node_name}")

    async def idle(self) -> None:
        """Wait until what was begun is done."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _walk(self) -> None:
        clock = asyncio.get_running_loop().time
        async with self._turn:
            began = clock()
            await self._end()
            ended = clock()
        self._rests_until = ended + max(REST_SECONDS, REST_SHARE * (ended - began))

    async def _end(self) -> None:
        try:
            await asyncio.to_thread(self._kernel.end_revoked, self._namespaces())
        except (Unsupported, Denied) as error:
            self._is_over = True
            log.warning("servers are not told of connections that policies took back node=%s: %s", self._node_name, error)
        except (KernelError, OSError, DumpInterrupted, RuntimeError) as error:  # RuntimeError: no thread can be started
            log.warning("resets node=%s error=%s", self._node_name, error)

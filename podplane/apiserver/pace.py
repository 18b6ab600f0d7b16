"""What many streams send at once is spread over turns of the event loop: a thousand watches that one write concerns hold up nobody else.

A stream asks before it hands on a part. So many bytes go in one turn, where each part counts a little more than it has, because a task runs
for it, too; streams that come too late wait, in their order, and what else the loop has to do is done between two turns.
"""

from __future__ import annotations

import asyncio
from collections import deque

TURN_BYTES = 512 * 1024
"""In a turn of the loop: some 3 ms, with encryption and the copy that the kernel makes."""
PART_BYTES = 12 * 1024
"""What a part takes beside its bytes, as bytes that take as long."""


class Pace:
    """Turns of all streams of one event loop, on which everything here is called."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._left = TURN_BYTES
        self._is_turning = False

    def take(self, size: int) -> bool:
        """May so many bytes go now? Then they count."""
        if self._waiting or self._left <= 0:
            return False
        self._left -= size + PART_BYTES
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        return True

    def call(self, waiter: asyncio.Future[None], size: int = 0) -> None:
        """Set the result of this future when so many bytes may go, which may be now; nothing happens if it is done by then."""
        if not self.take(size):
            self._waiting.append((waiter, size))
        elif not waiter.done():
            waiter.set_result(None)

    async def turn(self, size: int) -> None:
        """Return when so many bytes may go."""
        if not self.take(size):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((waiter, size))
            await waiter

    def _turn(self) -> None:
        """The loop has begun a new turn: those who wait are called, until its bytes are spoken for."""
        self._left = TURN_BYTES
        while self._waiting and self._left > 0:
            waiter, size = self._waiting.popleft()
            if not waiter.done():
                self._left -= size + PART_BYTES
                waiter.set_result(None)
        self._is_turning = self._left < TURN_BYTES
        if self._is_turning:
            asyncio.get_running_loop().call_soon(self._turn)

"""One timer for the looks of all agents of a process at what the kernel does not notify.

A timer and a task for each agent would cost more than the look itself. On a loop that is behind (a lab that starts, say), looks give way to
what is behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)
Look = Callable[[], None]
POLL_SECONDS = 0.08
"""Between two looks of an agent."""
LATE_SECONDS = POLL_SECONDS / 8
GIVE_WAY, MAX_GIVE_WAY_SECONDS = 10, 1.0
"""Looks that the loop begins later than LATE_SECONDS wait so many times as long as it is late, and so long at most."""
IN_ONE_TURN = 20
"""So many agents look in one turn of the loop: some 2 ms."""


class Poller:
    """Calls each look every `seconds`, which may be changed; its methods run on one event loop."""

    def __init__(self, seconds: float = POLL_SECONDS) -> None:
        self._seconds = seconds
        self._is_waiting = False
        self._looks: list[Look] = []
        self._timer: asyncio.Handle | None = None
        self._due_at = 0.0
        self.turn = asyncio.Lock()
        """For those of the agents that go through something that the whole machine has: one at a time."""

    @property
    def seconds(self) -> float:
        """From the end of a round of looks to the next one."""
        return self._seconds

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        """So long from now on, at once."""
        self._seconds = seconds
        if self._is_waiting and self._timer is not None:
            self._timer.cancel()
            self._wait()

    def add(self, look: Look) -> None:
        """Call this one from now on."""
        self._looks.append(look)
        if self._timer is None:
            self._wait()

    def remove(self, look: Look) -> None:
        """Do not call this one any more; nothing happens when it is not called."""
        if look in self._looks:
            self._looks.remove(look)
        if not self._looks and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._due_at, self._is_waiting = loop.time() + self._seconds, True
        self._timer = loop.call_at(self._due_at, self._begin)

    def _begin(self) -> None:
        loop, self._is_waiting = asyncio.get_running_loop(), False
        late = loop.time() - self._due_at
        if late > LATE_SECONDS:
            self._timer = loop.call_later(min(late * GIVE_WAY, MAX_GIVE_WAY_SECONDS), self._go_on, tuple(self._looks))
        else:
            self._go_on(tuple(self._looks))

    def _go_on(self, looks: Sequence[Look]) -> None:
        """Some of these, and the others in the next turns."""
        for look in looks[:IN_ONE_TURN]:
            if look in self._looks:
                try:
                    look()
                except Exception:
                    log.exception("look")
        if not self._looks:
            return
        if len(looks) > IN_ONE_TURN:
            self._timer = asyncio.get_running_loop().call_soon(self._go_on, looks[IN_ONE_TURN:])
        else:
            self._wait()

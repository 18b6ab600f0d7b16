"""How long the turns of an event loop take: an asyncio loop that measures each turn and knows which callback made it long.

A turn is what the loop does between two calls of select(): it runs every callback that is ready. While a turn lasts, nobody else is
served. The selector sees both ends of a turn, so a turn costs two readings of the clock, and a callback two more. Callbacks are timed by
overriding `call_soon`, `call_soon_threadsafe` and `call_at`. Callbacks of sockets do not pass there: asyncio adds them to the turn
itself. So where no timed callback explains a turn's length, the sockets that select() reported are named.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import partial
from typing import Any, TypeVarTuple

import msgspec

from podplane.event_loop import EventLoop

log = logging.getLogger(__name__)

VARIABLE = "PODPLANE_DEBUG_TURNS"
"""The environment variable that switches the measuring on in a lab, when it is 1."""
LIMIT_SECONDS = 0.02
"""A longer turn is counted and logged."""
Events = list[tuple[selectors.SelectorKey, int]]
Clock = Callable[[], float]
Arguments = TypeVarTuple("Arguments")


class Turn(msgspec.Struct, frozen=True):
    """One turn: its length in seconds, and the callback that took most of it, with the callback's own seconds (0 when unknown)."""

    seconds: float = 0.0
    callback: str = ""
    callback_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.1f} ms, of which {self.callback_seconds * 1000:.1f} ms in {self.callback}"


class Turns:
    """Counts turns, those over `limit` seconds, and keeps the longest; `on_long` is called with each one over the limit."""

    def __init__(
        self, limit: float = LIMIT_SECONDS, on_long: Callable[[Turn], None] | None = None, clock: Clock = time.perf_counter
    ) -> None:
        self.limit = limit
        self.count = self.long = 0
        self.longest = Turn()
        self._on_long = on_long
        self._clock = clock
        self._began: float | None = None
        self._events: Events = []
        self._slowest: tuple[Callable[..., object], tuple[Any, ...]] | None = None
        self._slowest_seconds = 0.0

    def reset(self) -> None:
        """Forget what was counted; a turn that is under way is not counted either."""
        self.count = self.long = 0
        self.longest = Turn()
        self._began = None

    def begin(self, events: Events) -> None:
        """select() has returned `events`: a turn begins."""
        self._events = events
        self._slowest, self._slowest_seconds = None, 0.0
        self._began = self._clock()

    def end(self) -> None:
        """select() is called: the turn is over, if one had begun."""
        if self._began is None:
            return
        seconds = self._clock() - self._began
        self._began = None
        self.count += 1
        if seconds <= self.limit and seconds <= self.longest.seconds:
            return
        turn = Turn(seconds, *self._explain(seconds))
        if seconds > self.longest.seconds:
            self.longest = turn
        if seconds > self.limit:
            self.long += 1
            if self._on_long is not None:
                self._on_long(turn)

    def timed(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Run a callback of the loop and note how long it took."""
        began = self._clock()
        try:
            callback(*arguments)
        finally:
            seconds = self._clock() - began
            if seconds > self._slowest_seconds:
                self._slowest, self._slowest_seconds = (callback, arguments), seconds

    def _explain(self, seconds: float) -> tuple[str, float]:
        """(name, seconds) of what took most of a turn."""
        if self._slowest is not None and self._slowest_seconds >= seconds / 2:
            return name_of(self._slowest[0]), self._slowest_seconds
        sockets = ", ".join(f"fd {key.fd}: {key.data}" for key, _ in self._events)
        if sockets:
            return f"a callback of a socket ({sockets})", 0.0
        return (
            f"many callbacks, the slowest {name_of(self._slowest[0])}" if self._slowest else "no callback",
            self._slowest_seconds,
        )


def name_of(callback: Callable[..., object]) -> str:
    """What a reader of a log knows a callback by: of a task's step, the coroutine that the task runs."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coroutine = owner.get_coro()
        return f"task {getattr(coroutine, '__qualname__', coroutine)}"
    return str(getattr(callback, "__qualname__", callback))


class _Selector(selectors.EpollSelector):
    """Tells where turns begin and end."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    def select(self, timeout: float | None = None) -> Events:
        self._turns.end()
        events = super().select(timeout)
        self._turns.begin(events)
        return events


class TurnLoop(EventLoop):
    """The event loop; `turns` says how long its turns are."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        super().__init__(_Selector(turns))

    def call_soon(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As its base, timed."""
        return super().call_soon(partial(self.turns.timed, callback, *args), context=context)

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As its base, timed."""
        return super().call_soon_threadsafe(partial(self.turns.timed, callback, *args), context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As its base, timed; `call_later` comes here too."""
        return super().call_at(when, partial(self.turns.timed, callback, *args), context=context)


def log_turn(turn: Turn) -> None:
    """Log a long turn as a warning."""
    log.warning("long turn of the event loop: %s", turn)


def loop_factory(environment: Mapping[str, str]) -> Callable[[], asyncio.AbstractEventLoop]:
    """For `asyncio.Runner`: a loop, that logs its long turns when the environment asks for it."""
    if environment.get(VARIABLE) != "1":
        return EventLoop
    return lambda: TurnLoop(Turns(on_long=log_turn))

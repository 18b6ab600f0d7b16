"""Connections of clients that have not asked anything yet: who they are is not known, so they get little time and little room.

A connection waits from when it is taken until the head of a request is there (handshake of TLS included), and again while the body of one
comes. It is closed when that takes too long. There is room for so many that wait, in all and of each source; a newer one takes the place of
the oldest of the source that has most: whoever opens connections without end closes their own.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable

HEAD_SECONDS, BODY_SECONDS = 10.0, 60.0
"""For the handshake and the head of a request; for its body, of 3 MB at most."""
WAITING, WAITING_OF_SOURCE = 2048, 1024
SWEEP_SECONDS = 1.0

Close = Callable[[], object]


class Waiting:
    """Connections that wait, by source, the oldest first. To be used on an event loop; `clock` is its time."""

    def __init__(self, clock: Callable[[], float], most: int = WAITING, most_of_source: int = WAITING_OF_SOURCE) -> None:
        self._clock, self._most, self._most_of_source = clock, most, most_of_source
        self._sources: dict[str, OrderedDict[object, tuple[float, Close]]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    def begin(self, connection: object, source: str, seconds: float, close: Close) -> None:
        """It waits from now on, so long at most; then, or when its place is taken, `close` is called."""
        self.end(connection, source)
        self._sources.setdefault(source, OrderedDict())[connection] = (self._clock() + seconds, close)
        self._count += 1
        if len(self._sources[source]) > self._most_of_source:
            self._close_oldest(source)
        elif self._count > self._most:
            self._close_oldest(max(self._sources, key=lambda one: len(self._sources[one])))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def end(self, connection: object, source: str) -> None:
        """It waits no longer; nothing happens when it does not."""
        own = self._sources.get(source)
        if own is not None and own.pop(connection, None) is not None:
            self._count -= 1
            if not own:
                del self._sources[source]

    def _close_oldest(self, source: str) -> None:
        connection, (_, close) = next(iter(self._sources[source].items()))
        self.end(connection, source)
        close()

    def _sweep(self) -> None:
        """Close those whose time is over."""
        now, self._timer = self._clock(), None
        late = [
            (connection, source, close)
            for source, own in self._sources.items()
            for connection, (until, close) in own.items()
            if until <= now
        ]
        for connection, source, close in late:
            self.end(connection, source)
            close()
        if self._count:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)


async def readable(connection: socket.socket) -> None:
    """Wait until there is something to read, or its end."""
    loop = asyncio.get_running_loop()
    there = loop.create_future()
    loop.add_reader(connection, _set, there)
    try:
        await there
    finally:
        loop.remove_reader(connection)


def _set(there: asyncio.Future[None]) -> None:
    if not there.done():
        there.set_result(None)

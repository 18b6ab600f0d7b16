"""Connections of clients that have not asked anything yet: who they are is not known, so they get little time and little room.

A connection waits from when it is taken until the head of a request is there (handshake of TLS included), and again while the body of one
comes. It is closed when that takes too long. There is room for so many that wait, in all and of each source; a newer one takes the place of
the oldest of the source that has most: whoever opens connections without end closes their own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable

log = logging.getLogger(__name__)
HEAD_SECONDS, BODY_SECONDS = 10.0, 60.0
"""For the handshake and the head of a request; for its body, of 3 MB at most."""
WAITING, WAITING_OF_SOURCE = 2048, 1024
SWEEP_SECONDS = 1.0
TAKEN_AT_ONCE = 64
"""In a turn of the event loop."""
PAUSE_SECONDS = 0.5
"""When the process can have no more descriptors."""

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


class Acceptor:
    """Takes connections of a listening socket and hands each, with its source, to `begin`. To be made and used on an event loop."""

    def __init__(self, listener: socket.socket, begin: Callable[[socket.socket, str], object]) -> None:
        self._listener, self._begin = listener, begin
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Take none any more; idempotent."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """It is closed at once."""

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(TAKEN_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("no connections are taken for %g s: %s", PAUSE_SECONDS, error)
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            connection.setblocking(False)
            self._begin(connection, address[0])


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

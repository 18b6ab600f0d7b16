"""Connections of a listening socket are taken as fast as they come; or begun of each client one in turn, too.

A connection that begins may cost much more than one that is taken and closed: then a client that connects without end finds its own closed,
and the queue of the socket has room for those of others.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable

from podplane.servers.turns import Turns

log = logging.getLogger(__name__)
QUEUE = 1024
"""Connections that wait in the socket; the kernel may make less of it (net.core.somaxconn)."""
WAITING, WAITING_OF_CLIENT = 256, 64
"""Connections that were taken, and wait for their turn."""
TAKEN_AT_ONCE, BEGUN_AT_ONCE = 64, 4
"""In a turn of the event loop, so that others have one."""
SHORT_OF = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""This machine, of what a connection needs."""
PAUSE_SECONDS = 1.0
RESET = struct.pack("ii", 1, 0)
"""struct linger: a reset in place of an end, which leaves nothing behind."""

Begin = Callable[[socket.socket, str], object]
"""Takes over a connection, which does not block, from this address."""


class Acceptor:
    """Takes connections of a listening socket, which is closed with it. To be made and used on an event loop."""

    def __init__(self, listener: socket.socket, begin: Begin) -> None:
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
                accepted, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in SHORT_OF:
                    continue  # what befell that connection, accept(2)
                log.warning("no connections are taken for %g s: %s", PAUSE_SECONDS, error)
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            accepted.setblocking(False)
            self._begin(accepted, address[0])


class TakingTurns:
    """An acceptor that begins the connections of clients in turn. To be made and used on an event loop."""

    def __init__(self, listener: socket.socket, begin: Begin) -> None:
        self._next = begin
        self._loop = asyncio.get_running_loop()
        self._turns: Turns[tuple[socket.socket, str]] = Turns(WAITING, WAITING_OF_CLIENT)
        self._is_working = False
        listener.listen(QUEUE)
        self._acceptor = Acceptor(listener, self._put)

    def close(self) -> None:
        """Take none any more; idempotent."""
        self._acceptor.close()
        while self._turns:
            _reset(self._turns.take()[0])

    def _put(self, accepted: socket.socket, client: str) -> None:
        lost = self._turns.put(client, (accepted, client))
        if lost is not None:
            _reset(lost[0])
        if not self._is_working:
            self._is_working = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        for _ in range(min(BEGUN_AT_ONCE, len(self._turns))):
            self._next(*self._turns.take())
        self._is_working = bool(self._turns)
        if self._is_working:
            self._loop.call_soon(self._work)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()

"""Connections that questions for names come by: a length before each message (RFC 1035, 4.2.2; RFC 7766).

Questions may follow one another without waiting, and are answered as soon as their answers are there, in whatever order. What a client
can hold is bounded: its connections, all connections, the questions that it waits for, and the bytes that are kept for it. Where a limit is
reached the connection that has been idle longest is closed; one client reaches a limit of its own first. Clients with questions are
answered one question each in turn, for a moment in a turn of the event loop, whatever they sent at once.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import cast

from podplane.servers.accepting import TakingTurns
from podplane.servers.dns import Respond
from podplane.servers.dns_counts import Counts, Lane

IDLE_SECONDS = 10.0
"""Without a whole question, or a client that takes its answers (RFC 7766, 6.2.3)."""
SWEEP_SECONDS = 1.0
CONNECTIONS, CONNECTIONS_OF_CLIENT = 2048, 256
WAITING = 64
"""Questions of one connection that others are being asked about; the next are read when one of them is answered."""
HELD_BYTES = 16 * 1024 * 1024
"""Of all connections: questions that are not there as a whole, and answers that their clients do not take."""
CHUNK_BYTES = 4096
"""Read at one go, so that others of the process have a turn."""
UNSENT_BYTES = 16 * 1024
"""Answers that a client has not taken, before no more of its questions are read."""
WORK_SECONDS = 0.002
"""For so long questions are answered in a turn of the event loop."""


OUTSIDERS = "outsiders"


class Connections:
    """All connections of a process, in the order of when they were last of use. Clients that are not inside count as one client."""

    def __init__(
        self,
        total: int = CONNECTIONS,
        of_client: int = CONNECTIONS_OF_CLIENT,
        held_bytes: int = HELD_BYTES,
        is_inside: Callable[[str], bool] = lambda ip: True,
    ) -> None:
        self._is_inside = is_inside
        self._total, self._of_client, self._limit = total, of_client, held_bytes
        self._all: OrderedDict[Connection, float] = OrderedDict()
        self._by_client: dict[str, OrderedDict[Connection, None]] = {}
        self._held: dict[Connection, int] = {}
        self._held_bytes = 0
        self._due: OrderedDict[str, OrderedDict[Connection, None]] = OrderedDict()
        """Those with questions, by client, in the order in which they have their turns."""
        self._is_working = False
        self._sweep: asyncio.TimerHandle | None = None
        self.chunk = memoryview(bytearray(CHUNK_BYTES))

    def __len__(self) -> int:
        return len(self._all)

    @property
    def held_bytes(self) -> int:
        """What is kept for clients, in bytes."""
        return self._held_bytes

    def enter(self, connection: Connection) -> None:
        """Take one more; another one goes when there are too many."""
        connection.owner = connection.client if self._is_inside(connection.client) else OUTSIDERS
        own = self._by_client.setdefault(connection.owner, OrderedDict())
        if len(own) >= self._of_client:
            next(iter(own)).end()
        elif len(self._all) >= self._total:
            next(iter(self._all)).end()
        self._by_client.setdefault(connection.owner, own)[connection] = None
        self._all[connection] = time.monotonic()
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._end_idle)

    def used(self, connection: Connection) -> None:
        """It was of use."""
        if connection in self._all:
            self._all[connection] = time.monotonic()
            self._all.move_to_end(connection)
            self._by_client[connection.owner].move_to_end(connection)

    def holds(self, connection: Connection, size: int) -> None:
        """So many bytes are kept for it now."""
        if connection not in self._all:
            return
        self._held_bytes += size - self._held.get(connection, 0)
        if size:
            self._held[connection] = size
        else:
            self._held.pop(connection, None)
        while self._held_bytes > self._limit:
            next(iter(self._held)).end()

    def leave(self, connection: Connection) -> None:
        """It is closed; idempotent."""
        if self._all.pop(connection, None) is None:
            return
        self._held_bytes -= self._held.pop(connection, 0)
        if self.is_due(connection):
            self._not_due(connection)
        own = self._by_client[connection.owner]
        del own[connection]
        if not own:
            del self._by_client[connection.owner]

    def is_due(self, connection: Connection) -> bool:
        """Does it wait for its turn?"""
        return connection in self._due.get(connection.owner, ())

    def due(self, connection: Connection) -> None:
        """It has a question, which is answered when its turn comes: later, at any rate. Idempotent."""
        if connection in self._all:
            self._due.setdefault(connection.owner, OrderedDict())[connection] = None
        if self._due and not self._is_working:
            self._is_working = True
            asyncio.get_running_loop().call_soon(self._work)

    def _not_due(self, connection: Connection) -> None:
        own = self._due[connection.owner]
        del own[connection]
        if not own:
            del self._due[connection.owner]

    def _work(self) -> None:
        """Answer questions, of each client one in turn, for a moment."""
        end = time.perf_counter() + WORK_SECONDS
        answered: dict[Connection, None] = {}
        try:
            while self._due:
                client, own = next(iter(self._due.items()))
                self._due.move_to_end(client)
                connection = next(iter(own))
                self._not_due(connection)
                answered[connection] = None
                connection.answer_next()
                if connection.has_question:
                    self.due(connection)
                if time.perf_counter() >= end:
                    break
        finally:  # whatever becomes of one question, the others are answered
            for connection in answered:
                connection.go_on()
            self._is_working = bool(self._due)
            if self._is_working:
                asyncio.get_running_loop().call_soon(self._work)

    def _end_idle(self) -> None:
        """Close what was of no use for long: those at the beginning."""
        oldest = time.monotonic() - IDLE_SECONDS
        while self._all:
            connection, since = next(iter(self._all.items()))
            if since > oldest:
                break
            if connection.is_waiting:
                self.used(connection)
            else:
                connection.end()
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(SWEEP_SECONDS, self._end_idle) if self._all else None


class Connection(asyncio.BufferedProtocol):
    """One client's connection."""

    def __init__(self, client: str, respond: Respond, counts: Counts, lane: Lane, connections: Connections) -> None:
        self._respond, self._counts, self._lane, self._connections = respond, counts, lane, connections
        self.client, self.owner = client, ""
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._unsent = bytearray()
        """Answers that are sent together, when no more questions are there."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_full = False  # its client does not take its answers
        self._is_ending = False  # its client asks no more

    @property
    def is_waiting(self) -> bool:
        """Does its client wait for what others are being asked, or for its turn?"""
        return bool(self._tasks) or self.has_question

    @property
    def has_question(self) -> bool:
        """Is a whole question there, and may its client have more answers?"""
        transport, data = self._transport, self._data
        if transport is None or transport.is_closing() or self._is_full or len(self._tasks) >= WAITING:
            return False
        return len(data) >= 2 and len(data) >= 2 + int.from_bytes(data[:2], "big")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._connections.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._connections.leave(self)
        self._transport = None
        for task in self._tasks:
            task.cancel()

    def end(self) -> None:
        """Close it now; idempotent."""
        self._connections.leave(self)
        if self._transport is not None:
            # What a client does not take would keep a connection that is only closed.
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()
            self._data.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to: the same memory for all, because it is emptied at once."""
        return self._connections.chunk

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        self._data += self._connections.chunk[:nbytes]
        if self._transport is not None and self._connections.is_due(self):
            self._transport.pause_reading()  # what it has already is answered first
        else:
            self.go_on()

    def eof_received(self) -> bool:
        """The client asks no more. It gets what it waits for."""
        self._is_ending = True
        return self.is_waiting or self._is_full

    def pause_writing(self) -> None:
        """The client does not take its answers."""
        self._is_full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._is_full = False
        self._connections.used(self)
        self.go_on()

    def answer_next(self) -> None:
        """Answer the next question; there must be one (`has_question`)."""
        end = 2 + int.from_bytes(self._data[:2], "big")
        data = bytes(self._data[2:end])
        del self._data[:end]
        self._connections.used(self)
        if not self._answer(data):
            self._flush()
            self.end()

    def go_on(self) -> None:
        """Send what was answered; have the next question answered, or read more."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._flush()
        self._connections.holds(self, len(self._data) + transport.get_write_buffer_size())
        if self.has_question:
            self._connections.due(self)
        elif self._is_full or len(self._tasks) >= WAITING:
            transport.pause_reading()
        elif self._is_ending and not self._tasks:
            transport.close()
        else:
            transport.resume_reading()

    def _answer(self, data: bytes) -> bool:
        """Answer one; False when it is none that gets an answer, so that its sender speaks something else."""
        started = time.perf_counter()
        self._lane.request_bytes += len(data)
        response = self._respond(data, self.client)
        if response is None:
            self._lane.silent += 1
            return False
        if isinstance(response, bytes):
            self._send(data, response, started)
        else:
            task = asyncio.get_running_loop().create_task(self._later(data, response, started))
            self._tasks.add(task)
            task.add_done_callback(self._answered)
        return True

    async def _later(self, data: bytes, response: Awaitable[bytes | None], started: float) -> None:
        found = await response
        if found is None:
            self._lane.silent += 1
        else:
            self._send(data, found, started)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.go_on()

    def _send(self, data: bytes, response: bytes, started: float) -> None:
        if self._transport is None:
            return
        self._unsent += len(response).to_bytes(2, "big") + response
        if len(self._unsent) >= UNSENT_BYTES:
            self._flush()
        lane = self._lane
        lane.response_bytes += len(response)
        lane.by_kind[self._counts.kind(len(data), response)] += 1
        lane.durations.add(time.perf_counter() - started)

    def _flush(self) -> None:
        if self._unsent and self._transport is not None:
            self._transport.write(bytes(self._unsent))
            self._unsent.clear()


class TcpServer:
    """Answers connections to a listening socket, which is closed with it. To be made and used on an event loop."""

    def __init__(self, listener: socket.socket, respond: Respond, counts: Counts, lane: Lane, connections: Connections) -> None:
        self._made = (respond, counts, lane, connections)
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[object]] = set()
        self._acceptor = TakingTurns(listener, self._begin)

    def close(self) -> None:
        """Take none any more; idempotent. Connections that are there go on until they are idle."""
        self._acceptor.close()

    def _begin(self, accepted: socket.socket, client: str) -> None:
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: Connection(client, *self._made), accepted)
        )
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

"""Questions to one server over a TCP or TLS connection, which is kept for those that follow (RFC 7766, RFC 7858).

Many questions are on their way by one connection at a time, and answers come in any order. A server may close a connection whenever it has
no question of ours, and we see that too late: what was asked by one that had been idle is asked once more by a new one.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from socket import socket

from podplane.dns import config, responses
from podplane.dns.message import HEADER
from podplane.nameserver import failures
from podplane.nameserver.randomness import Randomness

CONNECT_SECONDS = 3.0
SILENT_SECONDS = 3.0
IDLE_SECONDS = 10.0
MAX_PENDING = 512
Heard = Callable[[bytes | str, float], None]


@dataclass(slots=True)
class _Question:
    """A question without an answer."""

    message: bytes
    asked: bytes
    heard: Heard
    sent: float
    timer: asyncio.TimerHandle
    tries: int = 1


class _Connection(asyncio.Protocol):
    """The bytes of one connection: messages with their length before them."""

    def __init__(self, heard: Callable[[bytes], None], lost: Callable[[_Connection, str], None]) -> None:
        self._heard, self._lost = heard, lost
        self._buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes of messages."""
        self._buffer += data
        while len(self._buffer) >= 2 and len(self._buffer) >= (end := 2 + int.from_bytes(self._buffer[:2], "big")):
            message = bytes(self._buffer[2:end])
            del self._buffer[:end]
            if len(message) < HEADER.size:  # no DNS; a megabyte of lengths of 0 would be half a million messages
                self._buffer.clear()
                if self.transport is not None:
                    self.transport.abort()
                return
            self._heard(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed, by whomever."""
        self._lost(self, _words(exc) if exc else "it closed the connection")


@dataclass(slots=True)
class _State:
    """Of the connection there is, or is being made."""

    connection: _Connection | None = None
    task: asyncio.Task[None] | None = None
    has_answered: bool = False
    waiting: list[int] = field(default_factory=list)


class Streams:
    """The connection to a server. `open_` gives a TCP socket that does not block, or raises OSError. `context` is what TLS servers are
    verified by; without one it is made of the machine's certificates when it is needed."""

    def __init__(
        self,
        server: config.Upstream,
        open_: Callable[[], socket],
        randomness: Randomness,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._server, self._open, self._randomness, self._context = server, open_, randomness, context
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, _Question] = {}
        self._state = _State()
        self._idle: asyncio.TimerHandle | None = None

    def ask(self, message: bytes, asked: bytes, heard: Heard) -> None:
        """Send a message, which has no id yet. OSError when too many are on their way: then `heard` is not told."""
        if len(self._pending) >= MAX_PENDING:
            raise OSError(errno.ENOBUFS, "too many questions are on their way to it")
        number = self._randomness.number()
        while number in self._pending:
            number = self._randomness.number()
        timer = self._loop.call_later(SILENT_SECONDS, self._silent, number)
        self._pending[number] = _Question(message, asked, heard, self._loop.time(), timer)
        self._send(number)

    def close(self) -> None:
        """Close it; whoever waits is told."""
        self._end()
        self._fail("its server is not asked any more")

    def _send(self, number: int) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        state = self._state
        if state.connection is None or state.connection.transport is None:
            state.waiting.append(number)
            if state.task is None:
                state.task = self._loop.create_task(self._connect(state))
            return
        question = self._pending[number]
        framed = number.to_bytes(2, "big") + question.message
        state.connection.transport.write(len(framed).to_bytes(2, "big") + framed)

    async def _connect(self, state: _State) -> None:
        """Have a connection, and send what waits for it."""
        server = self._server
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                opened = self._open()
                try:
                    await self._loop.sock_connect(opened, (server.ip, server.port))
                    _, connection = await self._loop.create_connection(
                        partial(_Connection, self._heard, partial(self._lost, state)),
                        sock=opened,
                        ssl=await self._tls() if server.tls else None,
                        server_hostname=(server.tls_name or server.ip) if server.tls else None,
                    )
                except BaseException:
                    opened.close()
                    raise
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            if self._state is state:
                self._state = _State()
                self._fail(_words(error))
            return
        state.connection = connection
        for number in state.waiting:
            if number in self._pending:
                self._send(number)
        state.waiting.clear()
        self._rest()

    async def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)  # it reads all of the machine's authorities
        return self._context

    def _heard(self, message: bytes) -> None:
        number = int.from_bytes(message[:2], "big")
        question = self._pending.get(number)
        if question is None or len(message) < 12 or not responses.matches(message, question.asked):
            return
        del self._pending[number]
        question.timer.cancel()
        self._state.has_answered = True
        self._rest()
        question.heard(message, self._loop.time() - question.sent)

    def _lost(self, state: _State, connection: _Connection, why: str) -> None:
        if state is not self._state:
            return
        self._state = _State()
        if not state.has_answered:
            self._fail(why)
            return
        for number, question in list(self._pending.items()):
            if question.tries > 1:
                self._tell(number, why)
            else:
                question.tries += 1
                self._send(number)

    def _silent(self, number: int) -> None:
        self._tell(number, f"no answer within {SILENT_SECONDS:g} s")
        if not self._state.has_answered:
            self._end()  # perhaps the other end is gone: the next question has a connection of its own
            self._fail("no answer by this connection")
        else:
            self._state.has_answered = False

    def _fail(self, why: str) -> None:
        for number in list(self._pending):
            self._tell(number, why)

    def _tell(self, number: int, why: str) -> None:
        question = self._pending.pop(number, None)
        if question is not None:
            question.timer.cancel()
            question.heard(why, self._loop.time() - question.sent)

    def _rest(self) -> None:
        """Close the connection when it has nothing to do for a while."""
        if not self._pending and self._idle is None:
            self._idle = self._loop.call_later(IDLE_SECONDS, self._end)

    def _end(self) -> None:
        state, self._state = self._state, _State()
        if state.task is not None:
            state.task.cancel()
        if state.connection is not None and state.connection.transport is not None:
            state.connection.transport.abort()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no connection within {CONNECT_SECONDS:g} s"
    return failures.words(error)

"""Servers of the built-in programs on one loop: HTTP, messages and greetings on connections, and datagrams.

Whoever is slow, broken or malicious is served so that nobody else notices: what one client can make a program keep is bounded,
nothing is awaited but in the selector, and when there are too many connections, the one that said nothing sensible for the
longest time gives way.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import BinaryIO, Protocol

from podplane.runtime.http_server import REASONS, BadRequest, Parser, Request, Response
from podplane.runtime.loop import READ, WRITE, Loop
from podplane.runtime.sockets import caller

CHUNK_BYTES = 64 * 1024
MAX_CONNECTIONS = 800
"""Below the usual limit of 1024 descriptors, with room for jobs."""
MAX_ACCEPTS = 16
MAX_DATAGRAMS = 64
"""In one turn of the loop, so that everything has its turn."""
LINGER_SECONDS = 0.5
"""A client that is refused may still be sending: closing at once would take from it the answer that says why."""

Address = tuple[str, int]
Wrap = Callable[[socket.socket], socket.socket]


class Talk(Protocol):
    """What is said on one connection."""

    def begin(self, connection: Connection) -> None:
        """It stands."""

    def received(self, connection: Connection, data: bytes) -> None:
        """This came."""

    def sent(self, connection: Connection) -> None:
        """Everything has been sent."""


class Connection:
    """One connection: what is to be sent on it, and whether it is listened to."""

    def __init__(self, servers: Servers, sock: socket.socket, source: Address, talk: Talk) -> None:
        self.source = source
        self.closed = False
        self.read_bytes = CHUNK_BYTES
        self.listening = True
        self._servers, self._sock, self._talk = servers, sock, talk
        self._unsent = bytearray()
        self._file: BinaryIO | None = None
        self._file_bytes = self._watched = 0
        self._last = self._refused = self._lingering = False

    @property
    def local(self) -> Address:
        """Where the client connected to."""
        return caller(self._sock.getsockname())

    @property
    def sending(self) -> bool:
        """Something is still to be sent: before that, nothing more is answered."""
        return bool(self._unsent or self._file)

    def send(self, data: bytes, *, file: BinaryIO | None = None, size: int = 0) -> None:
        """Send this, and then so many bytes of the file, as fast as the client reads it."""
        self._unsent += data
        if file is not None and not size:
            file.close()
        elif file is not None:
            self._file, self._file_bytes = file, size

    def finish(self, *, refused: bool = False) -> None:
        """Nothing is said after what is to be sent now; `refused`: to a client that may still be sending."""
        self._last, self._refused, self.listening = True, refused, False

    def sensible(self) -> None:
        """The client said something that makes sense: others give way before it."""
        self._servers.connections.pop(self, None)
        self._servers.connections[self] = None

    def begin(self) -> None:
        """Say what is said first."""
        self._talk.begin(self)
        self.flush()

    def ready(self) -> None:
        """The socket can be written, if something is to be, or else be read."""
        if self.sending:
            self.flush()
        else:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(self.read_bytes)
        except self._servers.not_yet:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif not self._lingering:
            self._talk.received(self, data)
            self.flush()

    def flush(self) -> None:
        """Send what can be sent now."""
        try:
            while self._more() and not self.closed:
                del self._unsent[: self._sock.send(self._unsent)]
                if not self.sending and not self._last:
                    self._talk.sent(self)
        except self._servers.not_yet:
            pass
        except OSError:
            self.close()
        if not self.closed and self._last and not self.sending:
            self._end()
        if not self.closed:
            self._watch(WRITE if self.sending else READ if self.listening or self._lingering else 0)

    def _watch(self, events: int) -> None:
        if events != self._watched:
            self._watched = events
            self._servers.loop.watch(self._sock.fileno(), events, self.ready)

    def _more(self) -> bool:
        """Whether something is to be sent, after filling up from the file. OSError when that became shorter."""
        if not self._unsent and self._file is not None:
            data = self._file.read(min(CHUNK_BYTES, self._file_bytes))
            self._file_bytes -= len(data)
            if not data and self._file_bytes:
                raise OSError(errno.EIO, "the file became shorter")
            self._unsent += data
            if not self._file_bytes:
                self._file.close()
                self._file = None
        return bool(self._unsent)

    def _end(self) -> None:
        if not self._refused:
            self.close()
        elif not self._lingering:
            self._lingering = True
            try:
                self._sock.shutdown(socket.SHUT_WR)
                self._servers.loop.after(LINGER_SECONDS, self.close)
            except OSError:
                self.close()

    def close(self) -> None:
        """Let go of it; idempotent."""
        if not self.closed:
            self.closed = True
            self._servers.connections.pop(self, None)
            self._watch(0)
            self._sock.close()
            if self._file is not None:
                self._file.close()
            self._servers.one_closed()


class Servers:
    """All that a program listens on, and its connections, the longest silent first."""

    not_yet: tuple[type[OSError], ...] = (BlockingIOError,)
    """How a socket says that it would block; TLS has its own words."""

    def __init__(self, loop: Loop, max_connections: int = MAX_CONNECTIONS) -> None:
        self.loop = loop
        self.connections: dict[Connection, None] = {}
        self._max = max_connections
        self._listening: list[socket.socket] = []
        self._drained: Callable[[], None] | None = None

    def add(self, sock: socket.socket, talk: Callable[[], Talk], wrap: Wrap | None = None) -> None:
        """Accept connections on this socket; `wrap` puts TLS on one."""
        self._listening.append(sock)
        self.loop.watch(sock.fileno(), READ, lambda: self._accept(sock, talk, wrap))

    def add_datagrams(self, sock: socket.socket, answer: Callable[[bytes, Address], bytes | None]) -> None:
        """Answer datagrams on this socket, those that have an answer."""
        self._listening.append(sock)
        self.loop.watch(sock.fileno(), READ, lambda: _datagrams(sock, answer))

    def _accept(self, sock: socket.socket, talk: Callable[[], Talk], wrap: Wrap | None) -> None:
        for _ in range(MAX_ACCEPTS):
            if len(self.connections) >= self._max:
                next(iter(self.connections)).close()
            try:
                accepted, address = sock.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self.connections:
                    next(iter(self.connections)).close()
                return
            self._talk_on(accepted, caller(address), talk(), wrap)

    def _talk_on(self, sock: socket.socket, source: Address, talk: Talk, wrap: Wrap | None) -> None:
        sock.setblocking(False)
        try:
            if sock.type == socket.SOCK_STREAM and sock.proto in (0, socket.IPPROTO_TCP):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Go does
            sock = wrap(sock) if wrap else sock
        except OSError:  # it is gone already
            sock.close()
            return
        connection = Connection(self, sock, source, talk)
        connection.sensible()
        connection.begin()

    def drain(self, seconds: float, done: Callable[[], None]) -> None:
        """Listen no more, end connections that are idle, and call `done` when all have ended, at the latest after that time."""
        for sock in self._listening:
            self.loop.watch(sock.fileno(), 0, done)
            sock.close()
        self._drained = done
        for connection in [c for c in self.connections if c.listening and not c.sending]:
            connection.close()
        self.one_closed()
        self.loop.after(seconds, done)

    @property
    def draining(self) -> bool:
        """Every answer is a connection's last."""
        return self._drained is not None

    def one_closed(self) -> None:
        """A connection has ended."""
        if self._drained and not self.connections:
            self._drained()


def _datagrams(sock: socket.socket, answer: Callable[[bytes, Address], bytes | None]) -> None:
    for _ in range(MAX_DATAGRAMS):
        try:
            data, address = sock.recvfrom(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            continue  # what came back for an answer: nobody listens there
        said = answer(data, caller(address))
        if said is not None:
            try:
                sock.sendto(said, address)
            except OSError:
                pass  # as lost as on the wire


class Exchange:
    """One request, and the way its answer takes."""

    __slots__ = ("_connection", "_http", "request")

    def __init__(self, request: Request, connection: Connection, http: Http) -> None:
        self.request = request
        self._connection, self._http = connection, http

    @property
    def source(self) -> Address:
        """Who asks."""
        return self._connection.source

    @property
    def local(self) -> Address:
        """Where it was asked."""
        return self._connection.local

    def answer(self, response: Response) -> None:
        """Answer now what the handler didn't; never from within the handler."""
        self._http.answer_later(self._connection, self.request, response)

    def drop(self) -> None:
        """End the connection without an answer."""
        self._connection.close()


Handler = Callable[[Exchange], Response | None]
"""Answers a request now, or None: it keeps the exchange and answers later."""


class Http:
    """HTTP on one connection: one request after the other, the next when the answer to the last is on its way."""

    def __init__(self, handler: Handler, servers: Servers) -> None:
        self._handler, self._servers = handler, servers
        self._parser = Parser()

    def begin(self, connection: Connection) -> None:
        """The client speaks first."""

    def received(self, connection: Connection, data: bytes) -> None:
        """Answer what is here whole."""
        self._parser.feed(data)
        self.sent(connection)

    def sent(self, connection: Connection) -> None:
        """Answer the next request, if it is here already."""
        while connection.listening and not connection.sending and not connection.closed:
            try:
                request = self._parser.next()
            except BadRequest as error:
                connection.send(_whole(_refusal(error), close=True))
                connection.finish(refused=True)
                return
            if request is None:
                return
            self._serve(connection, request)

    def _serve(self, connection: Connection, request: Request) -> None:
        connection.sensible()
        response = self._handler(Exchange(request, connection, self))
        if response is None:
            connection.listening = False
        else:
            self._answer(connection, request, response)

    def answer_later(self, connection: Connection, request: Request, response: Response) -> None:
        """Answer a request that was kept, and go on with what came meanwhile."""
        if connection.closed:
            if response.file is not None:
                response.file.close()
            return
        connection.listening = True
        self._answer(connection, request, response)
        connection.flush()

    def _answer(self, connection: Connection, request: Request, response: Response) -> None:
        close = not request.keep_alive or self._servers.draining or ("Connection", "close") in response.headers
        if request.method == "HEAD" or not response.has_body:
            connection.send(response.head(close=close))
            if response.file is not None:
                response.file.close()
        else:
            connection.send(_whole(response, close=close), file=response.file, size=response.size)
        if close:
            connection.finish()


def _refusal(error: BadRequest) -> Response:
    """As Go's server words it: the status and its reason, then why."""
    return Response(f"{error.status} {REASONS[error.status]}: {error}".encode(), error.status)


def _whole(response: Response, *, close: bool) -> bytes:
    return response.head(close=close) + (b"" if response.file else response.body)


class Message:
    """One message and its answer, then the connection ends."""

    def __init__(self, answer: Callable[[bytes, Address], bytes | None]) -> None:
        self._answer = answer

    def begin(self, connection: Connection) -> None:
        """The client speaks first."""

    def received(self, connection: Connection, data: bytes) -> None:
        """Answer it, if it has an answer."""
        connection.send(self._answer(data, connection.source) or b"")
        connection.finish()

    def sent(self, connection: Connection) -> None:
        """There is no more."""


class Greeting:
    """A text for whoever connects, then the connection ends."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def begin(self, connection: Connection) -> None:
        """Say it. The client may speak first, it isn't listened to."""
        connection.send(self._text)
        connection.finish(refused=True)

    def received(self, connection: Connection, data: bytes) -> None:
        """Nobody asked."""

    def sent(self, connection: Connection) -> None:
        """There is no more."""


def ignore_broken_pipes() -> None:
    """A client that goes away ends its connection, not the program: in a container that begins as usual, it would."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def log(text: str) -> None:
    """One line on standard error, for `kubectl logs`."""
    try:
        os.write(2, f"{time.strftime('%Y/%m/%d %H:%M:%S')} {text}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody reads it

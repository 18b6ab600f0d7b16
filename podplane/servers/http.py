"""A small HTTP/1.1 server for what a node's agent says of itself: GET and HEAD, one answer a connection, by h11.

A client that is slow or sends nonsense costs a few seconds of one task and never an exception. Connections beyond `MAX_CONNECTIONS`, or
beyond `MAX_FROM_ONE` of one address, are closed unanswered: no client alone can take the port from the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

import h11
import msgspec

from podplane.model.config import VIEWER_HEADER

log = logging.getLogger(__name__)
REASONS = {status.value: status.phrase for status in HTTPStatus}
PATIENCE_SECONDS, ANSWER_SECONDS = 5.0, 8.0
"""For a client to send its request, and then to take its answer; for a handler to make one."""
MAX_CONNECTIONS, MAX_FROM_ONE = 512, 64
MAX_HEAD_BYTES = 8 * 1024
READ_BYTES = 4096
SERVER = "podplane"
"""By which a client knows who answers at a port that another program may have."""


class Reply(msgspec.Struct, frozen=True):
    """An answer: a status, a body, and what else is said about it."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Call(msgspec.Struct, frozen=True):
    """A request: the path without its query, the bearer token that came with it, the token for readers ("" for none), and the client's
    address."""

    path: str
    bearer: str = ""
    viewer: str = ""
    client: str = ""


Handler = Callable[[Call], Awaitable[Reply]]
TOO_LATE = Reply(503, b"the answer took too long\n", "text/plain")
FAILED = Reply(500, b"the request failed; the log says how\n", "text/plain")


class HttpServer:
    """Serves on listening sockets until it is closed."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._servers: list[asyncio.Server] = []
        self._connections: Counter[str] = Counter()
        """Open ones, by the client's address."""

    async def listen(self, listeners: Iterable[socket.socket]) -> None:
        """Take connections from these sockets, which are closed with the server."""
        for listener in listeners:
            self._servers.append(await asyncio.start_server(self._serve, sock=listener))

    def close(self) -> None:
        """Take none any more; idempotent."""
        for server in self._servers:
            server.close()
        self._servers = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = str((writer.get_extra_info("peername") or ("",))[0])
        if self._connections[client] >= MAX_FROM_ONE or self._connections.total() >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections[client] += 1
        try:
            with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError):
                await self._converse(reader, writer, client)
        finally:
            self._connections[client] -= 1
            if not self._connections[client]:
                del self._connections[client]

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        async with asyncio.timeout(PATIENCE_SECONDS):
            found = await _read(connection, reader)
        if found is None:
            return
        is_head = isinstance(found, h11.Request) and found.method == b"HEAD"
        reply = found if isinstance(found, Reply) else await self._handle(_call(found, client))
        writer.write(_written(connection, reply, is_head=is_head))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await writer.drain()

    async def _handle(self, call: Call) -> Reply:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._handler(call)
        except TimeoutError:
            return TOO_LATE
        except Exception:
            log.exception("request path=%s", call.path)
            return FAILED


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | Reply | None:
    """The request, or how it is refused; None when the client goes before it is complete."""
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
    except h11.RemoteProtocolError as error:
        return Reply(error.error_status_hint, str(error).encode(), "text/plain")
    if not isinstance(event, h11.Request):
        return None
    if event.method not in (b"GET", b"HEAD"):
        return Reply(405, b"GET and HEAD are served", "text/plain", (("allow", "GET, HEAD"),))
    return event


def _call(request: h11.Request, client: str) -> Call:
    headers = {name.decode(): value.decode("latin-1") for name, value in reversed(request.headers)}
    scheme, _, token = headers.get("authorization", "").partition(" ")
    path = request.target.decode("ascii").partition("?")[0]
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return Call(path, bearer, headers.get(VIEWER_HEADER, "").strip(), client)


def _written(connection: h11.Connection, reply: Reply, *, is_head: bool = False) -> bytes:
    headers = [
        ("content-type", reply.content_type),
        ("content-length", str(len(reply.body))),
        ("server", SERVER),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
        *reply.headers,
    ]
    reason = REASONS.get(reply.status, f"status code {reply.status}")  # as Go's net/http writes one that it has no words for
    parts = [connection.send(h11.Response(status_code=reply.status, headers=headers, reason=reason.encode()))]
    if not is_head:
        parts.append(connection.send(h11.Data(data=reply.body)))
    return b"".join(part for part in parts if part)


HOSTS = {
    (socket.AF_INET, False): "0.0.0.0",
    (socket.AF_INET, True): "127.0.0.1",
    (socket.AF_INET6, False): "::",
    (socket.AF_INET6, True): "::1",
}
"""All addresses of a family, and its localhost."""


def listeners(port: int, versions: Iterable[int], local: bool = False) -> list[socket.socket]:
    """Listening sockets on all addresses of these IP versions, or on localhost alone, to be called in the namespace. OSError when the
    port is taken."""
    found: list[socket.socket] = []
    try:
        for version in versions:
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            found.append(socket.create_server((HOSTS[family, local], port), family=family))
    except OSError:
        for one in found:
            one.close()
        raise
    return found

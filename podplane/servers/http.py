"""A small HTTP/1.1 server for what a node's agent says of itself: GET and HEAD, one answer a connection, by h11.

Whoever is slow or sends nonsense costs a few seconds of one task and never an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import h11

PATIENCE_SECONDS = 5.0
MAX_HEAD_BYTES = 8 * 1024
READ_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a status, a body, and what else is said about it."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[str], Awaitable[Reply]]
"""From a path, without its query, to the answer."""


class HttpServer:
    """Serves on listening sockets until it is closed."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._servers: list[asyncio.Server] = []

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
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                writer.write(await self._conversation(reader))
                await writer.drain()

    async def _conversation(self, reader: asyncio.StreamReader) -> bytes:
        """The bytes of the answer to what comes; nothing when it ends before it is a request."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(READ_BYTES))
        except h11.RemoteProtocolError as error:
            return _written(connection, Reply(error.error_status_hint, str(error).encode(), "text/plain"))
        if not isinstance(event, h11.Request):
            return b""
        if event.method not in (b"GET", b"HEAD"):
            return _written(connection, Reply(405, b"GET and HEAD are served", "text/plain", (("allow", "GET, HEAD"),)))
        reply = await self._handler(event.target.decode("ascii").partition("?")[0])
        return _written(connection, reply, is_head=event.method == b"HEAD")


def _written(connection: h11.Connection, reply: Reply, *, is_head: bool = False) -> bytes:
    headers = [
        ("content-type", reply.content_type),
        ("content-length", str(len(reply.body))),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
        *reply.headers,
    ]
    parts = [connection.send(h11.Response(status_code=reply.status, headers=headers))]
    if not is_head:
        parts.append(connection.send(h11.Data(data=reply.body)))
    return b"".join(part for part in parts if part)


def listeners(port: int, versions: Iterable[int]) -> list[socket.socket]:
    """Listening sockets on all addresses of these IP versions, to be called in the namespace. OSError when the port is taken."""
    found: list[socket.socket] = []
    try:
        for version in versions:
            family, host = (socket.AF_INET6, "::") if version == 6 else (socket.AF_INET, "0.0.0.0")
            found.append(socket.create_server((host, port), family=family))
    except OSError:
        for one in found:
            one.close()
        raise
    return found

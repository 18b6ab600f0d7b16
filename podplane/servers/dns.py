"""Sockets that questions for names come by: datagrams (RFC 1035, 4.2.1), and connections with a length before each message (4.2.2)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

Respond = Callable[[bytes, str], bytes | Awaitable[bytes | None] | None]
"""(message, client's address) → the response, an awaitable of it, or None when there is none."""
BATCH = 64
"""Questions that are read at one go, so that others of the process have a turn."""
MESSAGE_BYTES = 65535
IDLE_SECONDS = 10.0


class UdpServer:
    """Answers datagrams of a bound socket, which is closed with it. To be made and used on an event loop."""

    def __init__(self, bound: socket.socket, respond: Respond) -> None:
        bound.setblocking(False)
        self._socket = bound
        self._respond = respond
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(bound, self._read)

    def close(self) -> None:
        """Answer none any more; idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        for task in self._tasks:
            task.cancel()

    def _read(self) -> None:
        for _ in range(BATCH):
            try:
                data, client = self._socket.recvfrom(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an answer
            response = self._respond(data, client[0])
            if isinstance(response, bytes):
                self._send(response, client)
            elif response is not None:
                task = self._loop.create_task(self._later(response, client))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _later(self, response: Awaitable[bytes | None], client: tuple[str, int]) -> None:
        data = await response
        if data is not None:
            self._send(data, client)

    def _send(self, data: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # the client asks again
            self._socket.sendto(data, client)


class TcpServer:
    """Answers connections to a listening socket, which is closed with it."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._server: asyncio.Server | None = None

    async def listen(self, listener: socket.socket) -> None:
        """Take connections from now on."""
        self._server = await asyncio.start_server(self._serve, sock=listener)

    def close(self) -> None:
        """Take none any more; idempotent."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = str((writer.get_extra_info("peername") or ("",))[0])
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(length)
                response = self._respond(data, client)
                if response is not None and not isinstance(response, bytes):
                    response = await response
                if response is None:
                    return
                writer.write(len(response).to_bytes(2, "big") + response)
                await writer.drain()

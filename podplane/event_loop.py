"""asyncio's event loop, with sockets' transports that end once, and go with their connections.

A transport of asyncio keeps a method of its own, and so itself, until the oldest generation of garbage is collected, and with it the
blocks of memory that others were in: this one lets go of it. And one that is told to close, has written what was left, and is told to abort
at that moment, loses its connection twice (an AttributeError): this one does nothing the second time.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import selector_events
from typing import Any


class _Transport(selector_events._SelectorSocketTransport):  # type: ignore[name-defined,misc]  # it is public nowhere
    def _force_close(self, error: BaseException | None) -> None:
        if self._loop is not None:
            super()._force_close(error)

    def _call_connection_lost(self, error: BaseException | None) -> None:
        if self._sock is None:
            return
        try:
            super()._call_connection_lost(error)
        finally:
            self._read_ready_cb = None


class EventLoop(asyncio.SelectorEventLoop):
    """For a process that serves."""

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> asyncio.Transport:
        made: asyncio.Transport = _Transport(self, sock, protocol, waiter, extra, server)
        return made

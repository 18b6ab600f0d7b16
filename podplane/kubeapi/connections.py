"""Connections for httpcore2 by asyncio's own streams.

Those that it has itself (anyio's) hand on each TLS record by itself, through four layers: an event of a watch took nearly twice the
processor time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import httpcore2

T = TypeVar("T")
NO_ANSWER = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, httpcore2.ConnectionNotAvailable)
"""The errors by which httpcore2 says that a server does not answer."""
SECOND_ADDRESS_SECONDS = 0.25
"""After so long without a connection the next address of the name is tried, too (RFC 8305, 5)."""


async def _within(seconds: float | None, waited: Coroutine[Any, Any, T], late: type[Exception], failed: type[Exception]) -> T:
    """Its result, or `late` after so many seconds, or `failed`."""
    try:
        async with asyncio.timeout(seconds):
            return await waited
    except TimeoutError as error:
        raise late(str(error)) from None
    except OSError as error:
        raise failed(str(error)) from None


class _Stream(httpcore2.AsyncNetworkStream):
    """One connection. Errors are httpcore2's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # httpcore2 has it so
        return await _within(timeout, self._reader.read(max_bytes), httpcore2.ReadTimeout, httpcore2.ReadError)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._writer.write(buffer)
        await _within(timeout, self._writer.drain(), httpcore2.WriteTimeout, httpcore2.WriteError)

    async def aclose(self) -> None:
        """At once, without waiting for the other side's TLS alert: HTTP itself says where an answer ends. (`wait_closed` would wait for
        ever for a connection that was lost while TLS began.)"""
        self._writer.transport.abort()
        await asyncio.sleep(0)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> _Stream:
        shaking = self._writer.start_tls(ssl_context, server_hostname=server_hostname, ssl_handshake_timeout=timeout)
        try:
            await _within(timeout, shaking, httpcore2.ConnectTimeout, httpcore2.ConnectError)
        except BaseException:
            await self.aclose()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """`is_readable` of an idle connection: the other side has closed it."""
        return self._writer.is_closing() if info == "is_readable" else self._writer.get_extra_info(info)


class Connections(httpcore2.AsyncNetworkBackend):
    """Opens them."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        own = (local_address, 0) if local_address else None
        opening = asyncio.open_connection(host, port, local_addr=own, happy_eyeballs_delay=SECOND_ADDRESS_SECONDS)
        reader, writer = await _within(timeout, opening, httpcore2.ConnectTimeout, httpcore2.ConnectError)
        for option in socket_options or ():
            writer.get_extra_info("socket").setsockopt(*option)
        return _Stream(reader, writer)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

"""Connections into pods: from inside the pod's network namespace to a port of its localhost, as a kubelet makes them."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from podplane.kernel.namespace import Namespace
from podplane.kubeapi.streams import StreamError
from podplane.runtime.dial import DialError, any_certificate, dial

CHUNK_BYTES = 64 * 1024
LOCALHOST = ("127.0.0.1", "::1")


class PodConnection(msgspec.Struct, eq=False):
    """One TCP connection."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        """What comes next; nothing at its end, or when it was reset."""
        try:
            return await self._reader.read(CHUNK_BYTES)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send; to a pod that doesn't listen any more, nothing happens."""
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    def end_writing(self) -> None:
        """Nothing more is sent; idempotent."""
        with contextlib.suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    def close(self) -> None:
        """Let go of it; idempotent."""
        self._writer.close()


async def dial_from(namespace: Namespace, host: str, port: int, *, tls: bool = False) -> PodConnection:
    """Connect to an address from a namespace. StreamError says why not."""
    try:
        sock = await dial(namespace, host, port)
    except DialError as error:
        raise StreamError(str(error)) from None
    if not tls:
        return PodConnection(*await asyncio.open_connection(sock=sock))
    try:
        return PodConnection(*await asyncio.open_connection(sock=sock, ssl=any_certificate(), server_hostname=""))
    except OSError as error:  # ssl.SSLError is one
        raise StreamError(f"tls to {host}:{port}: {error}") from None


async def connect(namespace: Namespace, port: int) -> PodConnection:
    """Connect to a port of the namespace's localhost, by IPv4, then IPv6. StreamError says why not."""
    refusals = []
    for host in LOCALHOST:
        try:
            return await dial_from(namespace, host, port)
        except StreamError as error:
            refusals.append(str(error))
    raise StreamError(refusals[0])

"""Connections of the event loop: they end once, and leave nothing that waits for a collection of garbage."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from podplane.event_loop import EventLoop

MUCH = 30_000_000
"""Bytes, more than the kernel takes at once."""


class Echo(asyncio.Protocol):
    """Answers with what it is sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """The same with a buffer of its own, as TLS has one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = bytearray(100)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(self.buffer[:nbytes])


class Impatient(asyncio.Protocol):
    """Writes much, closes, and aborts at a moment."""

    moment = ""
    lost = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.transport.set_write_buffer_limits(0)

    def data_received(self, data: bytes) -> None:
        self.transport.write(bytes(MUCH))
        self.transport.close()

    def resume_writing(self) -> None:
        self._abort("written")

    def connection_lost(self, error: Exception | None) -> None:
        type(self).lost += 1
        self._abort("lost")
        asyncio.get_running_loop().call_soon(self._abort, "later")

    def _abort(self, moment: str) -> None:
        if self.moment == moment:
            self.transport.abort()


def run(test: Callable[[int], Coroutine[Any, Any, None]], protocol: type[asyncio.BaseProtocol]) -> list[dict[str, Any]]:
    """Run a test with the port of a server; what the loop has to complain about."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        await test(server.sockets[0].getsockname()[1])
        await asyncio.sleep(0.01)
        server.close()

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(main())
    return complaints


def transports() -> int:
    return sum("SocketTransport" in kind.__name__ for thing in gc.get_objects() for kind in type(thing).__mro__[:2])


async def echoed(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    found = await reader.readexactly(5)
    writer.close()
    await writer.wait_closed()
    return found


@pytest.mark.parametrize("protocol", [Echo, BufferedEcho])
def test_a_connection_that_has_ended_waits_for_no_collection_of_garbage(protocol: type[asyncio.BaseProtocol]) -> None:
    async def test(port: int) -> None:
        before = transports()
        for _ in range(5):
            assert await echoed(port) == b"hello"
        await asyncio.sleep(0.01)
        assert transports() == before

    gc.collect()
    gc.disable()
    try:
        assert run(test, protocol) == []
    finally:
        gc.enable()


@pytest.mark.parametrize("moment", ["written", "lost", "later"])
def test_a_connection_ends_once(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    monkeypatch.setattr(Impatient, "moment", moment)
    monkeypatch.setattr(Impatient, "lost", 0)

    async def test(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"go")
        assert len(await reader.read()) == MUCH
        writer.close()

    assert run(test, Impatient) == []
    assert Impatient.lost == 1

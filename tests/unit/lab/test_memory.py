"""What a burst took goes back, once the memory grows no more."""

from __future__ import annotations

import asyncio
import gc
from asyncio import selector_events
from typing import Any

import pytest

from podplane.lab import memory
from podplane.lab.memory import Trimming

MB = 1024 * 1024


async def test_what_was_freed_goes_back_after_a_burst() -> None:
    sizes = iter([100, 100, 105, 180, 250, 250, 150, 120, 119, 119, 119, 119, 119, 110])
    given, now = list[int](), 0.0

    def give_back() -> None:
        given.append(looks)

    trimming = Trimming(lambda: None, lambda: now, lambda: next(sizes) * MB, give_back)
    trimming._last = trimming._least = 100 * MB
    for looks in range(9):  # noqa: B007
        now += 5
        await trimming.look()
    assert given == [5, 6, 7], "not while it grows, and not again at once when nothing came of it"
    now += 20
    looks = 9
    await trimming.look()
    assert given == [5, 6, 7, 9], "but later: what was freed meanwhile shows nowhere"


def test_the_c_library_is_asked() -> None:
    memory.keep_large_blocks_apart()
    memory.trim()  # what is free here would be used first
    before = memory.resident()
    assert before > MB
    held = [bytearray(64 * 1024) for _ in range(500)]
    assert memory.resident() > before
    del held
    memory.trim()
    assert memory.resident() < before + 16 * MB


async def echoed(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    found = await reader.readexactly(5)
    writer.close()
    await writer.wait_closed()
    return found


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


def transports() -> int:
    return sum(type(thing).__name__ == "_SelectorSocketTransport" for thing in gc.get_objects())


@pytest.mark.parametrize("protocol", [Echo, BufferedEcho])
async def test_a_connection_that_has_ended_waits_for_no_collection_of_garbage(
    protocol: type[asyncio.BaseProtocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "set_protocol", kind.set_protocol)  # as it was again after this test
    memory.free_transports_at_once()
    memory.free_transports_at_once()
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    gc.collect()
    gc.disable()
    try:
        before = transports()
        for _ in range(5):
            assert await echoed(server.sockets[0].getsockname()[1]) == b"hello"
        await asyncio.sleep(0.01)
        assert transports() == before
    finally:
        gc.enable()
        server.close()

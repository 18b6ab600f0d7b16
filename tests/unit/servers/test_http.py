"""The agent's small HTTP server, over real sockets of 127.0.0.1: answers, and what becomes of nonsense."""

from __future__ import annotations

import asyncio
import socket

import pytest

from podplane.servers import http
from podplane.servers.http import HttpServer, Reply


async def answer(path: str) -> Reply:
    return Reply(200 if path == "/healthz" else 404, path.encode(), "text/plain", (("x-more", "1"),))


async def asked(*pieces: bytes, end: bool = True) -> bytes:
    """What comes back for these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(answer)
    await server.listen([listener])
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if end and writer.can_write_eof():
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        server.close()


async def test_get_is_answered_with_headers_and_body() -> None:
    head, _, body = (await asked(b"GET /healthz?full=1 HTTP/1.1\r\nhost: x\r\n\r\n", end=False)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and body == b"/healthz"
    assert {b"x-more: 1", b"x-content-type-options: nosniff", b"content-length: 8"} <= set(head.split(b"\r\n"))


async def test_a_request_in_pieces_is_one() -> None:
    assert b"/other" in await asked(b"GET /ot", b"her HTTP/1.1\r\nho", b"st: x\r\n\r\n", end=False)


async def test_head_has_no_body() -> None:
    head, _, body = (await asked(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert b"content-length: 8" in head and body == b""


async def test_other_methods_are_refused() -> None:
    found = await asked(b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
    assert found.startswith(b"HTTP/1.1 405") and b"allow: GET, HEAD" in found


@pytest.mark.parametrize(
    ("bytes_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_nonsense_is_a_bad_request(bytes_: bytes, status: bytes) -> None:
    assert (await asked(bytes_)).startswith(b"HTTP/1.1 " + status)


async def test_who_goes_before_asking_gets_nothing() -> None:
    assert await asked(b"") == b""
    assert (await asked(b"GET / HT"))[9:12] in (b"", b"400")


async def test_who_is_slow_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_SECONDS", 0.1)
    assert await asked(b"GET / HTTP/1.1\r\n", end=False) == b""


async def test_a_closed_server_takes_no_connection() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address, server = listener.getsockname(), HttpServer(answer)
    await server.listen([listener])
    server.close()
    server.close()
    with pytest.raises(OSError):
        await asyncio.open_connection(*address)

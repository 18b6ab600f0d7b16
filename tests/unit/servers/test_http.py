"""The agent's small HTTP server, over real sockets of 127.0.0.1: answers, and what becomes of nonsense."""

from __future__ import annotations

import asyncio
import socket

import pytest

from podplane.servers import http
from podplane.servers.http import Call, Handler, HttpServer, Reply


async def answer(call: Call) -> Reply:
    body = f"{call.path} {call.bearer}".strip().encode()
    return Reply(200 if call.path == "/healthz" else 404, body, "text/plain", (("x-more", "1"),))


async def asked(*pieces: bytes, end: bool = True, handler: Handler = answer) -> bytes:
    """What comes back for these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(handler)
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


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK"),
        (404, b"HTTP/1.1 404 Not Found"),
        (503, b"HTTP/1.1 503 Service Unavailable"),
        (599, b"HTTP/1.1 599 status code 599"),
    ],
)
async def test_the_status_has_its_reason(status: int, line: bytes) -> None:
    async def reply(_: Call) -> Reply:
        return Reply(status)

    assert (await asked(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", end=False, handler=reply)).split(b"\r\n")[0] == line


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


@pytest.mark.parametrize(
    ("header", "bearer"),
    [
        (b"Bearer one", b" one"),
        (b"bearer   two ", b" two"),
        (b"Basic three", b""),
        (b"Bearer", b""),
        (b"Bearer \xff", b" \xc3\xbf"),
    ],
)
async def test_the_bearer_token_is_handed_on(header: bytes, bearer: bytes) -> None:
    found = await asked(b"GET /healthz HTTP/1.1\r\nhost: x\r\nauthorization: " + header + b"\r\n\r\n", end=False)
    assert found.endswith(b"\r\n\r\n/healthz" + bearer)


async def test_a_handler_that_takes_too_long_is_answered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.05)

    async def waits(call: Call) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await asked(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", end=False, handler=waits)).startswith(b"HTTP/1.1 503")


async def test_a_handler_that_fails_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(call: Call) -> Reply:
        raise KeyError("nothing")

    assert (await asked(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n", end=False, handler=fails)).startswith(b"HTTP/1.1 500")
    assert "request path=/x" in caplog.text


@pytest.mark.parametrize("limit", ["MAX_CONNECTIONS", "MAX_FROM_ONE"])
async def test_connections_beyond_the_limit_are_closed(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, limit, 2)
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(answer)
    await server.listen([listener])
    held = [await asyncio.open_connection(*listener.getsockname()) for _ in range(2)]
    for _, writer in held:  # both have begun, so both are counted
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        await writer.drain()
    reader, third = await asyncio.open_connection(*listener.getsockname())
    assert await asyncio.wait_for(reader.read(), 20) == b""
    for reader, writer in held:
        writer.write(b"host: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 200")
    for writer in (third, *(writer for _, writer in held)):
        writer.close()
    assert (await asyncio.wait_for(_once(listener), 20)).startswith(b"HTTP/1.1 200")
    server.close()


async def test_one_client_can_not_take_the_port_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_FROM_ONE", 1)
    listener = socket.create_server(("0.0.0.0", 0))
    server, port = HttpServer(answer), listener.getsockname()[1]
    await server.listen([listener])
    held, other = [await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{n}", 0)) for n in (1, 2)]
    other[1].write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await asyncio.wait_for(other[0].read(), 20)).startswith(b"HTTP/1.1 200")
    for _, writer in (held, other):
        writer.close()
    server.close()


async def _once(listener: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    found = await reader.read()
    writer.close()
    return found

"""The one adapter between the API server's core and HTTP: ASGI, served over TLS by uvicorn on sockets that are already bound."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from podplane.apiserver.connections import BODY_SECONDS, HEAD_SECONDS, Waiting, readable
from podplane.apiserver.decoding import MAX_BODY_BYTES
from podplane.apiserver.together import until_one_ends
from podplane.kubeapi.messages import Answer, Handler, Request, Response, Stream, Upgrade
from podplane.kubeapi.streams import StreamError
from podplane.servers.accepting import Acceptor

log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
CLOSE_NORMAL = 1000
UNAUTHORIZED = 401
MAX_HEAD_BYTES = 128 * 1024
"""Of the first line and the headers of a request; Go's server takes 1 MiB, and no client of Kubernetes sends a tenth of this."""
MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""A body that is too large is answered; of what comes after that, or in its trailers, so much is read."""
UNREAD_SECONDS = 60.0
"""A client that takes nothing of its answer for so long is cut off."""
WRITE_BYTES = 32 * 1024
"""So much waits for a client before others' turns come and it is waited for; asyncio's own limit is 512 KiB for each connection."""
READ_BYTES = 64 * 1024
"""Of a connection, at once."""
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9),
)
"""A client that is gone without a word is noticed by the kernel, as with a Kubernetes API server (defaults of Go's net.ListenConfig). Pings
of WebSockets (RFC 6455, section 5.5.2) would end an exec whose client reads nothing for a while: it answers only as it reads."""
DATE_SECONDS = 1.0
"""In an answer its date is so old at most (RFC 9110, 6.6.1: in seconds)."""
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Adapter:
    """An ASGI application around a handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            return  # the client went away in the middle of its request
        request = msgspec.structs.replace(_request(scope, scope["method"], body), gone=lambda: _gone(receive))
        answer = await self._handler(request)
        if isinstance(answer, Upgrade):
            raise TypeError("an upgrade was answered to a request that has none")
        headers = [(b"content-type", answer.content_type.encode("latin-1"))]
        if isinstance(answer, Response):
            headers.append((b"content-length", str(len(answer.body)).encode()))
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        if answer.status == UNAUTHORIZED:
            headers.append((b"connection", b"close"))  # who has no token keeps no connection
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if isinstance(answer, Response):
            await send({"type": "http.response.body", "body": answer.body})
        else:
            await _stream(answer, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        request = _request(scope, "GET", b"", upgrade=True)
        request = msgspec.structs.replace(request, protocols=tuple(scope.get("subprotocols", ())))
        answer: Answer = await self._handler(request)
        if not isinstance(answer, Upgrade):
            await _refuse(answer if isinstance(answer, Response) else Response(400), send)
            return
        await send({"type": "websocket.accept", "subprotocol": answer.protocol or None})
        connection = _WebSocket(receive, send, answer.text)
        await answer.serve(connection)
        await connection.close()


class _WebSocket:
    """`Messages` over ASGI."""

    def __init__(self, receive: Receive, send: Send, text: bool) -> None:
        self._receive, self._send, self._text = receive, send, text
        self._open = True

    async def receive(self) -> bytes | None:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._open = False
            return None
        data: bytes | None = message.get("bytes")
        if data is None:
            text: str = message.get("text") or ""
            data = text.encode()
        return data

    async def send(self, message: bytes) -> None:
        content: dict[str, bytes | str] = {"text": message.decode()} if self._text else {"bytes": message}
        await self._quietly({"type": "websocket.send", **content})

    async def close(self) -> None:
        await self._quietly({"type": "websocket.close", "code": CLOSE_NORMAL})

    async def _quietly(self, message: MutableMapping[str, Any]) -> None:
        """Send; a connection that went away meanwhile (an OSError of uvicorn's, or a RuntimeError where it had been closed before) is no
        news for a conversation."""
        if self._open:
            try:
                await self._send(message)
            except (OSError, RuntimeError):
                self._open = False


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when the client goes away before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body") or len(body) > MAX_BODY_BYTES:
            return body


def _request(scope: Scope, method: str, body: bytes, *, upgrade: bool = False) -> Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    raw_query = scope["query_string"].decode("latin-1")
    query = parse_qs(raw_query, keep_blank_values=True)
    source = (scope.get("client") or ("",))[0]
    return Request(method, scope["path"], query, headers, body, upgrade, source=source, raw_query=raw_query)


async def _gone(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stream(answer: Stream, receive: Receive, send: Send) -> None:
    """Send chunks until they end or the client goes away. An answer that breaks off is not ended: uvicorn closes the connection."""

    async def forward() -> None:
        try:
            async for chunk in answer.chunks:
                for start in range(0, len(chunk), WRITE_BYTES):
                    part = chunk[start : start + WRITE_BYTES] if len(chunk) > WRITE_BYTES else chunk
                    async with asyncio.timeout(UNREAD_SECONDS):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            log.info("answer cut off why=nothing of it was taken for %g s", UNREAD_SECONDS)
            return
        except StreamError as error:
            log.warning("answer cut off why=%s", error)
            return
        await send({"type": "http.response.body", "body": b""})

    await until_one_ends(forward(), _gone(receive))


async def _refuse(answer: Response, send: Send) -> None:
    """Refuse a WebSocket with an HTTP answer (ASGI extension websocket.http.response)."""
    headers = [(b"content-type", answer.content_type.encode())]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn, for clients of which nothing is known: `waiting` are those of its server that have not asked yet."""

    def __init__(self, waiting: Waiting, **named: Any) -> None:
        super().__init__(**named)
        self._waiting = waiting
        self._source = ""
        self._head_bytes = self._bytes = 0
        self._is_in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is there; of a request, nothing is."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        self._source = self.client[0] if self.client else ""
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._waiting.end(self, self._source)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the request is larger than any that is served."""
        self._unset_idle()
        self._bytes += len(data)
        if self._is_in_head:
            self._head_bytes += len(data)  # which a head that ends within corrects
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES or self._bytes > MAX_REQUEST_BYTES:
            self._refuse_large()

    def _unset_idle(self) -> None:
        """The next request of a connection that was kept open begins."""
        if self._is_in_head and not self._head_bytes and self.timeout_keep_alive_task is not None:
            self._wait(HEAD_SECONDS)

    def _refuse_large(self) -> None:
        self._bytes = self._head_bytes = 0
        self._waiting.end(self, self._source)
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head = True
        self._wait(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which nobody reads."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is there: it is known soon who asks, and how large the body may be."""
        self._is_in_head = False
        self._head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._head_bytes > MAX_HEAD_BYTES:
            return  # it is refused when all of what came is parsed
        self._wait(BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body is there."""
        if self._head_bytes <= MAX_HEAD_BYTES:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._waiting.end(self, self._source)
        if self._head_bytes <= MAX_HEAD_BYTES:
            super().on_message_complete()
            self._head_bytes = 0
        self._bytes, self._is_in_head = 0, True

    def handle_websocket_upgrade(self) -> None:
        """From here on it is a WebSocket's."""
        self._waiting.end(self, self._source)
        super().handle_websocket_upgrade()
        self.let_go()

    def let_go(self) -> None:
        """It parses nothing more. (It and its parser refer to each other, and so to all that the connection has.)"""
        self.parser = None  # type: ignore[assignment]

    def _wait(self, seconds: float) -> None:
        self._waiting.begin(self, self._source, seconds, self._give_up)

    def _give_up(self) -> None:
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn inside a loop that is somebody else's: it leaves signals alone, and takes connections by `connections`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: the process decides."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections of these."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        self._waiting = Waiting(loop.time)
        self._handshakes: set[asyncio.Task[None]] = set()
        self.servers = [Acceptor(one, self._begin) for one in sockets or ()]  # type: ignore[misc]
        self.started = True

    async def main_loop(self) -> None:
        """Keep the date of answers current. uvicorn's own asks ten times a second whether it is to end; this one is cancelled."""
        while not await self.on_tick(0):  # noqa: ASYNC110  # it sets the date
            await asyncio.sleep(DATE_SECONDS)

    def _begin(self, connection: socket.socket, source: str) -> None:
        task = asyncio.get_running_loop().create_task(self._shake_hands(connection, source))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)
        self._waiting.begin(task, source, HEAD_SECONDS, task.cancel)

    async def _shake_hands(self, connection: socket.socket, source: str) -> None:
        task, loop, protocol = asyncio.current_task(), asyncio.get_running_loop(), None
        try:
            await readable(connection)  # who says nothing costs no TLS
            protocol = self._protocol()
            await loop.connect_accepted_socket(
                functools.partial(_itself, protocol), connection, ssl=self.config.ssl, ssl_handshake_timeout=HEAD_SECONDS
            )
        except (OSError, asyncio.CancelledError) as error:  # no TLS, too slow, or its place was taken
            error.__traceback__ = (
                None  # whose frames keep the future that keeps the error, and buffers: no collection of garbage comes soon
            )
            if protocol is not None:
                protocol.let_go()
            connection.close()
        finally:
            self._waiting.end(task, source)

    def _protocol(self) -> Protocol:
        return Protocol(self._waiting, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _itself(protocol: Protocol) -> Protocol:
    return protocol


def _websocket(**arguments: Any) -> asyncio.Protocol:
    """The protocol of a connection that becomes a WebSocket: its import costs a start nothing."""
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

    return WSProtocol(**arguments)


async def serve(handler: Handler, listeners: list[socket.socket], certificate: Path, key: Path) -> None:
    """Serve HTTPS on these sockets until cancelled."""
    config = uvicorn.Config(
        Adapter(handler),
        http="httptools",
        ws=cast("type[asyncio.Protocol]", _websocket),
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=60,
        ws_ping_interval=None,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    SSLProtocol.max_size = READ_BYTES  # it allocates that for each connection, and 256 KiB by default
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for listener in listeners:
        # Connections inherit it. asyncio sets it only on sockets that name their protocol, which these don't; without it, an answer's
        # body waits for the client to acknowledge its head: 40 ms on a connection that is kept open.
        for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *KEEPALIVE):
            listener.setsockopt(*option)
    await Server(config).serve(sockets=listeners)

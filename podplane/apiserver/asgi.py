"""The one adapter between the API server's core and HTTP: ASGI, served over TLS by uvicorn on sockets that are already bound."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import uvicorn

from podplane.apiserver.decoding import MAX_BODY_BYTES
from podplane.apiserver.together import until_one_ends
from podplane.kubeapi.messages import Answer, Handler, Request, Response, Stream, Upgrade
from podplane.kubeapi.streams import StreamError

log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
CLOSE_NORMAL = 1000


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
        """Send; a connection that went away meanwhile (each server has its own error for it) is no news for a conversation."""
        if self._open:
            try:
                await self._send(message)
            except Exception:
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
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
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


class Server(uvicorn.Server):
    """uvicorn inside a loop that is somebody else's: it leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: the process decides."""
        yield


async def serve(handler: Handler, listeners: list[socket.socket], certificate: Path, key: Path) -> None:
    """Serve HTTPS on these sockets until cancelled."""
    config = uvicorn.Config(
        Adapter(handler),
        http="httptools",
        ws="wsproto",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=60,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for listener in listeners:
        # Connections inherit it. asyncio sets it only on sockets that name their protocol, which these don't; without it, an answer's
        # body waits for the client to acknowledge its head: 40 ms on a connection that is kept open.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await Server(config).serve(sockets=listeners)

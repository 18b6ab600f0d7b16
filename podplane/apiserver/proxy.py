"""The `proxy` subresource of pods, Services and nodes: what they serve over HTTP or HTTPS, through the API.

    kubectl get --raw /api/v1/namespaces/default/services/web:http/proxy/path

The answer passes through as it comes, however long it is or takes; a page's links are changed so that they lead through the API too.
A pod is reached from its node, and what it serves over HTTPS may have any certificate. The user's token goes to nobody. A node's agent
asks who it is: the API server, which has authenticated and authorized the user, shows a token of its own, and to the agent's port
only: anybody may listen on another one. Sources: kube-apiserver, registry/core/*/rest; apimachinery, util/proxy; Go,
httputil.ReverseProxy (headers).
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable
from dataclasses import dataclass
from urllib.parse import quote

import h11

from podplane.apiserver import proxy_pages
from podplane.apiserver.problems import Problem
from podplane.apiserver.proxy_links import moved, rewritten
from podplane.apiserver.proxy_pages import CODINGS, Body
from podplane.apiserver.proxy_target import Destination, Wish
from podplane.apiserver.slices import chunks
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.streams import Connection, NodeStreams, StreamError
from podplane.model.config import AGENT_PORT

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATIENCE_SECONDS = 10.0
"""For a connection."""
EVENTS_A_TURN = 64
"""So many pieces of an answer, which may be of one byte each, are read in one turn of the loop."""
URL_SAFE = "/$&+,:;=@~"
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
"""Headers of one connection (RFC 9110, 7.6.1)."""
NOT_SENT = frozenset((*HOP_BY_HOP, b"authorization", b"content-length", b"expect"))
NOT_RETURNED = frozenset((*HOP_BY_HOP, b"date", b"content-type"))
"""What the server of the API says itself."""
Headers = list[tuple[bytes, bytes]]


async def forward(wish: Wish, at: Destination, streams: NodeStreams | None, request: Request, token: str) -> Answer:
    """What is answered there; `token` is the API server's own, for agents. Problem when there is no answer."""
    if request.upgrade:
        raise Problem("BadRequest", "a WebSocket is not passed on by proxy: use `kubectl port-forward`")
    if request.method not in METHODS:
        raise Problem("MethodNotAllowed", f"{request.method} is not served for {request.path}")
    if not wish.path and request.method in ("GET", "HEAD"):  # relative links of a page need the slash
        location = f"{quote(wish.prefix, URL_SAFE)}/" + (f"?{request.raw_query}" if request.raw_query else "")
        return Response(301, headers=(("location", location),))
    if streams is None:
        raise Problem("ServiceUnavailable", f"this API server has no way to {wish.resource}")
    try:
        return await _unless_gone(request, _exchange(wish, at, streams, request, token))
    except (StreamError, TimeoutError, h11.RemoteProtocolError, zlib.error) as error:
        why = str(error) or f"no connection to {at.authority} within {PATIENCE_SECONDS:.0f} s"
        raise Problem("ServiceUnavailable", f"error trying to reach service: {why}") from None


async def _unless_gone(request: Request, work: Awaitable[Answer]) -> Answer:
    """The answer, unless the client goes away before: a server may take its time, and nobody else would end the wait."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.gone()) if request.gone is not None else None
    try:
        await asyncio.wait([task, gone] if gone is not None else [task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise StreamError("the client has closed its connection")
        return task.result()
    finally:
        for one in (task, gone):
            if one is not None and not one.done():
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await one


@dataclass(slots=True)
class _Exchange:
    """One request to a server, and its answer as it comes."""

    at: Destination
    connection: Connection
    http: h11.Connection

    async def head(self) -> h11.Response:
        """The answer's head, when it has come."""
        while not isinstance(event := await self._next(), h11.Response):
            continue  # interim answers
        return event

    async def body(self) -> Body:
        """The rest of the answer, piece by piece; then the connection is closed."""
        count = 0
        try:
            while not isinstance(event := await self._next(), h11.EndOfMessage | h11.ConnectionClosed):
                if isinstance(event, h11.Data):
                    yield bytes(event.data)
                count += 1
                if count % EVENTS_A_TURN == 0:
                    await asyncio.sleep(0)
        finally:
            self.connection.close()

    async def _next(self) -> h11.Event:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            data = await self.connection.read()
            if not data and self.http.their_state is h11.SEND_RESPONSE:
                raise StreamError(f"{self.at.authority} closed the connection without an answer")
            self.http.receive_data(data)
        assert not isinstance(event, type)  # PAUSED comes after a message, and none is read after one
        return event


async def _exchange(wish: Wish, at: Destination, streams: NodeStreams, request: Request, token: str) -> Answer:
    async with asyncio.timeout(PATIENCE_SECONDS):
        connection = await _connect(at, streams)
    exchange = _Exchange(at, connection, h11.Connection(h11.CLIENT))
    try:
        await connection.write(_written(exchange.http, wish, at, request, token))
        return await _answer(wish, at, request, exchange)
    except BaseException:
        connection.close()
        raise


async def _connect(at: Destination, streams: NodeStreams) -> Connection:
    if at.pod:
        return await streams.reach(at.namespace, at.pod, at.host, at.port, tls=at.tls)
    return await streams.dial(at.host, at.port, tls=at.tls)


def _written(http: h11.Connection, wish: Wish, at: Destination, request: Request, token: str) -> bytes:
    """The request as it goes to the server."""
    path = quote(wish.path or "/", URL_SAFE)
    listed = {name.strip().encode() for name in request.headers.get("connection", "").lower().split(",")}
    given = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    headers: Headers = [(name, value) for name, value in given if name not in NOT_SENT and name not in listed]
    if "host" not in request.headers:
        headers.append((b"host", at.authority.encode()))
    headers += [(b"connection", b"close"), (b"x-forwarded-uri", quote(wish.prefix, URL_SAFE).encode() + path.encode())]
    if request.source:
        before = request.headers.get("x-forwarded-for")
        headers = [(name, value) for name, value in headers if name != b"x-forwarded-for"]
        headers.append((b"x-forwarded-for", ", ".join(filter(None, (before, request.source))).encode("latin-1")))
    if request.body:
        headers.append((b"content-length", str(len(request.body)).encode()))
    if token and wish.resource == "nodes" and at.port == AGENT_PORT and not at.tls:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    target = path + (f"?{request.raw_query}" if request.raw_query else "")
    head = http.send(h11.Request(method=request.method, target=target, headers=headers)) or b""
    body = http.send(h11.Data(data=request.body)) if request.body else b""
    return head + (body or b"") + (http.send(h11.EndOfMessage()) or b"")


async def _answer(wish: Wish, at: Destination, request: Request, exchange: _Exchange) -> Answer:
    """The server's answer to the client, with its links changed when it has any."""
    response, body = await exchange.head(), exchange.body()
    headers = dict(response.headers)
    content_type = headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
    hosts = (at.authority, request.headers.get("host", at.authority))
    kept = [(name, value) for name, value in response.headers if name not in NOT_RETURNED]
    if location := headers.get(b"location"):
        new = moved(location.decode("latin-1"), wish.prefix, hosts).encode("latin-1")
        kept = [(name, new if name == b"location" else value) for name, value in kept]
    elif content_type.partition(";")[0].strip().lower() == "text/html" and request.method != "HEAD":
        coding = headers.get(b"content-encoding", b"").lower()
        if coding in CODINGS:
            came, page = await proxy_pages.read(body, CODINGS[coding])
            if page is None:
                return Stream(proxy_pages.unchanged(came, body), response.status_code, content_type, _text(kept))
            kept = [(name, value) for name, value in kept if name != b"content-length"]
            parts = proxy_pages.encoded(rewritten(page, wish.prefix, hosts), CODINGS[coding])
            return Stream(chunks(parts), response.status_code, content_type, _text(kept))
    return Stream(body, response.status_code, content_type, _text(kept))


def _text(headers: Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)

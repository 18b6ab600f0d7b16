"""The `proxy` subresource of pods, Services and nodes: what they serve over HTTP or HTTPS, through the API.

    kubectl get --raw /api/v1/namespaces/default/services/web:http/proxy/path

The answer passes through as it comes, however long it is or takes; a page's links are changed so that they lead through the API too.
A pod is reached from its node, and what it serves over HTTPS may have any certificate. The user's token goes to nobody. A node's agent
and its name server ask who it is: the API server, which has authenticated and authorized the user, shows a token of its own, and to
their ports only: anybody may listen on another one. Sources: kube-apiserver, registry/core/*/rest; apimachinery, util/proxy; Go,
httputil.ReverseProxy (headers).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import Awaitable
from urllib.parse import quote

import h11
import msgspec

from podplane.apiserver import proxy_pages
from podplane.apiserver.problems import Problem
from podplane.apiserver.proxy_links import moved, rewritten
from podplane.apiserver.proxy_pages import CODINGS, Body
from podplane.apiserver.proxy_target import Destination, Wish
from podplane.apiserver.slices import chunks
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.streams import Connection, NodeStreams, StreamError
from podplane.model.config import AGENT_PORT, NAME_SERVER_PORT

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATIENCE_SECONDS = 10.0
"""For a connection."""
EVENTS_A_TURN = 64
"""So many pieces of an answer, which may be of one byte each, are read in one turn of the loop."""
URL_SAFE = "/$&+,:;=@~"
QUERY_SAFE = "".join(map(chr, range(0x21, 0x7F)))
"""A query goes on as it came, but for what no request line can hold (RFC 9112, 3.2): clients send more."""
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
"""Headers of one connection (RFC 9110, 7.6.1)."""
NOT_SENT = frozenset((*HOP_BY_HOP, b"authorization", b"content-length", b"expect"))
NOT_RETURNED = frozenset((*HOP_BY_HOP, b"date", b"content-type"))
"""What the server of the API says itself."""
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no value of a header may hold (RFC 9110, 5.5)."""
STATUSES = range(200, 600)
"""RFC 9110, 15: a client must take others for a failure of the server."""
WITHOUT_BODY = (204, 304)
SHOWN_TO = (AGENT_PORT, NAME_SERVER_PORT)
"""Ports of a node that are shown the token of the API server."""
Headers = list[tuple[bytes, bytes]]


async def forward(wish: Wish, at: Destination, streams: NodeStreams | None, request: Request, token: str) -> Answer:
    """What is answered there; `token` is the API server's own, for agents and name servers. Problem when there is no answer."""
    if request.upgrade:
        raise Problem("BadRequest", "a WebSocket is not passed on by proxy: use `kubectl port-forward`")
    if request.method not in METHODS:
        raise Problem("MethodNotAllowed", f"{request.method} is not served for {request.path}")
    if not wish.path and request.method in ("GET", "HEAD"):  # relative links of a page need the slash
        location = f"{quote(wish.prefix, URL_SAFE)}/{_query(request)}"
        return Response(301, headers=(("location", location),))
    if streams is None:
        raise Problem("ServiceUnavailable", f"this API server has no way to {wish.resource}")
    try:
        return await _unless_gone(request, _exchange(wish, at, streams, request, token))
    except (StreamError, TimeoutError, zlib.error) as error:
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
            elif one is not None and not one.cancelled():
                one.exception()  # nobody else may hear of it: who waited was cancelled


class _Exchange(msgspec.Struct):
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
        """What comes next. StreamError when that is no HTTP, or cut off."""
        try:
            while (event := self.http.next_event()) is h11.NEED_DATA:
                data = await self.connection.read()
                if not data and self.http.their_state is h11.SEND_RESPONSE:
                    raise StreamError(f"{self.at.authority} closed the connection without an answer")
                self.http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise StreamError(str(error)) from None
        assert not isinstance(event, type)  # PAUSED comes after a message, and none is read after one
        return event


async def _exchange(wish: Wish, at: Destination, streams: NodeStreams, request: Request, token: str) -> Answer:
    http = h11.Connection(h11.CLIENT)
    try:
        written = _written(http, wish, at, request, token)
    except h11.LocalProtocolError as error:
        raise Problem("BadRequest", f"this request can't be passed on: {error}") from None
    async with asyncio.timeout(PATIENCE_SECONDS):
        connection = await _connect(at, streams)
    exchange = _Exchange(at, connection, http)
    try:
        await connection.write(written)
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
    if token and wish.resource == "nodes" and at.port in SHOWN_TO and not at.tls:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    head = http.send(h11.Request(method=request.method, target=path + _query(request), headers=headers)) or b""
    body = http.send(h11.Data(data=request.body)) if request.body else b""
    return head + (body or b"") + (http.send(h11.EndOfMessage()) or b"")


def _query(request: Request) -> str:
    """With its question mark, "" when there is none."""
    return "?" + quote(request.raw_query, QUERY_SAFE, encoding="latin-1") if request.raw_query else ""


async def _answer(wish: Wish, at: Destination, request: Request, exchange: _Exchange) -> Answer:
    """The server's answer to the client, with its links changed when it has any."""
    response, body = await exchange.head(), exchange.body()
    headers = dict(response.headers)
    content_type = headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
    hosts = (at.authority, request.headers.get("host", at.authority))
    kept = _returned(response)
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


def _returned(response: h11.Response) -> Headers:
    """The headers for the client. StreamError when the server of the API could not say this answer."""
    if response.status_code not in STATUSES:
        raise StreamError(f"malformed HTTP status code {response.status_code}")
    if any(CONTROL.search(value) for _, value in response.headers):
        raise StreamError("malformed HTTP header: it holds a control character")
    names = {name for name, _ in response.headers}
    # RFC 9112, 6.3: chunks say how long a body is, whatever else does; and what has no body has no length of one
    unsaid = b"transfer-encoding" in names or response.status_code in WITHOUT_BODY
    return [pair for pair in response.headers if pair[0] not in NOT_RETURNED and not (unsaid and pair[0] == b"content-length")]


def _text(headers: Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)

"""`nodes/proxy`: what a node serves over HTTP, through the API: GET /api/v1/nodes/node1:10256/proxy/healthz.

The request goes to the node's InternalIP, from where the nodes are reached. A node's agent asks who it is: the API server, which has
authenticated and authorized the user, shows a token of its own, and never the user's. That token goes to the agent's port only: anybody
may listen on another one. Source: kube-apiserver, nodes/proxy (registry/core/node/rest).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import h11

from podplane.apiserver.problems import Problem
from podplane.kubeapi.messages import Request, Response
from podplane.kubeapi.streams import NodeStreams, StreamError
from podplane.model.config import AGENT_PORT

PATH = re.compile(r"/api/v1/nodes/(?P<node>[^/:]+)(?::(?P<port>[0-9]{1,5}))?/proxy(?P<rest>/.*)?")
PATIENCE_SECONDS = 10.0
MAX_BODY_BYTES = 64 << 20
PASSED_ON = frozenset({b"allow", b"location", b"retry-after", b"x-content-type-options", b"x-load-balancing-endpoint-weight"})
"""Headers of the node's answer that its client gets."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of which node."""

    node: str
    port: int
    path: str


def parse(path: str) -> Wish | None:
    """What a path asks of a node; None when it asks nothing of any."""
    found = PATH.fullmatch(path)
    return Wish(found["node"], int(found["port"] or 0), found["rest"] or "/") if found else None


async def forward(wish: Wish, node: dict[str, Any], streams: NodeStreams | None, request: Request, token: str) -> Response:
    """The node's answer; `token` is the API server's own. Problem when there is none."""
    if request.method not in ("GET", "HEAD"):
        raise Problem("MethodNotAllowed", f"{request.method} is not served for {request.path}: GET and HEAD are")
    if not 0 < wish.port < 65536:
        raise Problem(
            "ServiceUnavailable", f"node {wish.node} has no kubelet port here: say which one, {wish.node}:{AGENT_PORT} say"
        )
    addresses = [a["address"] for a in node.get("status", {}).get("addresses", ()) if a["type"] == "InternalIP"]
    if streams is None or not addresses:
        raise Problem("ServiceUnavailable", f"this API server has no way to node {wish.node}")
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await _ask(streams, addresses[0], wish, request.method, token)
    except (StreamError, TimeoutError, h11.RemoteProtocolError) as error:
        why = str(error) or f"no answer within {PATIENCE_SECONDS:.0f} s"
        raise Problem("ServiceUnavailable", f"error trying to reach service: {why}") from None


async def _ask(streams: NodeStreams, host: str, wish: Wish, method: str, token: str) -> Response:
    connection, http = await streams.dial(host, wish.port), h11.Connection(h11.CLIENT)
    try:
        name = f"[{host}]" if ":" in host else host
        own = [("host", f"{name}:{wish.port}"), ("connection", "close")]
        if token and wish.port == AGENT_PORT:
            own.append(("authorization", f"Bearer {token}"))
        head = h11.Request(method=method, target=wish.path, headers=own)
        await connection.write((http.send(head) or b"") + (http.send(h11.EndOfMessage()) or b""))
        response: h11.Response | None = None
        body = bytearray()
        while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
            if event is h11.NEED_DATA:
                http.receive_data(await connection.read())
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY_BYTES:
                    raise StreamError(f"the answer is larger than {MAX_BODY_BYTES} bytes")
    finally:
        connection.close()
    if response is None:
        raise StreamError(f"{host}:{wish.port} closed the connection without an answer")
    headers = dict(response.headers)
    content_type = headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
    kept = tuple((n.decode(), v.decode("latin-1")) for n, v in response.headers if n in PASSED_ON)
    return Response(response.status_code, bytes(body), content_type, kept)

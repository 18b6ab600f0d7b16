"""Request and response of the API, free of any HTTP library.

The API server's core takes a `Request` and returns a `Response`, a `Stream` or an `Upgrade`; the HTTP adapter and the direct
transport both speak these. Bodies are bytes (JSON unless `content_type` says otherwise).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class Request(msgspec.Struct, frozen=True):
    """One call: `path` without the query, `query` with all values of each name, header names in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""
    upgrade: bool = False
    """Can the connection become a conversation?"""
    protocols: tuple[str, ...] = ()
    """The sub-protocols that the client offers for that; none are said by a direct call."""
    source: str = ""
    """The address it came from; "" for a direct call."""
    raw_query: str = ""
    """The query as it came, for who passes it on."""
    gone: Callable[[], Awaitable[None]] | None = None
    """Returns when the client has closed its connection, for an answer that takes its time; None when nobody can tell."""
    document: Any = None
    """What the body says, for who has it read already (`apiserver.decoding.with_document`)."""

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        """A boolean query parameter: true when it is there and not 0 or false (apimachinery, Convert_Slice_string_To_bool)."""
        return name in self.query and self.parameter(name).lower() not in ("0", "false")


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Stream(msgspec.Struct, frozen=True):
    """An answer that goes on (a watch): chunks of bytes until the server ends it; `aclose` of `chunks` ends it early."""

    chunks: AsyncIterator[bytes]
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Messages(Protocol):
    """Both directions of an upgraded connection, message by message (WebSocket, binary)."""

    async def receive(self) -> bytes | None:
        """The next message; None when the other end has closed."""

    async def send(self, message: bytes) -> None:
        """Send one; after the other end has closed, nothing happens."""


class Upgrade(msgspec.Struct, frozen=True):
    """An answer that becomes a conversation (exec): `serve` talks until it is over, then the connection is closed.

    Without a `protocol` the client asked for none. Messages go out as `text`, or as bytes.
    """

    protocol: str
    serve: Callable[[Messages], Awaitable[None]]
    text: bool = False


Answer = Response | Stream | Upgrade
Handler = Callable[[Request], Awaitable[Answer]]
"""What serves the API: `apiserver.ApiServer.handle`, or a transport to a remote one."""

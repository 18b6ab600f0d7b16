"""Request and response of the API, free of any HTTP library.

The API server's core takes a `Request` and returns a `Response` or a `Stream`; the HTTP adapter and the direct transport
both speak these. Bodies are bytes (JSON unless `content_type` says otherwise).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """One call: `path` without the query, `query` with the first value of each name, header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on (a watch): chunks of bytes until the server ends it; `aclose` of `chunks` ends it early."""

    chunks: AsyncIterator[bytes]
    status: int = 200
    content_type: str = JSON


Handler = Callable[[Request], Awaitable[Response | Stream]]
"""What serves the API: `apiserver.ApiServer.handle`, or a transport to a remote one."""

"""The API over HTTPS for programs on an event loop: a handler as the API server's own, so that `Client` takes either.

httpcore2 does HTTP; it is imported when the first transport is made. Each open watch has a connection of its own (HTTP/1.1), and there is
no limit to them; other requests share a few that are kept open. On one event loop a TLS handshake costs some milliseconds on either side.
"""

from __future__ import annotations

import email.utils
import functools
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

from podplane.kubeapi.access import Access, AccessError
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.requests import target

CONNECT_SECONDS, ANSWER_SECONDS = 30.0, 60.0
"""To connect, as client-go has it: many watches that begin at once wait for each other's handshakes."""
KEPT_CONNECTIONS, KEPT_SECONDS = 20, 30.0
"""So many idle connections are kept for so long: API servers close them later (90 s; a lab's, 60 s), so no request meets a closed one."""
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
)
"""A watch whose server is not reached any more ends after 20 s, by the kernel: it would wait for the server's next try to send otherwise,
which comes minutes after the network is back (RFC 1122, 4.2.3.6; client-go pings by HTTP/2 for the same)."""
GZIP = 16 + zlib.MAX_WBITS
"""Of zlib's bits of a window: the format is gzip's."""
QUIET_SECONDS = 300.0
"""A watch from which nothing comes for so long ends, and is begun anew, as it would not tell that its server hangs. Bookmarks come each
minute, but not of a kind that does not change, where etcd does not tell its progress (kubeadm's does, every 5 s)."""


class HttpTransport:
    """A `Handler` over HTTPS. ApiError with code 503 when the server does not answer, and when the transport is closed."""

    def __init__(self, access: Access) -> None:
        import httpcore2

        from podplane.kubeapi.connections import NO_ANSWER, Connections

        self._access = access
        self._errors, self._quiet = (*NO_ANSWER, OSError, zlib.error), httpcore2.ReadTimeout
        self._url = functools.partial(httpcore2.URL, scheme="https", host=access.host, port=access.port)
        self._request = httpcore2.Request
        limits: dict[str, Any] = {"max_keepalive_connections": KEPT_CONNECTIONS, "keepalive_expiry": KEPT_SECONDS}
        self._pool = httpcore2.AsyncConnectionPool(
            access.context(), max_connections=None, socket_options=KEEPALIVE, network_backend=Connections(), **limits
        )
        self._is_closed = False
        self._dated = "", 0.0
        """The API's clock as its last answer said it (RFC 9110, 6.6.1), and this machine's then, in seconds since 1970."""

    @property
    def skew(self) -> float:
        """Seconds that this machine's clock was ahead of the API's at its last answer; 0 where it said no time."""
        date, here = self._dated
        try:
            return here - email.utils.parsedate_to_datetime(date).timestamp()
        except ValueError:
            return 0.0

    async def close(self) -> None:
        """Close all connections; watches that are read end with ApiError."""
        self._is_closed = True
        await self._pool.aclose()

    async def __call__(self, request: Request) -> Answer:
        """Send a request; a watch is answered with a stream."""
        streams = request.flag("watch")
        call = self._request(
            request.method,
            self._url(target=self._access.prefix + target(request)),
            headers=[*self._headers(request, streams=streams).items()],
            content=request.body or None,
            extensions=self._extensions(QUIET_SECONDS if streams else ANSWER_SECONDS),
        )
        if self._is_closed:
            raise ApiError(503, "ServiceUnavailable", f"the connections to the API at {self._access.address} were closed")
        try:
            answer = await self._pool.handle_async_request(call)
            headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
            self._dated = headers.get(b"date", ""), time.time()
            if answer.status == HTTPStatus.UNAUTHORIZED:
                self._access.refused()
            content_type = headers.get(b"content-type", "")
            if streams and answer.status < 400:
                return Stream(_Chunks(answer, self._quiet, self._errors, self._no_answer), answer.status, content_type)
            body = await _whole(answer, is_packed=headers.get(b"content-encoding") == "gzip")
            return Response(answer.status, body, content_type)
        except self._errors as error:
            raise self._no_answer(error) from None

    def _headers(self, request: Request, *, streams: bool) -> dict[str, str]:
        """Those of the request, and HTTP's own."""
        headers = {"host": self._access.address, "user-agent": "podplane", **request.headers}
        try:
            if bearer := self._access.bearer():
                headers["authorization"] = f"Bearer {bearer}"
        except AccessError as error:
            raise ApiError(401, "Unauthorized", str(error)) from None
        if not streams:
            headers["accept-encoding"] = "gzip"
        if request.method != "GET":
            headers["content-length"] = str(len(request.body))
        return headers

    def _extensions(self, seconds: float) -> dict[str, Any]:
        """What httpcore2 is told of one request: for how long it waits, and the name in the server's certificate."""
        timeouts = {"connect": CONNECT_SECONDS, "read": seconds, "write": ANSWER_SECONDS}
        return {"timeout": timeouts} | ({"sni_hostname": self._access.server_name} if self._access.server_name else {})

    def _no_answer(self, error: BaseException) -> ApiError:
        why = str(error) or type(error).__name__
        return ApiError(503, "ServiceUnavailable", f"the API at {self._access.address} does not answer: {why}")


async def _whole(answer: Any, *, is_packed: bool) -> bytes:
    """The body of an answer."""
    try:
        body: bytes = await answer.aread()
    finally:
        await answer.aclose()
    return zlib.decompress(body, GZIP) if is_packed else body


class _Chunks(AsyncIterator[bytes]):
    """The body of a watch as it comes. No generator: closing one that was never read would leave its connection open.

    After `quiet` it ends; any other of `errors` is raised as `no_answer` says.
    """

    def __init__(
        self,
        answer: Any,
        quiet: type[BaseException],
        errors: tuple[type[BaseException], ...],
        no_answer: Callable[[BaseException], ApiError],
    ) -> None:
        self._answer, self._quiet, self._errors, self._no_answer = answer, quiet, errors, no_answer
        self._body: AsyncIterator[bytes] = aiter(answer.aiter_stream())

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            await self.aclose()
            raise
        except self._quiet:
            await self.aclose()
            raise StopAsyncIteration from None
        except self._errors as error:
            await self.aclose()
            raise self._no_answer(error) from None
        except BaseException:  # cancelled
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connection; idempotent."""
        await self._answer.aclose()

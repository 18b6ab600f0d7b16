"""The API over HTTPS for programs on an event loop: a handler as the API server's own, so that `Client` takes either.

httpx2 does HTTP; it is imported when a transport is made, which a lab's process never does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from podplane.kubeapi.access import Access, AccessError
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.requests import target

CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
QUIET_SECONDS = 180.0
"""A watch from which nothing comes for so long (bookmarks come each minute) has lost its server."""


class HttpTransport:
    """A `Handler` over HTTPS. ApiError with code 503 when the server doesn't answer."""

    def __init__(self, access: Access) -> None:
        import httpx2

        self._access = access
        self._errors = (httpx2.HTTPError, OSError)
        self._timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._quiet = httpx2.Timeout(QUIET_SECONDS, connect=CONNECT_SECONDS)
        self._extensions: dict[str, Any] = {"sni_hostname": access.server_name} if access.server_name else {}
        self._client = httpx2.AsyncClient(
            base_url=f"https://{access.address}{access.prefix}",
            verify=access.context(),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def __call__(self, request: Request) -> Answer:
        """Send a request; a watch is answered with a stream."""
        streams = request.flag("watch")
        headers = dict(request.headers)
        try:
            if bearer := self._access.bearer():
                headers["authorization"] = f"Bearer {bearer}"
        except AccessError as error:
            raise ApiError(401, "Unauthorized", str(error)) from None
        call = self._client.build_request(
            request.method,
            target(request),
            headers=headers,
            content=request.body or None,
            timeout=self._quiet if streams else self._timeout,
            extensions=self._extensions,
        )
        try:
            answer = await self._client.send(call, stream=True)
            if streams and answer.status_code < 400:
                return Stream(self._chunks(answer), answer.status_code)
            try:
                return Response(answer.status_code, await answer.aread(), answer.headers.get("content-type", ""))
            finally:
                await answer.aclose()
        except self._errors as error:
            raise self._lost(error) from None

    async def _chunks(self, answer: Any) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_bytes():
                yield chunk
        except self._errors as error:
            raise self._lost(error) from None
        finally:
            await answer.aclose()

    def _lost(self, error: BaseException) -> ApiError:
        why = str(error) or type(error).__name__
        return ApiError(503, "ServiceUnavailable", f"the API at {self._access.address} does not answer: {why}")

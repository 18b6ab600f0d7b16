"""The API for programs on an event loop: verbs as methods over any handler (in the lab, the API server itself)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from podplane.cluster import requests
from podplane.cluster.errors import ApiError, checked
from podplane.cluster.messages import Handler, Request, Response, Stream


class Client:
    """One user's way to the API: `handler` is the API server's own, or a transport to it."""

    def __init__(self, handler: Handler, token: str) -> None:
        self._handler = handler
        self._token = token

    async def _whole(self, request: Request) -> bytes:
        answer = await self._handler(request)
        if not isinstance(answer, Response):
            raise ApiError(500, "InternalError", f"{request.method} {request.path} was answered with a stream")
        return checked(answer)

    async def create(self, resource: str, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object; the object as it was stored."""
        return _object(await self._whole(requests.create(self._token, resource, namespace, body)))

    async def list(self, resource: str) -> bytes:
        """All objects of a resource, as the bytes of a List."""
        return await self._whole(requests.get(self._token, resource))

    async def patch_status(self, resource: str, namespace: str, name: str, status: Mapping[str, Any], uid: str) -> None:
        """Merge into an object's status, if it is still the one with this uid."""
        body = {"metadata": {"uid": uid}, "status": status}
        await self._whole(requests.patch(self._token, resource, namespace, name, body, "status"))

    async def delete(self, resource: str, namespace: str, name: str, *, grace: int | None = None, uid: str = "") -> None:
        """Delete an object, if it is still the one with this uid."""
        await self._whole(requests.delete(self._token, resource, namespace, name, grace=grace, uid=uid))

    async def watch(self, resource: str, resource_version: str) -> AsyncIterator[bytes]:
        """The chunks of a watch. ApiError when it is refused (Gone: list again)."""
        answer = await self._handler(requests.watch(self._token, resource, resource_version))
        if isinstance(answer, Response):
            checked(answer)
        if not isinstance(answer, Stream):
            raise ApiError(500, "InternalError", f"the watch of {resource} was not answered with a stream")
        return answer.chunks


def _object(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])

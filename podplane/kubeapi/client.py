"""The API for programs on an event loop: verbs as methods over any handler (in the lab, the API server itself).

Every method raises ApiError when the API refuses, when it does not answer, and when what answers is not the API (a proxy's page).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import msgspec

from podplane.kubeapi import requests
from podplane.kubeapi.errors import UNDECODABLE, ApiError, NotFound, checked, not_the_api
from podplane.kubeapi.messages import JSON, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Answer, Handler, Request, Response, Stream
from podplane.kubeapi.requests import ALL, Selection

GROUPS = "/apis/"
T = TypeVar("T")


class _Version(msgspec.Struct, rename="camel"):
    group_version: str


class _Group(msgspec.Struct):
    versions: list[_Version]


class _Groups(msgspec.Struct, tag_field="kind", tag="APIGroupList"):
    """meta/v1 APIGroupList, as far as it is read."""

    groups: list[_Group]


class Contact(NamedTuple):
    """The last request that the API answered, whatever it said, or did not answer (`error` says why).

    `at` is in seconds of a monotonic clock.
    """

    is_reached: bool
    at: float
    error: str = ""


class Client:
    """A client with one user's token; `handler` is the API server's own function, or a transport to a remote server."""

    def __init__(self, handler: Handler, token: str) -> None:
        self._handler = handler
        self._token = token
        self.contact: Contact | None = None
        """How the last request ended; None before the first one did."""

    async def _send(self, request: Request) -> Answer:
        try:
            answer = await self._handler(request)
        except ApiError as error:
            self.contact = Contact(False, time.monotonic(), str(error))
            raise
        self.contact = Contact(True, time.monotonic())
        return answer

    async def _whole(self, request: Request) -> bytes:
        answer = await self._send(request)
        if not isinstance(answer, Response):
            raise ApiError(500, "InternalError", f"{request.method} {request.path} was answered with a stream")
        return checked(answer)

    async def _object(self, request: Request) -> dict[str, Any]:
        body = await self._whole(request)
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except UNDECODABLE:
            raise not_the_api(body) from None

    async def create(self, resource: str, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object; the object as it was stored."""
        return await self._object(requests.create(self._token, resource, namespace, body))

    async def list(self, resource: str, selection: Selection = ALL, *, limit: int = 0, continuation: str = "") -> bytes:
        """The selected objects of a resource, as the bytes of a List; with `limit`, a page of so many.

        `continuation` is `metadata.continue` of the page before. Gone when that is too old: begin again.
        """
        with_it = requests.page(self._token, resource, selection, limit, continuation)
        return await self._of_resource(resource, self._whole(with_it))

    async def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        """One object."""
        return await self._of_resource(resource, self._object(requests.get(self._token, resource, namespace, name)))

    async def _of_resource(self, resource: str, answer: Awaitable[T]) -> T:
        """The answer. A kind that kube-apiserver does not serve is not found in plain text, as by any server on the way: its discovery says
        whether it is that. NotFound then."""
        try:
            return await answer
        except ApiError as error:
            if error.code != HTTPStatus.NOT_FOUND or error.reason or await self._serves(resource):
                raise
            raise NotFound(error.code, "NotFound", f"the API does not serve {resource}") from None

    async def _serves(self, resource: str) -> bool:
        """Does the API say that it serves this resource? ApiError when it says nothing of that."""
        base = requests.path_of(resource).rpartition("/")[0]
        group_version = base.removeprefix(GROUPS)
        body = await self._whole(requests.plain(self._token, GROUPS.rstrip("/")))
        try:
            groups = msgspec.json.decode(body, type=_Groups).groups
        except UNDECODABLE:
            raise not_the_api(body) from None
        known = {one.group_version for group in groups for one in group.versions}
        return base == requests.CORE or group_version in known

    async def patch(
        self,
        resource: str,
        namespace: str,
        name: str,
        body: Mapping[str, Any],
        *,
        uid: str,
        subresource: str = "",
        form: str = MERGE_PATCH,
    ) -> dict[str, Any]:
        """Merge into an object, or one of its subresources, if it is still the one with this uid; the object as it is then."""
        body = {**body, "metadata": {**body.get("metadata", {}), "uid": uid}}
        return await self._object(requests.patch(self._token, resource, namespace, name, body, subresource, form))

    async def patch_status(self, resource: str, namespace: str, name: str, status: Mapping[str, Any], uid: str) -> None:
        """Merge into an object's status, if it is still the one with this uid."""
        await self.patch(resource, namespace, name, {"status": status}, uid=uid, subresource="status")

    async def patch_own_status(self, resource: str, namespace: str, name: str, status: Mapping[str, Any], uid: str) -> None:
        """The same by a strategic merge: elements of merged lists that the patch does not name (conditions of others) stay."""
        body = {"status": status, "metadata": {"uid": uid}}
        await self._whole(requests.patch(self._token, resource, namespace, name, body, "status", STRATEGIC_PATCH))

    async def patch_by(self, resource: str, namespace: str, name: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Change an object by a JSON patch (RFC 6902), whose tests say on what condition."""
        await self._whole(requests.patch(self._token, resource, namespace, name, operations, form=JSON_PATCH))

    async def bind(self, namespace: str, pod: str, uid: str, node: str) -> None:
        """Give a pod its node, if it is still the one with this uid."""
        await self._whole(requests.bind(self._token, namespace, pod, uid, node))

    async def post(self, resource: str, namespace: str, name: str, subresource: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create something through a subresource of an object (TokenRequest)."""
        path = requests.path_of(resource, namespace, name, subresource)
        return await self._object(requests.post(self._token, path, body))

    async def delete(
        self, resource: str, namespace: str, name: str, *, grace: int | None = None, uid: str = "", policy: str = ""
    ) -> None:
        """Delete an object, if it is still the one with this uid."""
        await self._whole(requests.delete(self._token, resource, namespace, name, grace=grace, uid=uid, policy=policy))

    async def watch(self, resource: str, resource_version: str, selection: Selection = ALL) -> AsyncIterator[bytes]:
        """The chunks of a watch of the selected objects. ApiError when it is refused (Gone: list again).

        Whoever stops reading before the end closes the chunks (`aclose`, where they have it).
        """
        answer = await self._send(requests.watch(self._token, resource, resource_version, selection))
        if isinstance(answer, Response):
            checked(answer)
        if not isinstance(answer, Stream):
            raise ApiError(500, "InternalError", f"the watch of {resource} was not answered with a stream")
        if answer.content_type.partition(";")[0].strip().lower() != JSON:
            await close(answer.chunks)
            raise ApiError(502, "BadGateway", f"the watch of {resource} was answered with {answer.content_type!r}, not {JSON}")
        return answer.chunks


async def close(chunks: AsyncIterator[bytes]) -> None:
    """End a stream early, so that its connection and the server's part of it go at once; idempotent."""
    aclose = getattr(chunks, "aclose", None)
    if aclose is not None:
        await aclose()

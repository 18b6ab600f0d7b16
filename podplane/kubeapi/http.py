"""The API over HTTPS for commands: one connection, blocking, of the standard library (a command's start must cost nothing)."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from podplane.kubeapi import requests
from podplane.kubeapi.access import Access
from podplane.kubeapi.errors import ApiError, NotFound, checked
from podplane.kubeapi.messages import Request, Response

TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.02
NOT_FOUND = 404


class HttpClient:
    """A blocking client with one user's credentials."""

    def __init__(self, access: Access, seconds: float = TIMEOUT_SECONDS, context: ssl.SSLContext | None = None) -> None:
        self.access = access
        self.viewer = ""
        """A token for readers of nodes (`kubeapi.authorization`), which is shown to those that are asked."""
        self.date = ""
        """The API's clock, as the last answer said it (RFC 9110, 6.6.1), whole seconds; "" where it says none."""
        self._context = context or access.context()
        self._connection = http.client.HTTPSConnection(access.host, access.port, timeout=seconds, context=self._context)

    @contextlib.contextmanager
    def another(self, seconds: float) -> Iterator[HttpClient]:
        """A client of the same user with a connection of its own, which waits for an answer no longer than this."""
        other = HttpClient(self.access, seconds, self._context)
        other.viewer = self.viewer
        try:
            yield other
        finally:
            other.close()

    @property
    def token(self) -> str:
        """The bearer token."""
        return self.access.bearer()

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._connection.close()

    def _whole(self, request: Request) -> bytes:
        """The body of the answer. ApiError when the API refuses, or does not answer."""
        try:
            headers = dict(request.headers)
            path = self.access.prefix + requests.target(request)
            self._connection.request(request.method, path, request.body or None, headers)
            answer = self._connection.getresponse()
            self.date = answer.headers.get("Date") or ""
            return checked(Response(answer.status, answer.read(), answer.headers.get_content_type()))
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ApiError(503, "ServiceUnavailable", f"the API at {self.access.address} does not answer: {error}") from None

    def failure(self, check: str) -> str:
        """Why a health check of the server fails; "" when it does not."""
        try:
            self._whole(requests.plain("", f"/readyz/{check}"))
        except ApiError as error:
            return str(error).removeprefix("internal server error: ")
        return ""

    def unforeseen(self) -> dict[str, Any]:
        """The errors of the server's process that nobody thought of (`apiserver.unforeseen`). ApiError from a server without them."""
        return _object(self._whole(requests.plain(self.token, "/debug/unforeseen")))

    def objects(self, resource: str, namespace: str = "", **query: str) -> list[dict[str, Any]]:
        """The objects of a resource, of one namespace or of all."""
        items: list[dict[str, Any]] = msgspec.json.decode(self.raw(resource, namespace, **query))["items"]
        return items

    def raw(self, resource: str, namespace: str = "", **query: str) -> bytes:
        """The objects of a resource as the bytes of a List. NotFound from an API that does not serve it."""
        try:
            return self._whole(requests.get(self.token, resource, namespace, **query))
        except ApiError as error:
            if error.code == NOT_FOUND and self._is_the_api():
                raise NotFound(NOT_FOUND, "NotFound", f"the API does not serve {resource}") from None
            raise

    def _is_the_api(self) -> bool:
        """What kube-apiserver does not serve is not found in plain text, as by any server on the way: is there a version of it?"""
        try:
            return bool(self.version())
        except (ApiError, msgspec.MsgspecError):
            return False

    def logs(self, namespace: str, pod: str, container: str) -> str:
        """What a container has written. ApiError when its node does not tell."""
        path = requests.path_of("pods", namespace, pod, "log")
        return self._whole(requests.plain(self.token, f"{path}?container={container}")).decode(errors="replace")

    def patch_list(
        self,
        resource: str,
        namespace: str,
        name: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        form: str,
        subresource: str = "",
    ) -> None:
        """Change elements of an object's lists, by a patch of another form than `patch` has."""
        self._whole(requests.patch(self.token, resource, namespace, name, body, subresource, form))

    def patch(self, resource: str, namespace: str, name: str, body: Mapping[str, Any], subresource: str = "") -> dict[str, Any]:
        """Change an object by a merge patch; as it was stored."""
        return _object(self._whole(requests.patch(self.token, resource, namespace, name, body, subresource)))

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        """One object."""
        return _object(self._whole(requests.get(self.token, resource, namespace, name)))

    def of_node(self, node: str, port: int, path: str) -> Any:
        """What a node answers over HTTP, as JSON. ApiError when it is something else."""
        try:
            return msgspec.json.decode(self.of_node_raw(node, port, path))
        except msgspec.DecodeError as error:
            raise ApiError(
                502, "BadGateway", f"port {port} of node {node} does not answer {path} as its agent does: {error}"
            ) from None

    def of_node_raw(self, node: str, port: int, path: str) -> bytes:
        """What a node answers over HTTP."""
        return self._whole(requests.of_node(self.token, node, port, path, self.viewer))

    def viewer_token(self, seconds: int) -> str:
        """A token for readers of nodes, good for so long. ApiError: NotFound where the cluster has no account of readers."""
        found = _object(self._whole(requests.viewer_token(self.token, seconds)))
        return str((found.get("status") or {}).get("token") or "")

    def version(self) -> str:
        """That of the API server, as it says itself."""
        return str(_object(self._whole(requests.plain(self.token, "/version"))).get("gitVersion") or "")

    def create(self, resource: str, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object; as it was stored."""
        return _object(self._whole(requests.create(self.token, resource, namespace, body)))

    def delete(
        self, resource: str, namespace: str, name: str, *, grace: int | None = None, uid: str = "", policy: str = ""
    ) -> None:
        """Delete an object; `policy` says what becomes of its dependents, as `requests.delete` has it."""
        self._whole(requests.delete(self.token, resource, namespace, name, grace=grace, uid=uid, policy=policy))

    def poll(
        self,
        resource: str,
        namespace: str,
        done: Callable[[list[dict[str, Any]]], bool],
        seconds: float,
        tell: Callable[[list[dict[str, Any]]], None] = lambda _: None,
    ) -> Iterator[list[dict[str, Any]]]:
        """Read the objects repeatedly, until `done` is true of them or `seconds` have passed; `tell` what is there while it is not."""
        end = time.monotonic() + seconds
        while True:
            objects = self.objects(resource, namespace)
            yield objects
            if done(objects) or time.monotonic() > end:
                return
            tell(objects)
            time.sleep(POLL_SECONDS)


def _object(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])

"""The API over HTTP for commands: one connection, blocking, of the standard library (a command's start must cost nothing)."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from podplane.cluster import requests
from podplane.cluster.errors import ApiError, checked
from podplane.cluster.messages import Request, Response

TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.02


class HttpClient:
    """One user's way to an API server at `host`:`port`."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host, self.port, self.token = host, port, token
        self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._connection.close()

    def _whole(self, request: Request) -> bytes:
        """The body of the answer. ApiError when it is a refusal, or when nobody answers."""
        try:
            headers = dict(request.headers)
            self._connection.request(request.method, requests.target(request), request.body or None, headers)
            answer = self._connection.getresponse()
            return checked(Response(answer.status, answer.read(), answer.headers.get_content_type()))
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ApiError(503, "ServiceUnavailable", f"the API at {self.host}:{self.port} does not answer: {error}") from None

    def objects(self, resource: str, namespace: str = "", **query: str) -> list[dict[str, Any]]:
        """The objects of a resource, of one namespace or of all."""
        body = self._whole(requests.get(self.token, resource, namespace, **query))
        items: list[dict[str, Any]] = msgspec.json.decode(body)["items"]
        return items

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        """One object."""
        return _object(self._whole(requests.get(self.token, resource, namespace, name)))

    def create(self, resource: str, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object; as it was stored."""
        return _object(self._whole(requests.create(self.token, resource, namespace, body)))

    def delete(self, resource: str, namespace: str, name: str, *, grace: int | None = None, uid: str = "") -> None:
        """Delete an object."""
        self._whole(requests.delete(self.token, resource, namespace, name, grace=grace, uid=uid))

    def poll(
        self, resource: str, namespace: str, done: Callable[[list[dict[str, Any]]], bool], seconds: float
    ) -> Iterator[list[dict[str, Any]]]:
        """The objects again and again until `done` says so of them; ends also after so many seconds."""
        end = time.monotonic() + seconds
        while True:
            objects = self.objects(resource, namespace)
            yield objects
            if done(objects) or time.monotonic() > end:
                return
            time.sleep(POLL_SECONDS)


def _object(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])

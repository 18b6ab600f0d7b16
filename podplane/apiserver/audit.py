"""Who did what, as JSON lines of audit.k8s.io/v1 Event at the level Metadata: one line a request, when it is answered.

The file is bounded: at `MAX_BYTES` it becomes `<name>.1`, which replaces the former one.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from podplane.apiserver.identity import Attributes, User
from podplane.kubeapi.messages import Request
from podplane.kubeapi.requests import target

MAX_BYTES = 16 * 1024 * 1024
MAX_URI = 2048


class AuditLog:
    """An audit log in a file."""

    def __init__(self, path: Path, now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)) -> None:
        self._path = path
        self._now = now
        self._open()

    def _open(self) -> None:
        self._file = self._path.open("ab", buffering=0)
        self._path.chmod(0o600)
        self._size = self._file.tell()

    def record(self, request: Request, user: User, what: Attributes, code: int) -> None:
        """One request and its answer."""
        self.write(event(request, user, what, code, self._now()))

    def write(self, entry: dict[str, Any]) -> None:
        """One line."""
        line = msgspec.json.encode(entry) + b"\n"
        self._file.write(line)
        self._size += len(line)
        if self._size > MAX_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def event(request: Request, user: User, what: Attributes, code: int, now: datetime.datetime) -> dict[str, Any]:
    """The line of a request; tokens and bodies are not in it."""
    entry: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": str(uuid.uuid4()),
        "stage": "ResponseComplete",
        "requestURI": target(request)[:MAX_URI],
        "verb": what.verb,
        "user": user.info(),
        "sourceIPs": [request.source] if request.source else [],
        "userAgent": request.headers.get("user-agent", "")[:256],
        "responseStatus": {"code": code},
        "stageTimestamp": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    if what.resource:
        reference = {
            "resource": what.resource,
            "namespace": what.namespace,
            "name": what.name,
            "apiGroup": what.group,
            "apiVersion": what.version,
            "subresource": what.subresource,
        }
        entry["objectRef"] = {key: value for key, value in reference.items() if value}
    return entry

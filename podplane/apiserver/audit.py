"""Who did what, as JSON lines of audit.k8s.io/v1 Event at the level Metadata: one line a request, when it is answered.

The file is bounded: at `MAX_BYTES` it becomes `<name>.1`, which replaces the former one. Lines that can't be written (the disk is full)
are lost, and counted: no request fails for them.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from podplane.apiserver.identity import Attributes, User
from podplane.kubeapi.messages import Request
from podplane.kubeapi.requests import target

log = logging.getLogger(__name__)
MAX_BYTES = 16 * 1024 * 1024
MAX_URI = 2048


class AuditLog:
    """An audit log in a file."""

    def __init__(self, path: Path, now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)) -> None:
        """OSError when the file can't be made."""
        self._path = path
        self._now = now
        self.lost = 0
        """Lines that could not be written, since the start."""
        self._is_failing = self._is_torn = False
        self._file: BinaryIO | None = None
        self._open()

    def _open(self) -> BinaryIO:
        file = self._path.open("ab", buffering=0)
        self._file, self._size = file, file.tell()
        os.fchmod(file.fileno(), 0o600)
        return file

    def record(self, request: Request, user: User, what: Attributes, code: int) -> None:
        """One request and its answer."""
        self.write(event(request, user, what, code, self._now()))

    def write(self, entry: dict[str, Any]) -> None:
        """One line; it is lost when there is no place for it."""
        try:
            self._append(msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            self.lost += 1
            if not self._is_failing:
                log.warning("audit lines are lost: %s: %s", self._path, error.strerror)
            self._is_failing = True
            return
        if self._is_failing:
            log.warning("audit lines are written again; lost=%d", self.lost)
        self._is_failing = False

    def _append(self, line: bytes) -> None:
        """Write it whole; a line of which only a part found place is ended before the next."""
        file = self._file or self._open()
        if self._is_torn:
            line = b"\n" + line
        written = file.write(line) or 0
        self._size += written
        if written < len(line):
            self._is_torn |= written > 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._is_torn = False
        if self._size > MAX_BYTES:
            self.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


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

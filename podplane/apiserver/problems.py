"""Refusals as Kubernetes `Status` objects, with the reason and the code that clients know (apimachinery, api/errors)."""

from __future__ import annotations

from typing import Any

import msgspec

from podplane.cluster.messages import Response

CODES = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "AlreadyExists": 409,
    "Conflict": 409,
    "Expired": 410,
    "RequestEntityTooLarge": 413,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "Timeout": 504,
}


class Problem(Exception):
    """A refusal: a reason of `CODES` and a message that says what and, where it helps, what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = CODES[reason]

    def status(self) -> dict[str, Any]:
        """The Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }

    def response(self) -> Response:
        """The Status as an answer."""
        return Response(self.code, msgspec.json.encode(self.status()))


def not_found(plural: str, name: str) -> Problem:
    """There is no object of this name."""
    return Problem("NotFound", f'{plural} "{name}" not found')

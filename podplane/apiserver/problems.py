"""Refusals as Kubernetes `Status` objects, with the reasons and codes that clients know (apimachinery, api/errors, field/errors)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from podplane.kubeapi.messages import Response

CODES = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "NotAcceptable": 406,
    "AlreadyExists": 409,
    "Conflict": 409,
    "Expired": 410,
    "RequestEntityTooLarge": 413,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "TooManyRequests": 429,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "Timeout": 504,
    "InsufficientStorage": 507,
}


class Cause(msgspec.Struct, frozen=True):
    """One thing that is wrong with an object: where, what kind of mistake, and in words."""

    field: str
    reason: str
    message: str

    @classmethod
    def required(cls, field: str, why: str = "") -> Cause:
        """Something must be said here."""
        return cls(field, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))

    @classmethod
    def invalid(cls, field: str, value: Any, why: str) -> Cause:
        """The value is none that can be here."""
        return cls(field, "FieldValueInvalid", f"Invalid value: {_quoted(value)}: {why}")

    @classmethod
    def unsupported(cls, field: str, value: Any, supported: Iterable[Any]) -> Cause:
        """The value is none of those that there are."""
        text = ", ".join(map(_quoted, supported))
        return cls(field, "FieldValueNotSupported", f"Unsupported value: {_quoted(value)}: supported values: {text}")

    @classmethod
    def duplicate(cls, field: str, value: Any) -> Cause:
        """It is there already."""
        return cls(field, "FieldValueDuplicate", f"Duplicate value: {_quoted(value)}")

    @classmethod
    def too_many(cls, field: str, count: int, most: int) -> Cause:
        """There are more than there may be."""
        return cls(field, "FieldValueTooMany", f"Too many: {count}: must have at most {most} items")

    @classmethod
    def forbidden(cls, field: str, why: str) -> Cause:
        """Nothing may be said here."""
        return cls(field, "FieldValueForbidden", f"Forbidden: {why}")

    @classmethod
    def immutable(cls, field: str, value: Any) -> Cause:
        """It can't be changed any more."""
        return cls.invalid(field, value, "field is immutable")


def _quoted(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else text[:200] + "…"


MAX_CAUSES = 300
"""Causes that a refusal says; nobody reads more, and each element of a body may have some."""


class Problem(Exception):
    """A refusal: a reason of `CODES` and a message that says what and, where it helps, what to do."""

    def __init__(self, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = CODES[reason]
        self.details = details

    def status(self) -> dict[str, Any]:
        """The Status object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
        }
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}

    def response(self) -> Response:
        """The Status as an answer."""
        return Response(self.code, msgspec.json.encode(self.status()))


def not_found(resource: str, name: str, group: str = "") -> Problem:
    """There is no object of this name; `resource` is the plural."""
    whole = f"{resource}.{group}" if group else resource
    return Problem("NotFound", f'{whole} "{name}" not found', _details(name, resource, group))


def invalid(kind: str, name: str, causes: Sequence[Cause], group: str = "") -> Problem:
    """The object is none that can be stored; says where, at most MAX_CAUSES times."""
    causes = causes[:MAX_CAUSES]
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = _details(name, kind, group)
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    whole = f"{kind}.{group}" if group else kind
    return Problem("Invalid", f'{whole} "{name}" is invalid: {text}', details)


def _details(name: str, kind: str, group: str) -> dict[str, Any]:
    return {"name": name} | ({"group": group} if group else {}) | {"kind": kind}

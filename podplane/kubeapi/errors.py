"""Errors of the API as exceptions, one class for each decision that a caller takes."""

from __future__ import annotations

import msgspec

from podplane.kubeapi.messages import Response


class Cause(msgspec.Struct):
    """meta/v1 StatusCause, as far as clients read it."""

    reason: str = ""


class Details(msgspec.Struct):
    """meta/v1 StatusDetails, as far as clients read it."""

    causes: list[Cause] = []


class Status(msgspec.Struct):
    """meta/v1 Status, as far as clients read it."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: Details | None = None


STATUS = msgspec.json.Decoder(Status)
"""Made here, before there are threads that need it: msgspec learns about a type at its first use, which is not safe among threads."""


class ApiError(Exception):
    """The API refused a request: HTTP `code`, the machine-readable `reason`, and the server's message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message or f"the API answered {code}")
        self.code, self.reason = code, reason


class NotFound(ApiError):
    """There is no such object."""


class AlreadyExists(ApiError):
    """An object of this name is there already."""


class Conflict(ApiError):
    """The object was changed meanwhile, or replaced by another one of its name."""


class Terminating(ApiError):
    """The namespace is being deleted: nothing can be created in it any more."""


class Gone(ApiError):
    """The server has no history since this version any more: list again."""


class Unwritable(Exception):
    """A store can write nothing now, nothing of this transaction either. `is_full`: no space is left; else somebody holds the file, say."""

    def __init__(self, why: str, *, is_full: bool) -> None:
        super().__init__(why)
        self.is_full = is_full


GONE = 410
UNWRITABLE = (503, 507)
"""Codes of a server that can write nothing at all now (RFC 9110, 15.6.4; RFC 4918, 11.5)."""
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding JSON from outside raises."""
KINDS: dict[str, type[ApiError]] = {
    "NotFound": NotFound,
    "AlreadyExists": AlreadyExists,
    "Conflict": Conflict,
    "Expired": Gone,
    "Gone": Gone,
}


def error_of(status: Status) -> ApiError:
    """The exception of a Status. 410 means Gone whatever the reason (client-go, apierrors.IsGone)."""
    kind = KINDS.get(status.reason, Gone if status.code == GONE else ApiError)
    if status.details is not None and any(cause.reason == "NamespaceTerminating" for cause in status.details.causes):
        kind = Terminating
    return kind(status.code, status.reason, status.message)


def not_the_api(body: bytes) -> ApiError:
    """The exception of a good answer that is none of the API, such as a proxy's login page."""
    return ApiError(502, "BadGateway", f"the answer is not the API's: {body[:80].decode(errors='replace')!r}")


def checked(response: Response) -> bytes:
    """The body of a successful answer. ApiError for any other."""
    if response.status < 400:
        return response.body
    try:
        status = STATUS.decode(response.body)
    except UNDECODABLE:
        status = Status(message=response.body.decode(errors="replace").strip())
    status.code = response.status
    raise error_of(status)


def without_paths(error: BaseException) -> str:
    """An error in one line for the owner of an object, who is not to learn of the machine's paths that an OSError names."""
    return error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())


def described(error: BaseException, *, with_paths: bool = True) -> str:
    """An error in one line, with its class."""
    text = " ".join(str(error).split()) if with_paths else without_paths(error)
    return f"{type(error).__name__}: {text}".removesuffix(": ")

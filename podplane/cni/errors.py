"""Errors of the CNI specification 1.1.0 (section 5, Error), and those of podplane's own from 100 on. Pure."""

from __future__ import annotations

from enum import IntEnum

import msgspec

MOST_CHARACTERS = 8192
"""Of a message and of details: what a caller sent comes back shortened."""


class Code(IntEnum):
    """Which kind of error: what the caller may do about it."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    NOT_DECODED = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    REFUSED = 100
    """The node's network can't do what was asked for."""
    ATTACHED = 101
    """The interface is attached already."""
    FAULTY = 102
    """CHECK found that something is not as it should be."""
    INTERNAL = 103
    """A fault of podplane's own; the agent's log says more."""


class CniError(Exception):
    """What a call is answered when it fails: `code`, one line, and more lines where there is more to say."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


def render(error: CniError, version: str) -> bytes:
    """The error as JSON, for a caller that speaks this version."""
    fields = {"cniVersion": version, "code": int(error.code), "msg": shortened(error.message)}
    if error.details:
        fields["details"] = shortened(error.details)
    return msgspec.json.encode(fields)


def shortened(text: str) -> str:
    """The text, or its beginning; what is not text for JSON (lone surrogates) is replaced."""
    clean = text[: MOST_CHARACTERS + 1].encode(errors="replace").decode()
    return clean if len(clean) <= MOST_CHARACTERS else clean[: MOST_CHARACTERS - 1] + "…"

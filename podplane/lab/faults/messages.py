"""How a command and a lab talk about faults: JSON in annotations of the Node, so that there is no second API.

FAULT           the command writes a Request
FAULT_ANSWERS   the lab writes the Answers to the last requests, the latest last
ACTIVE_FAULTS   the lab writes what is active
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from podplane.model.config import ACTIVE_FAULTS, FAULT, FAULT_ANSWERS

T = TypeVar("T")
ANSWERS = 8
"""So many answers are kept: several commands may wait for theirs at once."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make `fault` (or "clear"), which `id` tells from other requests."""

    id: str
    fault: str
    argument: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was done about a request, in a sentence; or why it couldn't be done."""

    id: str
    done: str = ""
    error: str = ""


class Active(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fault that was made and not undone, and what it was given: times as in RFC 3339; `until` "" when it does not end by itself."""

    fault: str
    since: str
    until: str = ""
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.fault} {self.argument}".strip()


def request_body(request: Request) -> dict[str, Any]:
    """The patch that asks for a fault."""
    return _annotation(FAULT, request)


def answers_body(answers: list[Answer]) -> dict[str, Any]:
    """The patch that answers."""
    return _annotation(FAULT_ANSWERS, answers[-ANSWERS:])


def active_body(active: list[Active]) -> dict[str, Any]:
    """The patch that says what is active: without anything, there is no annotation."""
    return _annotation(ACTIVE_FAULTS, active) if active else {"metadata": {"annotations": {ACTIVE_FAULTS: None}}}


def _annotation(name: str, value: object) -> dict[str, Any]:
    return {"metadata": {"annotations": {name: msgspec.json.encode(value).decode()}}}


def request_of(annotations: Mapping[str, str]) -> Request | None:
    """What is asked for. ValueError (msgspec.ValidationError is one) when that makes no sense."""
    text = annotations.get(FAULT, "")
    return msgspec.json.decode(text, type=Request) if text else None


def answer_to(id_: str, annotations: Mapping[str, str]) -> Answer | None:
    """The answer to a request, if it is there."""
    return next((answer for answer in _list(annotations, FAULT_ANSWERS, Answer) if answer.id == id_), None)


def active_of(annotations: Mapping[str, str]) -> list[Active]:
    """What is active."""
    return _list(annotations, ACTIVE_FAULTS, Active)


def _list(annotations: Mapping[str, str], name: str, item: type[T]) -> list[T]:
    """What the lab wrote in an annotation; nothing, where somebody else wrote something else there: the lab writes it anew."""
    try:
        return msgspec.json.decode(annotations.get(name) or "[]", type=list[item])  # type: ignore[valid-type]
    except ValueError:
        return []

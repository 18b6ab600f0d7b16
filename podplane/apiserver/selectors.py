"""Label and field selectors of list and watch: text in, a predicate over stored objects out.

Label selectors: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, `a>1`, `a<1` (apimachinery, labels/selector.go). Field
selectors: `path=value`, `path==value`, `path!=value`, on the fields that a resource names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from podplane.apiserver.problems import Problem

Object = dict[str, Any]
Predicate = Callable[[Object], bool]

NAME = r"[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?"
KEY = rf"(?P<key>(?:[a-z0-9][-a-z0-9.]*/)?{NAME})"
SET_TERM = re.compile(rf"{KEY}\s+(?P<how>in|notin)\s*\((?P<values>[^()]*)\)")
TERM = re.compile(rf"{KEY}\s*(?P<how>==|=|!=)\s*(?P<value>{NAME}|)")
COMPARISON = re.compile(rf"{KEY}\s*(?P<how>[<>])\s*(?P<value>-?\d+)")
EXISTS = re.compile(rf"(?P<absent>!?)\s*{KEY}")
VALUE = re.compile(f"{NAME}|")
NUMBER = re.compile(r"-?\d+")
FIELD_TERM = re.compile(r"(?P<key>[\w.]+)\s*(?P<how>==|=|!=)\s*(?P<value>[^\s!=(),]*)")
COMMA = re.compile(r",(?![^(]*\))")


def labels(text: str) -> Predicate:
    """The predicate of a label selector. Problem when it can't be read."""
    tests = [_label_term(term.strip()) for term in COMMA.split(text)]
    return lambda object_: all(test(object_["metadata"].get("labels") or {}) for test in tests)


def _label_term(term: str) -> Callable[[dict[str, str]], bool]:
    if found := SET_TERM.fullmatch(term):
        key, values = found["key"], {v.strip() for v in found["values"].split(",")}
        if all(map(VALUE.fullmatch, values)):
            return (lambda own: own.get(key) in values) if found["how"] == "in" else (lambda own: own.get(key) not in values)
    elif found := TERM.fullmatch(term):
        key, value = found["key"], found["value"]
        return (lambda own: own.get(key) != value) if found["how"] == "!=" else (lambda own: own.get(key) == value)
    elif found := COMPARISON.fullmatch(term):
        return _comparison(found["key"], found["how"], int(found["value"]))
    elif found := EXISTS.fullmatch(term):
        key, absent = found["key"], bool(found["absent"])
        return lambda own: (key in own) is not absent
    raise Problem("BadRequest", f"unable to parse the label selector term {term!r}: write a=b, a!=b, a in (b,c), a, !a or a>1")


def _comparison(key: str, how: str, than: int) -> Callable[[dict[str, str]], bool]:
    """Labels that are whole numbers above, or below, this one."""

    def test(own: dict[str, str]) -> bool:
        value = own.get(key, "")
        return bool(NUMBER.fullmatch(value)) and (int(value) > than if how == ">" else int(value) < than)

    return test


def fields(text: str, known: Collection[str]) -> Predicate:
    """The predicate of a field selector over the fields that the resource offers. Problem for any other."""
    tests = [_field_term(term.strip(), known) for term in text.split(",") if term.strip()]
    return lambda object_: all(test(object_) for test in tests)


def _field_term(term: str, known: Collection[str]) -> Predicate:
    found = FIELD_TERM.fullmatch(term)
    if found is None:
        raise Problem("BadRequest", f"unable to parse the field selector term {term!r}: write field=value or field!=value")
    if found["key"] not in known:
        raise Problem("BadRequest", f"field selector {found['key']}: supported here are {', '.join(sorted(known))}")
    path, value, wanted = found["key"].split("."), found["value"], found["how"] != "!="
    return lambda object_: (str(_at(object_, path)) == value) is wanted


def _at(object_: Any, path: list[str]) -> Any:
    for part in path:
        object_ = object_.get(part, "") if isinstance(object_, dict) else ""
    return object_


def both(*predicates: Predicate | None) -> Predicate | None:
    """All of those that are there; None when none is."""
    present = [p for p in predicates if p is not None]
    if not present:
        return None
    return lambda object_: all(p(object_) for p in present)

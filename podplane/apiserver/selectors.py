"""Label and field selectors of list and watch: text in, a predicate over stored objects out.

Label selectors: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, `a>1`, `a<1` (apimachinery, labels/selector.go). Field
selectors: `path=value`, `path==value`, `path!=value`, on the fields that a resource names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One term of a field selector: the field at `path` has this value, or hasn't (`equal`)."""

    path: str
    value: str
    equal: bool

    def predicate(self) -> Predicate:
        """The term as a predicate."""
        path, value, equal = self.path.split("."), self.value, self.equal
        return lambda object_: (str(_at(object_, path)) == value) is equal


def field_terms(text: str, known: Collection[str]) -> list[FieldTerm]:
    """The terms of a field selector over the fields that the resource offers. Problem for any other."""
    return [_field_term(term.strip(), known) for term in text.split(",") if term.strip()]


def _field_term(term: str, known: Collection[str]) -> FieldTerm:
    found = FIELD_TERM.fullmatch(term)
    if found is None:
        raise Problem("BadRequest", f"unable to parse the field selector term {term!r}: write field=value or field!=value")
    if found["key"] not in known:
        raise Problem("BadRequest", f"field selector {found['key']}: supported here are {', '.join(sorted(known))}")
    return FieldTerm(found["key"], found["value"], found["how"] != "!=")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or a watch is of: the objects of a namespace and of a name ("" is any), of those the ones that `wanted` is true of.

    The first two are looked up in indices; `wanted` costs a call for each object that is left, None is all of them.
    """

    namespace: str = ""
    name: str = ""
    wanted: Predicate | None = None

    @classmethod
    def of(cls, namespace: str, name: str, label: str, field: str, known: Collection[str]) -> Selection:
        """That of a path with a namespace and a name, and selectors. Problem when these can't be read."""
        predicates = [labels(label)] if label else []
        for term in field_terms(field, known):
            if term.equal and term.value and term.path == "metadata.name" and not name:
                name = term.value
            elif term.equal and term.value and term.path == "metadata.namespace" and not namespace:
                namespace = term.value
            else:
                predicates.append(term.predicate())
        return cls(namespace, name, both(*predicates))


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

"""Label and field selectors of list and watch: text in, a predicate over stored objects out.

Label selectors: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, `a>1`, `a<1` (apimachinery, labels/selector.go). Field
selectors: `path=value`, `path==value`, `path!=value`, on the fields that a resource names, without blanks, a backslash before each
comma, equals sign and backslash of a value (apimachinery, fields/selector.go).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import msgspec

from podplane.apiserver.kinds.selectable import NAME, NAMESPACE, Fields
from podplane.apiserver.problems import Problem

Object = dict[str, Any]
Predicate = Callable[[Object], bool]

LABEL = r"[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?"
PREFIX = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
KEY = rf"(?P<key>(?:{PREFIX}(?:\.{PREFIX})*/)?{LABEL})"
SET_TERM = re.compile(rf"{KEY}\s+(?P<how>in|notin)\s*\((?P<values>[^()]*)\)")
TERM = re.compile(rf"{KEY}\s*(?P<how>==|=|!=)\s*(?P<value>{LABEL}|)")
COMPARISON = re.compile(rf"{KEY}\s*(?P<how>[<>])\s*(?P<value>[0-9]{{1,18}})")
EXISTS = re.compile(rf"(?P<absent>!?)\s*{KEY}")
VALUE = re.compile(f"{LABEL}|")
NUMBER = re.compile(r"-?\d+")
FIELD_TERM = re.compile(r"(?P<key>.*?)(?P<how>!=|==|=)(?P<value>.*)", re.DOTALL)
FIELD_COMMA = re.compile(r"(?:[^\\,]|\\.|\\$)*", re.DOTALL)
SPECIAL = re.compile(r"\\.?|[,=]", re.DOTALL)
"""An escape, or a character that needs one."""
PARENTHESIS = re.compile(r"([()])")


def labels(text: str) -> Predicate:
    """The predicate of a label selector. Problem when it can't be read."""
    tests = [_label_term(term.strip()) for term in _label_terms(text)] if text.strip() else []
    return lambda object_: all(test(object_["metadata"].get("labels") or {}) for test in tests)


def _label_terms(text: str) -> list[str]:
    """The text between the commas, of which those before a `)` separate nothing."""
    terms: list[list[str]] = [[]]
    pieces = PARENTHESIS.split(text)
    for piece, parenthesis in itertools.zip_longest(pieces[::2], pieces[1::2], fillvalue=""):
        first, *more = [piece] if parenthesis == ")" else piece.split(",")
        terms[-1].append(first)
        terms += ([term] for term in more)
        terms[-1].append(parenthesis)
    return list(map("".join, terms))


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


class FieldTerm(msgspec.Struct, frozen=True):
    """One term of a field selector: the field of this name has this value, or hasn't (`equal`)."""

    path: str
    value: str
    equal: bool
    read: Callable[[Object], str]

    def predicate(self) -> Predicate:
        """The term as a predicate."""
        read, value, equal = self.read, self.value, self.equal
        return lambda object_: (read(object_) == value) is equal


def field_terms(text: str, known: Fields) -> list[FieldTerm]:
    """The terms of a field selector over the fields that the resource offers. Problem for any other."""
    return [_field_term(text, term, known) for term in sorted(FIELD_COMMA.findall(text)) if term]


def _field_term(whole: str, term: str, known: Fields) -> FieldTerm:
    found = FIELD_TERM.fullmatch(term)
    if found is None:
        raise Problem("BadRequest", f"invalid selector: '{whole}'; can't understand '{term}'")
    path, value = found["key"], _unescaped(found["value"])
    read = known.values.get(path)
    if read is None:
        raise Problem("BadRequest", known.refusal.format(path))
    return FieldTerm(path, value, found["how"] != "!=", read)


def _unescaped(value: str) -> str:
    """The value without the backslashes before commas, equals signs and backslashes, which can't be in it otherwise."""
    for found in SPECIAL.finditer(value):
        if found[0] in (",", "="):
            raise Problem("BadRequest", f"invalid field selector: unescaped character in value: {ord(found[0])}")
        if found[0][1:] not in ("\\", ",", "="):
            raise Problem("BadRequest", f"invalid field selector: invalid escape sequence: {found[0]}")
    return SPECIAL.sub(lambda found: found[0][1], value)


class Selection(msgspec.Struct, frozen=True):
    """What a list or a watch is of: the objects of a namespace and of a name ("" is any), of those the ones that `wanted` is true of.

    The first two are looked up in indices; `wanted` costs a call for each object that is left, None is all of them.
    """

    namespace: str = ""
    name: str = ""
    wanted: Predicate | None = None

    @classmethod
    def of(cls, namespace: str, name: str, label: str, field: str, known: Fields) -> Selection:
        """That of a path with a namespace and a name, and selectors. Problem when these can't be read."""
        predicates = [labels(label)] if label else []
        terms = field_terms(field, known)
        if name and terms and name != next((term.value for term in terms if term.path == NAME and term.equal), None):
            raise Problem("BadRequest", f"fieldSelector {NAME} doesn't match requested name")
        for term in terms:
            if term.equal and term.value and term.path == NAME and not name:
                name = term.value
            elif term.equal and term.value and term.path == NAMESPACE and not namespace:
                namespace = term.value
            else:
                predicates.append(term.predicate())
        return cls(namespace, name, both(*predicates))


def both(*predicates: Predicate | None) -> Predicate | None:
    """All of those that are there; None when none is."""
    present = [p for p in predicates if p is not None]
    if not present:
        return None
    return lambda object_: all(p(object_) for p in present)

"""Bodies in YAML: what a document says as JSON has it, and which keys it has twice, in one pass over the events of libyaml.

Nothing is composed of a document before its depth and size are known: libyaml's composer recurses, and PyYAML's constructor tries several
patterns on each node. Scalars mean what they mean to PyYAML, but as to sigs.k8s.io/yaml there are no dates, and no numbers to the base of
60 (1:30), which cost the square of their length, too. Unlike there, y and n, 1e3 and 08 are texts.
Aliases and merge keys are refused: a few lines of those can mean gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import yaml

from podplane.model import bounded_yaml

TAG = "tag:yaml.org,2002:"
LARGE_BYTES = 16 * 1024
"""More than this takes longer than an event loop should wait: some 0.3 µs a byte."""
SMALLEST, LARGEST = -(1 << 63), (1 << 64) - 1
"""Other whole numbers are read as JSON with a fraction are."""
PLAIN = {
    first: [(tag.removeprefix(TAG), pattern.match) for tag, pattern in resolvers if tag != f"{TAG}timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
"""First character of a scalar without quotes → what it may be, in order."""
BOOLEANS: Mapping[str, bool] = yaml.SafeLoader.bool_values
_NONE: Any = object()


class NotJson(ValueError):
    """A document says what JSON has no words for."""


class Document(msgspec.Struct, frozen=True):
    """What a document says, and the lines of keys that its mappings have already: (line, key)."""

    value: Any
    twice: tuple[tuple[int, str], ...] = ()


def read(data: bytes, depth: int, most: int) -> Document:
    """Read one document. bounded_yaml's TooDeep, TooMany and Aliased, NotJson or yaml.YAMLError when it can't be read."""
    builder = _Builder()
    for event in bounded_yaml.events(data, depth, most):
        match event:
            case yaml.ScalarEvent():
                builder.put(_scalar(event), event)
            case yaml.MappingStartEvent():
                builder.open({}, "map", event)
            case yaml.SequenceStartEvent():
                builder.open([], "seq", event)
            case yaml.CollectionEndEvent():
                builder.close()
            case yaml.DocumentStartEvent():
                builder.begin()
    return Document(builder.value, tuple(builder.twice))


class _Builder:
    """Puts values where they belong."""

    def __init__(self) -> None:
        self.value: Any = None
        self.twice: list[tuple[int, str]] = []
        self._outer: list[tuple[Any, Any]] = []
        """What is open around what is open, each with the key that it waits for the value of."""
        self._inner: Any = None
        self._key: Any = _NONE
        self._documents = 0

    def begin(self) -> None:
        """A document begins."""
        self._documents += 1
        if self._documents > 1:
            raise NotJson("expected a single document")

    def open(self, collection: Any, kind: str, event: Any) -> None:
        """A mapping or a sequence begins."""
        if event.tag not in (None, "!", TAG + kind):
            raise NotJson(f"line {_line(event)}: the tag {event.tag} has no meaning in JSON")
        if type(self._inner) is dict and self._key is _NONE:
            raise NotJson(f"line {_line(event)}: a key is a text, a number or a truth value")
        self._store(collection)
        self._outer.append((self._inner, self._key))
        self._inner, self._key = collection, _NONE

    def close(self) -> None:
        """The innermost one ends."""
        self._inner, self._key = self._outer.pop()
        if type(self._inner) is dict:
            self._key = _NONE

    def put(self, value: Any, event: Any) -> None:
        """A scalar: a key, or a value."""
        if type(self._inner) is not dict or self._key is not _NONE:
            self._store(value)
            if type(self._inner) is dict:
                self._key = _NONE
            return
        self._key = key = value if type(value) is str else _key(value)
        if key in self._inner:
            self.twice.append((_line(event), event.value))

    def _store(self, value: Any) -> None:
        if self._inner is None:
            self.value = value
        elif type(self._inner) is list:
            self._inner.append(value)
        else:
            self._inner[self._key] = value


def _line(event: Any) -> int:
    return (event.start_mark.line if event.start_mark is not None else 0) + 1


def _key(value: Any) -> str:
    """A key of an object of JSON."""
    return msgspec.json.encode(value).decode()


def _scalar(event: Any) -> Any:
    text: str = event.value
    if event.tag is not None and event.tag != "!":
        return _tagged(event, text)
    if event.implicit[0]:
        for kind, matches in PLAIN.get(text[:1], ()):
            if matches(text):
                return _MEANING.get(kind, str)(text)
    return text


def _tagged(event: Any, text: str) -> Any:
    kind = event.tag.removeprefix(TAG)
    if kind == "str":
        return text
    if kind in ("bool", "int", "float", "null"):
        for one, matches in PLAIN.get(text[:1], ()):
            if one == kind and matches(text):
                return _MEANING[kind](text)
    raise NotJson(f"line {_line(event)}: {text[:40]!r} with the tag {event.tag} has no meaning in JSON")


def _whole(text: str) -> Any:
    """A whole number (YAML 1.1, int): decimal, or to the base of 2, 8 or 16."""
    if ":" in text:
        return text
    digits = text.replace("_", "").lower()
    sign, digits = (-1 if digits[0] == "-" else 1), digits.lstrip("+-")
    base = 2 if digits.startswith("0b") else 16 if digits.startswith("0x") else 8 if digits[0] == "0" and digits != "0" else 10
    try:
        number = sign * int(digits, base)
        return number if SMALLEST <= number <= LARGEST else float(number)
    except (ValueError, OverflowError):  # no digits, or too many
        raise NotJson(f"{text[:40]!r} is no number of JSON") from None


def _fraction(text: str) -> Any:
    """A number with a fraction (YAML 1.1, float)."""
    if ":" in text:
        return text
    words = text.replace("_", "").lower()
    return _finite(float(words[:-4] + words[-3:] if words.endswith((".inf", ".nan")) else words), text)


def _finite(number: float, text: str) -> float:
    if not math.isfinite(number):
        raise NotJson(f"{text[:40]!r} is no number of JSON")
    return number


def _merge(text: str) -> Any:
    raise NotJson("it has a merge key (<<): write out what it means")


_MEANING: Mapping[str, Callable[[str], Any]] = {
    "bool": lambda text: BOOLEANS[text.lower()],
    "null": lambda text: None,
    "int": _whole,
    "float": _fraction,
    "merge": _merge,
    "value": str,
}

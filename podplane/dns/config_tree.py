"""The document in a text of YAML, for configurations: put together event by event, so that a long one never holds up other threads for
long, and a deep one can't end the process.

Of what has no quotes, `true` and `false`, whole numbers and nothing are what they look like, and all else is text. So `no` is a name, and
`1:2:3:4:5:6:7:8` an address (YAML 1.2, 10.3; in 1.1 they are a truth value and a number).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from podplane.model import bounded_yaml

MAX_DEPTH, MAX_VALUES = 8, 50_000
NUMBER = re.compile(r"-?[0-9]{1,18}")
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


class TreeError(ValueError):
    """The text is no such document. `line` is 0 when it is about all of it."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.line = line


def read(text: str) -> Any:
    """The document; None when there is none. TreeError when it can't be read."""
    tree = _Tree()
    try:
        for event in bounded_yaml.events(text, MAX_DEPTH, MAX_VALUES):
            tree.take(event)
    except (bounded_yaml.TooDeep, bounded_yaml.TooMany, bounded_yaml.Aliased) as error:
        raise TreeError(f"the configuration {error}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise TreeError(f"the configuration is not YAML: {' '.join(str(error).split())}") from None
    return tree.document


class _Tree:
    """A document that grows."""

    def __init__(self) -> None:
        self.document: Any = None
        self._documents = 0
        self._open: list[dict[Any, Any] | list[Any]] = []
        self._keys: list[Any] = []
        """Of each mapping that is open, the key whose value comes next; `_NONE` when a key does."""

    def take(self, event: Any) -> None:
        """The next event."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise TreeError("there is a second document", _line(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            if isinstance(self._open.pop(), dict):
                self._keys.pop()
        elif isinstance(event, yaml.ScalarEvent):
            self._put(_scalar(event), event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)

    def _begin(self, event: Any) -> None:
        if event.tag is not None:
            raise TreeError(f"there is a tag, {event.tag}", _line(event))
        new: dict[Any, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._put(new, event)
        self._open.append(new)
        if isinstance(new, dict):
            self._keys.append(_NONE)

    def _put(self, value: Any, event: Any) -> None:
        if not self._open:
            self.document = value
        elif isinstance(inner := self._open[-1], list):
            inner.append(value)
        elif self._keys[-1] is not _NONE:
            inner[self._keys[-1]] = value
            self._keys[-1] = _NONE
        elif isinstance(value, dict | list):
            raise TreeError("a key is a list, or has keys itself", _line(event))
        elif value in inner:
            raise TreeError(f"the key {value!r} is there twice", _line(event))
        else:
            self._keys[-1] = value


_NONE = object()


def _scalar(event: Any) -> Any:
    if event.tag is not None:
        raise TreeError(f"there is a tag, {event.tag}", _line(event))
    text: str = event.value
    if not event.implicit[0]:
        return text  # it has quotes
    return int(text) if NUMBER.fullmatch(text) else WORDS.get(text, text)


def _line(event: Any) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0

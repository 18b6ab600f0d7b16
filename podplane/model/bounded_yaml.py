"""YAML of strangers, before anything is composed of it: libyaml's composer recurses, and ends the process where a document is too deep.

A few lines of aliases can mean gigabytes, so there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml


class TooDeep(ValueError):
    """A document that is nested deeper than it may be."""


class TooMany(ValueError):
    """A document with more nodes than it may have."""


class Aliased(ValueError):
    """A document with aliases."""


def events(data: bytes | str, depth: int, most: int) -> Iterator[Any]:
    """The events of a document, as long as it can be composed. TooDeep, TooMany, Aliased or yaml.YAMLError when it can't be; nothing in
    it is nested by then."""
    level = 0
    for event in yaml.parse(data, Loader=yaml.CSafeLoader):
        most -= isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if most < 0:
            raise TooMany("has too many values")
        if isinstance(event, yaml.AliasEvent):
            raise Aliased("is YAML with aliases: write them out")
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > depth:
            raise TooDeep(f"is nested deeper than {depth} levels")
        yield event


def keys_twice(found: Iterable[Any]) -> Iterator[tuple[int, str]]:
    """(line, key) of each key that its mapping has already."""
    stack: list[set[str] | None] = []
    awaits_key: list[bool] = []
    for event in found:
        if isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
            awaits_key.pop()
        elif not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            continue  # the stream, and the document
        elif isinstance(event, yaml.ScalarEvent) and stack and (known := stack[-1]) is not None and awaits_key[-1]:
            if event.value in known:
                yield (event.start_mark.line if event.start_mark is not None else 0) + 1, event.value
            known.add(event.value)
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(set() if isinstance(event, yaml.MappingStartEvent) else None)
            awaits_key.append(True)
        elif stack and stack[-1] is not None:
            awaits_key[-1] = not awaits_key[-1]

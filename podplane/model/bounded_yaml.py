"""YAML of strangers, before anything is composed of it: libyaml's composer recurses, and ends the process where a document is too deep.

A few lines of aliases can mean gigabytes, so there are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class TooDeep(ValueError):
    """A document that is nested deeper than it may be."""


class TooMany(ValueError):
    """A document with more nodes than it may have."""


class Aliased(ValueError):
    """A document with aliases."""


def events(data: bytes | str, depth: int, most: int) -> Iterator[Any]:
    """The events of a document, as long as it can be composed. TooDeep, TooMany, Aliased or yaml.YAMLError when it can't be; nothing in
    it is nested by then."""
    import yaml  # costs a start that reads no YAML nothing

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

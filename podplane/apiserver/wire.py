"""How the fields of the published types are written: their numbers in protobuf, and what Go's JSON encoder leaves out or always writes.

The data file is made by `tools/wire.py` of the struct tags. What a server of Kubernetes stores has gone through these types, so an empty
value that may be left out is not there, and a zero that is always written is (encoding/json: `omitempty` concerns false, 0, an empty
text, list or map, and no pointer; a struct is never empty).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import msgspec

DATA = Path(__file__).parent / "data"


class Field(msgspec.Struct, frozen=True):
    """One field: the name in JSON, or that of a struct which is `inlined`; a pointer's zero is said; `omits` it when it is empty."""

    name: str
    is_pointer: bool = False
    omits: bool = False
    inlined: bool = False

    @classmethod
    def of(cls, mark: str) -> Field:
        """The field that a mark of the data file stands for."""
        name = mark.lstrip("*?=")
        marks = mark[: len(mark) - len(name)]
        return cls(name, "*" in marks, "?" in marks, "=" in marks)


class _Data(msgspec.Struct):
    structs: dict[str, dict[int, str]]


@functools.cache
def structs() -> dict[str, dict[int, Field]]:
    """Definition → number in protobuf → field."""
    found = msgspec.json.decode((DATA / "wire.json").read_bytes(), type=_Data).structs
    return {name: {number: Field.of(mark) for number, mark in marks.items()} for name, marks in found.items()}


def fields_of(definition: str) -> Iterator[Field]:
    """The fields of a definition, with those of what is inlined."""
    for field in structs().get(definition, {}).values():
        if field.inlined:
            yield from fields_of(inlined(definition, field))
        else:
            yield field


def inlined(definition: str, field: Field) -> str:
    """The definition of a struct that a field of another one inlines: it is of the same group."""
    return f"{definition.rpartition('.')[0]}.{field.name}"

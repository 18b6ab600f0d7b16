"""Fields that a body has twice, said as kube-apiserver says them, and told together with those that its kind does not know.

JSON: `duplicate field "spec.paused"`, in the order of the document. YAML: `line 12: key "paused" already set in map`. Of a built-in kind, a
field that is not known is that only, twice or not; of a custom resource, what is there twice comes first, then what is not known, sorted.
Sources: sigs.k8s.io/json (strict errors), apimachinery (serializer/json, runtime.NewStrictDecodingError), apiserver (endpoints/handlers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from podplane.kubeapi.errors import UNDECODABLE

if TYPE_CHECKING:
    from podplane.apiserver.yaml_bodies import Document

Fields = list[tuple[str, Any]]
BEGINS_PART = re.compile(r"[.\[]")
YAML_PREFIX = "yaml: unmarshal errors:"
MOST = 100
"""Fields that are there twice of which is told (sigs.k8s.io/json saves no more errors)."""
LONGEST = 1000
"""Characters of a path whose place is known; a field of a longer one comes first."""
OPERATION_FIELDS = ("op", "path", "from", "value")


class Twice(msgspec.Struct):
    """The fields that are in a body twice: paths in JSON, whole lines of text in YAML; and the place of each path in the document."""

    paths: list[str] = []
    lines: list[str] = []
    places: dict[str, int] = {}
    prefix: str = ""
    """Before each complaint: "json patch " of a JSON patch."""
    unknown: list[str] = []
    """Paths of what the body itself may not have, whatever its kind: fields of an operation of a JSON patch."""

    def complaints(self, unknown: Sequence[str], *, is_decoded: bool) -> list[str]:
        """What is wrong, with these fields that the kind does not know, in the order of kube-apiserver.

        `is_decoded`: the body was read as its kind in one go, as those of patches and of custom resources are not.
        """
        names = [_with_map_keys_as_fields(path) for path in unknown]
        if is_decoded and not self.lines:
            outer = _Within(names)
            paths = [path for path in self.paths if path not in outer]
            found = [(self.places[path], f'duplicate field "{path}"') for path in paths]
            found += [(self.places.get(name, 0), f'unknown field "{name}"') for name in names]
            return [text for _, text in sorted(found, key=lambda one: one[0])]
        own = [f'{self.prefix}duplicate field "{path}"' for path in self.paths]
        own += [f'{self.prefix}unknown field "{path}"' for path in self.unknown]
        return [*self.lines, *own, *(f'unknown field "{name}"' for name in sorted(names, key=_parts))]

    def refusal(self, complaints: Sequence[str], more: str) -> str:
        """The words of a refusal for these complaints."""
        of_yaml = set(self.lines)
        lines = [text for text in complaints if text in of_yaml]
        others = [text for text in complaints if text not in of_yaml]
        said = ["\n  ".join([YAML_PREFIX, *lines])] if lines else []
        return "strict decoding error: " + ", ".join([*said, *others]) + more


def _with_map_keys_as_fields(path: str) -> str:
    """`a[key].b[0]` of field errors as `a.key.b[0]`: a key of a map is a field like others here."""
    *closed, rest = path.split("]")
    found = []
    for text in closed:
        before, bracket, key = text.partition("[")
        found.append(f"{before}.{key}" if bracket and key and not key.isdecimal() else f"{text}]")
    return "".join([*found, rest])


class _Within:
    """The paths that are one of these, or inside of one. Asking costs the length of the path, however many these are."""

    def __init__(self, outer: Iterable[str]) -> None:
        self._outer = set(outer)
        self._lengths = set(map(len, self._outer))

    def __contains__(self, path: str) -> bool:
        ends = (*(found.start() for found in BEGINS_PART.finditer(path)), len(path))
        return any(end in self._lengths and path[:end] in self._outer for end in ends)


def _parts(path: str) -> list[str]:
    """A sort key: fields in the order of their names, as they are after a turn through a map of Go's."""
    return re.split(r"[.\[\]]+", path)


class _Object(dict[str, Any]):
    """An object of JSON that has a field twice; the last one counts."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.fields = fields


def is_plain(data: bytes) -> bool:
    """Is this JSON, and the same bytes when it is read and written again? Then no field is there twice. Nearly all clients write so, and
    it takes a twentieth of the time of `in_json`."""
    try:
        return msgspec.json.encode(msgspec.json.decode(data)) == data.rstrip(b"\n")
    except UNDECODABLE:
        return False


def in_json(data: bytes, *, is_patch: bool = False) -> Twice:
    """What a body in JSON has twice; nothing for one that is no JSON, which is refused elsewhere, with better words."""
    found: list[_Object] = []

    def pairs(fields: Fields) -> dict[str, Any]:
        object_ = dict(fields)
        if len(object_) != len(fields):
            found.append(_Object(fields))
            return found[-1]
        return object_

    twice = Twice(prefix="json patch " if is_patch else "")
    try:
        value = json.loads(data, object_pairs_hook=pairs)
        if is_patch and isinstance(value, list):
            twice.unknown = [
                f"[{i}].{name}"
                for i, operation in enumerate(value)
                if isinstance(operation, dict)
                for name in operation
                if name not in OPERATION_FIELDS
            ]
        if found or twice.unknown:
            _Walk(twice).over(value)
    except (ValueError, RecursionError):
        return Twice()
    return twice


class _Walk:
    """A walk through a document that has a field twice. It puts paths together where it needs them only: each of many fields below a
    long name has a long one."""

    def __init__(self, twice: Twice) -> None:
        self._twice = twice
        self._parts: list[str] = []
        self._again: set[tuple[str, ...]] = set()

    def over(self, value: Any, length: int = 0) -> None:
        """Note the places of the paths, and what is there twice; the path of this value has `length` characters."""
        if isinstance(value, list):
            for i, inner in enumerate(value):
                self._below(f"[{i}]", inner, length)
        elif isinstance(value, dict):
            seen: set[str] = set()
            for name, inner in value.fields if isinstance(value, _Object) else value.items():
                self._below(f".{name}" if length else name, inner, length, name in seen)
                seen.add(name)

    def _below(self, part: str, value: Any, length: int, is_again: bool | None = None) -> None:
        """One value below another; `is_again` says of a field whether it was there before."""
        self._parts.append(part)
        length += len(part)
        if is_again:
            self._note()
        if is_again is not None and length <= LONGEST:
            self._twice.places.setdefault("".join(self._parts), len(self._twice.places))
        self.over(value, length)
        self._parts.pop()

    def _note(self) -> None:
        parts = tuple(self._parts)
        if parts in self._again or len(self._again) == MOST:
            return
        self._again.add(parts)
        path = "".join(parts)
        if path not in self._twice.paths:
            self._twice.paths.append(path)
            self._twice.places[path] = len(self._twice.places)


def in_yaml(document: Document) -> Twice:
    """What a body in YAML has twice."""
    return Twice(lines=[f'line {line}: key "{key}" already set in map' for line, key in document.twice])

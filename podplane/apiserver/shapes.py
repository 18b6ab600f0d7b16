"""Shapes of objects: field names, types, defaults and merge keys, made of schemas; and how an object is made to fit one.

The schemas of the built-in kinds come from one data file (`tools/shapes.py` derives it from the published OpenAPI document of
Kubernetes); those of custom resources from their CustomResourceDefinition. A shape is a schema that is ready to be walked: references
are resolved, each node knows its own name for its type.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from podplane.apiserver import scalars, wire
from podplane.apiserver.problems import Cause
from podplane.model import quantity

Schema = Mapping[str, Any]
PREFIX = "#/definitions/"
MAX_DEFAULTS_BYTES = 3 * 1024 * 1024
"""What the defaults of one object may take, as much as a request: a few bytes of a body may ask for a large one each."""
NOTHING: Any = msgspec.UNSET
"""No default."""
ANY, OBJECT, MAP, LIST, STRING, INTEGER, NUMBER, BOOLEAN, INT_OR_STRING, QUANTITY, ANY_OBJECT = (
    "any",
    "object",
    "map",
    "list",
    "string",
    "integer",
    "number",
    "boolean",
    "int-or-string",
    "quantity",
    "any object",
)
SCHEMA_OR = "schema or"
"""A schema of a custom kind, or what may stand in its place (`IN_PLACE`)."""
SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
IN_PLACE: dict[str, tuple[type, type]] = {
    SCHEMA + "OrBool": (bool, bool),
    SCHEMA + "OrArray": (list, dict),
    SCHEMA + "OrStringArray": (list, str),
}
"""By definition: a type, and that of the elements of a list."""
ZEROS: dict[str, Any] = {STRING: "", INTEGER: 0, NUMBER: 0, BOOLEAN: False, INT_OR_STRING: 0, QUANTITY: "0"}
STRUCTS = (OBJECT, ANY_OBJECT, INT_OR_STRING, QUANTITY)
"""Kinds of what is a struct in Go, and so never empty there."""
STATUS = "status"
NULLABLE = ("date-time", "byte")
"""Formats whose zero is null, which means that nothing is said."""
QUANTITY_TEXT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?", re.ASCII)
BITS = {"int32": 31, "int64": 63}
NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}
WANTED = {
    OBJECT: "an object",
    MAP: "an object",
    ANY_OBJECT: "an object",
    LIST: "a list",
    STRING: "a string",
    INTEGER: "an integer",
    NUMBER: "a number",
    BOOLEAN: "a boolean",
    INT_OR_STRING: "an integer or a string",
    QUANTITY: "a quantity",
    SCHEMA_OR: "a schema",
}


@dataclass(slots=True, eq=False)
class Shape:
    """What one value may be: `fields` are an object's, `items` what is in a list or map; markers are Kubernetes' own.

    `keeps_unknown`: fields without a name here stay. `unique`: the keys of a list may not be there twice.
    """

    kind: str
    format: str = ""
    fields: dict[str, Shape] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    demanded: tuple[str, ...] = ()
    """What of that is asked for: a list of a built-in kind is not, since one that is not there is an empty one in Go."""
    items: Shape | None = None
    enum: tuple[Any, ...] = ()
    default: Any = NOTHING
    list_type: str = ""
    map_keys: tuple[str, ...] = ()
    merge_key: str = ""
    strategies: tuple[str, ...] = ()
    keeps_unknown: bool = False
    unique: bool = False
    definition: str = ""
    """The definition's name, of what has one."""
    defaults: tuple[tuple[str, bytes], ...] = ()
    """Of the fields that have one: name and default, as JSON."""
    omits: bool = False
    """Of a field: is it left out when it is empty?"""
    zeros: dict[str, Shape] = field(default_factory=dict)
    """The fields that are always written; shared with copies of the shape, as `fields` is."""

    def zero(self) -> Any:
        """What an always written field of this shape has when nothing is said."""
        return {name: one.zero() for name, one in self.zeros.items()} if self.kind == OBJECT else ZEROS[self.kind]


class Library:
    """Definitions by name, compiled when they are first asked for."""

    def __init__(self, definitions: Mapping[str, Schema], *, is_custom: bool = False) -> None:
        """`is_custom`: they are of custom kinds, where the keys of a list are looked at here and lists may be demanded."""
        self.definitions = definitions
        self._is_custom = is_custom
        self._shapes: dict[str, Shape] = {}

    def shape(self, name: str) -> Shape:
        """The shape of a definition. KeyError when there is none."""
        found = self._shapes.get(name)
        if found is None:
            schema = self.definitions[name]
            kind = OBJECT if wire.structs().get(name) == {} else _kind(schema)  # a struct without fields has no field, not any
            found = self._shapes[name] = Shape(SCHEMA_OR if name in IN_PLACE else kind, definition=name)
            self._fill(found, schema)
            if name in IN_PLACE:
                found.items = self.shape(SCHEMA)
        return found

    def compile(self, schema: Schema) -> Shape:
        """The shape of a schema."""
        reference = schema.get("$ref")
        if reference is not None:
            shape = replace(self.shape(reference.removeprefix(PREFIX)))
            # What refers to itself is not whole yet: its fields are in the same dictionary when it is.
        else:
            shape = Shape(_kind(schema))
            self._fill(shape, schema)
        shape.default = schema.get("default", shape.default)
        shape.enum = tuple(schema.get("enum", shape.enum))
        shape.list_type = schema.get("x-kubernetes-list-type", "")
        shape.unique = self._is_custom and shape.list_type in ("map", "set")
        shape.map_keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
        shape.merge_key = schema.get("x-kubernetes-patch-merge-key", "")
        shape.strategies = tuple(filter(None, schema.get("x-kubernetes-patch-strategy", "").split(",")))
        return shape

    def _fill(self, shape: Shape, schema: Schema) -> None:
        shape.format = schema.get("format", "")
        shape.required = tuple(schema.get("required", ()))
        shape.keeps_unknown = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        inner = schema.get("items") or schema.get("additionalProperties")
        if isinstance(inner, Mapping):
            shape.items = self.compile(inner)
        if schema.get("x-kubernetes-embedded-resource"):
            shape.fields |= {name: builtin().shape(EMBEDDED).fields[name] for name in ("apiVersion", "kind", "metadata")}
        for name, one in schema.get("properties", {}).items():
            shape.fields[name] = self.compile(one)
        shape.demanded = tuple(
            name for name in shape.required if self._is_custom or name not in shape.fields or shape.fields[name].kind != LIST
        )
        for written in wire.fields_of(shape.definition):
            one = shape.fields.get(written.name)
            if one is not None and not written.is_pointer:
                one.omits = written.omits and one.kind not in STRUCTS
                if not one.omits and (one.kind == OBJECT or (one.kind in ZEROS and one.format not in NULLABLE)):
                    shape.zeros[written.name] = one
        shape.defaults = tuple(
            (name, msgspec.json.encode(one.default)) for name, one in shape.fields.items() if one.default is not NOTHING
        )


EMBEDDED = "io.k8s.api.core.v1.ConfigMap"
"""A definition with the fields of every object."""


def _kind(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    if schema.get("format") == "quantity":
        return QUANTITY
    kind = schema.get("type")
    if kind == "array":
        return LIST
    if kind == "object" or "properties" in schema:
        if "properties" in schema or schema.get("x-kubernetes-embedded-resource"):
            return OBJECT
        if isinstance(schema.get("additionalProperties"), Mapping):
            return MAP
        return ANY_OBJECT
    return kind or ANY


@functools.cache
def data() -> dict[str, Any]:
    """The data file: origin, licence, version of Kubernetes, definitions."""
    found: dict[str, Any] = msgspec.json.decode((wire.DATA / "shapes.json").read_bytes())
    return found


@functools.cache
def builtin() -> Library:
    """The built-in kinds' definitions."""
    return Library(data()["definitions"])


class Findings(msgspec.Struct):
    """What was wrong with an object: paths of unknown fields, values of the wrong type, and what is invalid."""

    unknown: list[str] = msgspec.field(default_factory=list)
    wrong: list[str] = msgspec.field(default_factory=list)
    causes: list[Cause] = msgspec.field(default_factory=list)
    room: int = MAX_DEFAULTS_BYTES
    """Bytes that are left for defaults; when there is none, the rest of them stays out."""

    @property
    def is_too_large(self) -> bool:
        """Are there defaults that had no room?"""
        return self.room < 0


def fit(shape: Shape, object_: dict[str, Any], *, status_too: bool = False) -> Findings:
    """Make an object fit: unknown fields and nulls go, defaults come. In place; says what it found.

    What is required is asked for in the status too only if so said: writers of the built-in kinds leave out there what is zero.
    """
    findings = Findings()
    status = None if status_too else object_.pop("status", None)
    _object(shape, object_, "", findings, complete=True)
    if status is not None:
        holder = {"status": status}
        only = Shape(OBJECT, fields={name: one for name, one in shape.fields.items() if name == "status"})
        _object(only, holder, "", findings, complete=False)
        object_ |= holder
    return findings


def _object(shape: Shape, value: dict[str, Any], path: str, findings: Findings, complete: bool) -> None:
    fields, dot = shape.fields, f"{path}." if path else ""
    gone: list[str] | None = None
    for name, inner in value.items():
        one = fields.get(name)
        if one is not None and inner is not None:
            _value(one, inner, value, name, dot + name, findings, complete)
            if value[name] is None or (one.omits and not value[name]):
                gone = gone or []
                gone.append(name)
        elif one is not None or not shape.keeps_unknown:
            gone = gone or []
            gone.append(name)
            if one is None:
                findings.unknown.append(dot + name)
    for name in gone or ():
        del value[name]
    if complete:
        for name, default in shape.defaults:
            if name not in value:
                findings.room -= len(name) + len(default)
                if findings.room < 0:
                    break
                value[name] = msgspec.json.decode(default)
                one = fields[name]
                if one.kind == OBJECT:
                    _object(one, value[name], dot + name, findings, complete)
        for name in shape.demanded:
            if name not in value:
                findings.causes.append(Cause.required(dot + name))
    for name, one in shape.zeros.items():
        if name not in value:
            value[name] = one.zero()
            if complete and one.kind == OBJECT and (dot or name != STATUS):
                _object(one, value[name], dot + name, findings, complete)


def _value(
    shape: Shape, value: Any, holder: Any, key: str | int, path: str, findings: Findings, complete: bool
) -> None:  # the hot path: one call a value
    kind, found = shape.kind, type(value)
    if kind == STRING:
        fits = found is str
        if fits and shape.format:
            _settle_text(shape, holder, key, path, findings)
    elif kind == OBJECT:
        if fits := found is dict:
            _object(shape, value, path, findings, complete)
    elif kind == LIST:
        if fits := found is list:
            _list(shape, value, path, findings, complete)
    elif kind == MAP:
        if fits := found is dict:
            _map(shape, value, path, findings, complete)
    elif kind == INTEGER:
        fits = found is int and -1 << BITS.get(shape.format, 63) <= value < 1 << BITS.get(shape.format, 63)
    elif kind == BOOLEAN:
        fits = found is bool
    else:
        fits = _fits_rare(kind, value) if kind != SCHEMA_OR else _schema_or(shape, value, path, findings, complete)
        if fits and kind == QUANTITY:
            fits = _settle_quantity(holder, key)
    if not fits:
        findings.wrong.append(f"{path}: must be {WANTED[kind]}, not {_said(value, kind)}")
    elif shape.enum and value not in shape.enum:
        if value != "":
            findings.causes.append(Cause.unsupported(path, value, shape.enum))
        elif shape.default is not NOTHING:
            holder[key] = shape.default  # an empty text says nothing


def _said(value: Any, kind: str) -> str:
    if kind == QUANTITY and isinstance(value, str):
        return repr(value)
    return str(value) if kind == INTEGER and type(value) in (int, float) else NAMES.get(type(value), "null")


def _fits_rare(kind: str, value: Any) -> bool:
    found = type(value)
    if kind == INT_OR_STRING:
        return found is str or (found is int and -1 << 31 <= value < 1 << 31)
    if kind == NUMBER:
        return found in (int, float)
    if kind == QUANTITY:
        return found in (int, float) or (found is str and QUANTITY_TEXT.fullmatch(value) is not None)
    return kind == ANY or found is dict


def _schema_or(shape: Shape, value: Any, path: str, findings: Findings, complete: bool) -> bool:
    """Does a value fit that is a schema, or what may stand in its place? Fields that are not known go unsaid, as with Kubernetes, whose
    strict decoder does not look into what decodes itself."""
    kind, inner = IN_PLACE[shape.definition]
    schemas = [(path, value)] if type(value) is dict else []
    if type(value) is list and kind is list:
        if any(type(one) is not inner for one in value):
            return False
        schemas = [(f"{path}[{i}]", one) for i, one in enumerate(value) if type(one) is dict]
    elif type(value) not in (dict, kind):
        return False
    known = len(findings.unknown)
    for where, schema in schemas:
        if shape.items is not None:
            _object(shape.items, schema, where, findings, complete)
    del findings.unknown[known:]
    return True


def _list(shape: Shape, value: list[Any], path: str, findings: Findings, complete: bool) -> None:
    items = shape.items
    if items is None:
        return
    for i, inner in enumerate(value):
        _value(items, inner, value, i, f"{path}[{i}]", findings, complete)
    if shape.unique and len(value) > 1:
        _check_unique(shape, value, path, findings)


def _map(shape: Shape, value: dict[str, Any], path: str, findings: Findings, complete: bool) -> None:
    items = shape.items
    if items is None:
        return
    for name in [name for name, inner in value.items() if inner is None]:
        del value[name]
    for name, inner in value.items():
        _value(items, inner, value, name, f"{path}[{name}]", findings, complete)
        if items.kind == QUANTITY and not findings.wrong:
            value[name] = quantity.rounded(value[name])


def _check_unique(shape: Shape, value: list[Any], path: str, findings: Findings) -> None:
    """Each element of a set, and each key of a list that is a map, is there once."""
    seen: set[str] = set()
    for i, inner in enumerate(value):
        if shape.list_type == "map":
            if not isinstance(inner, dict):
                continue
            identity = {key: inner.get(key, _default_of(shape.items, key)) for key in shape.map_keys}
            shown: Any = identity if len(identity) > 1 else next(iter(identity.values()), "")
        else:
            shown = inner
        text = repr(shown)
        if text in seen:
            findings.causes.append(Cause.duplicate(f"{path}[{i}]", shown))
        seen.add(text)


def _default_of(shape: Shape | None, key: str) -> Any:
    one = shape.fields.get(key) if shape else None
    return None if one is None or one.default is NOTHING else one.default


def _settle_quantity(holder: Any, key: str | int) -> bool:
    """A quantity, as it is stored; False when it is out of range."""
    try:
        holder[key] = quantity.canonical(str(holder[key]))
    except ValueError:
        return False
    return True


def _settle_text(shape: Shape, holder: Any, key: str | int, path: str, findings: Findings) -> None:
    """A text that has a format, as it is stored."""
    value = holder[key]
    try:
        if shape.format == "date-time" and shape.definition:
            holder[key] = scalars.time(value, micro=shape.definition.endswith("MicroTime"))
        elif shape.format == "date-time":
            scalars.check_date_time(value)
        elif shape.format == "byte":
            holder[key] = scalars.base64_text(value)
    except ValueError as error:
        findings.wrong.append(
            f"{path}: {error if shape.definition or shape.format == 'byte' else f'{value!r} is not a time (RFC 3339)'}"
        )

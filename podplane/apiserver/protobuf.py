"""Objects as protobuf, which kubectl's typed clients send: read by the shapes, and by the numbers that fields have on the wire.

A body is `k8s\\0` and a runtime.Unknown {1: TypeMeta {1: apiVersion, 2: kind}, 2: the object} (apimachinery, runtime/generated.proto and
serializer/protobuf). Go writes out fields that aren't pointers even if they are zero; there a zero means that nothing was said. Fields
that are not known are passed over, as protobuf demands. Answers are JSON, which all clients take.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from podplane.apiserver import scalars, shapes, wire
from podplane.apiserver.shapes import Shape
from podplane.kubeapi.errors import UNDECODABLE

Object = dict[str, Any]
TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
NUMBERS = (shapes.INTEGER, shapes.BOOLEAN)
MAX_VALUES = 100_000
"""Fields and packed numbers of one body: an empty element takes two bytes here, and far more once it is an object."""


class ProtobufError(ValueError):
    """The bytes are no such message."""


class TooMany(ProtobufError):
    """The message has more values than one may have."""


class _Budget(msgspec.Struct):
    """How many more values the body may have."""

    left: int = MAX_VALUES

    def take(self, count: int = 1) -> None:
        """So many more values. TooMany when that is more than are left."""
        self.left -= count
        if self.left < 0:
            raise TooMany(f"it has more than {MAX_VALUES} values")


@functools.cache
def _kinds() -> dict[tuple[str, str], str]:
    """(apiVersion, kind) → definition."""
    return {
        (f"{gvk['group']}/{gvk['version']}".lstrip("/"), gvk["kind"]): name
        for name, schema in shapes.builtin().definitions.items()
        for gvk in schema.get("x-kubernetes-group-version-kind", ())
    }


def decode(data: bytes) -> Object:
    """The object in a body. ProtobufError when it is none."""
    if not data.startswith(MAGIC):
        raise ProtobufError("it doesn't begin with k8s\\0")
    budget = _Budget()
    envelope = dict(_fields(data[len(MAGIC) :], budget))
    kind = dict(_fields(_bytes(envelope.get(1, b"")), budget))
    version, name = _text(kind.get(1, b"")), _text(kind.get(2, b""))
    definition = _kinds().get((version, name))
    if definition is None:
        raise ProtobufError(f"the kind {version} {name} is not known here")
    try:
        found = _message(_bytes(envelope.get(2, b"")), shapes.builtin().shape(definition), budget)
    except RecursionError:
        raise ProtobufError("it is nested too deeply") from None
    return {"apiVersion": version, "kind": name} | found


def _fields(data: bytes, budget: _Budget) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field: an integer, or bytes."""
    at, end = 0, len(data)
    while at < end:
        budget.take()
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = 8 if kind == FIXED64 else 4 if kind == FIXED32 else 0
        if kind == BYTES:
            size, at = _varint(data, at)
        elif not size:
            raise ProtobufError(f"wire type {kind} is not known")
        if at + size > end:
            raise ProtobufError("it ends in the middle of a field")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ProtobufError("it ends in the middle of a number")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ProtobufError("a number stands where bytes must be")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        raise ProtobufError("a text is not UTF-8") from None


def _signed(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ProtobufError("bytes stand where a number must be")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _message(data: bytes, shape: Shape, budget: _Budget, struct_name: str = "") -> Object:
    """An object; `struct_name` is that of a struct which is inlined in it."""
    known = wire.structs().get(struct_name or shape.definition)
    if known is None:
        raise ProtobufError(f"{shape.definition or 'this object'} is not known")
    found: Object = {}
    for number, value in _fields(data, budget):
        field = known.get(number)
        if field is None:
            continue
        if field.inlined:
            found |= _message(_bytes(value), shape, budget, wire.inlined(struct_name or shape.definition, field))
            continue
        name, inner = field.name, shape.fields.get(field.name)
        if inner is None:
            continue
        if inner.kind == shapes.LIST and inner.items is not None:
            found.setdefault(name, []).extend(_elements(value, inner.items, budget))
        elif inner.kind == shapes.MAP and inner.items is not None:
            entry = dict(_fields(_bytes(value), budget))
            empty: int | bytes = 0 if inner.items.kind in NUMBERS else b""
            found.setdefault(name, {})[_text(entry.get(1, b""))] = _value(entry.get(2, empty), inner.items, budget)
        else:
            one = _value(value, inner, budget)
            if one is not None and (one or not inner.omits):
                found[name] = one
    if not struct_name:
        found |= {name: inner.zero() for name, inner in shape.zeros.items() if name not in found}
    return found


def _elements(value: int | bytes, shape: Shape, budget: _Budget) -> Iterator[Any]:
    """What one field adds to a list: an element, or several numbers that are packed."""
    if shape.kind not in NUMBERS or isinstance(value, int):
        yield _value(value, shape, budget)
        return
    at = 0
    while at < len(value):
        budget.take()
        number, at = _varint(value, at)
        yield _value(number, shape, budget)


def _value(value: int | bytes, shape: Shape, budget: _Budget) -> Any:
    special = SPECIAL.get(shape.definition)
    if special is not None:
        return special(dict(_fields(_bytes(value), budget)), value, budget)
    match shape.kind:
        case shapes.STRING:
            return base64.b64encode(_bytes(value)).decode() if shape.format == "byte" else _text(value)
        case shapes.INTEGER:
            return _signed(value)
        case shapes.BOOLEAN:
            return bool(_signed(value))
        case shapes.NUMBER:
            return struct.unpack("<d", _bytes(value))[0] if len(_bytes(value)) == 8 else 0
        case shapes.LIST:  # as the value of a map: a message of its own
            return [
                _value(one, shape.items, budget)
                for number, one in _fields(_bytes(value), budget)
                if number == 1 and shape.items
            ]
        case _:
            return _message(_bytes(value), shape, budget)


Fields = dict[int, int | bytes]


def _time(fields: Fields, _: int | bytes, __: _Budget, *, micro: bool = False) -> str | None:
    if not fields:
        return None
    try:
        return scalars.since_epoch(_signed(fields.get(1, 0)), _signed(fields.get(2, 0)), micro=micro)
    except OverflowError:
        raise ProtobufError("a time is out of range") from None


def _int_or_string(fields: Fields, _: int | bytes, __: _Budget) -> int | str:
    return _text(fields.get(3, b"")) if _signed(fields.get(1, 0)) else _signed(fields.get(2, 0))


def _json(fields: Fields, _: int | bytes, budget: _Budget) -> Any:
    raw = _bytes(fields.get(1, b""))
    budget.take(sum(map(raw.count, (b"{", b"[", b","))))
    try:
        return msgspec.json.decode(raw) if raw else None
    except UNDECODABLE:
        raise ProtobufError("what must be JSON within is none") from None


def _schema(value: int | bytes, budget: _Budget) -> Object:
    return _message(_bytes(value), shapes.builtin().shape(EXTENSIONS + "JSONSchemaProps"), budget)


def _schema_or(fields: Fields, whole: int | bytes, budget: _Budget) -> Any:
    """JSONSchemaPropsOrBool, -OrArray, -OrStringArray: a schema, or else what stands beside it."""
    return _schema(fields[2], budget) if 2 in fields else bool(_signed(fields.get(1, 0)))


def _schema_or_array(fields: Fields, whole: int | bytes, budget: _Budget) -> Any:
    if 1 in fields:
        return _schema(fields[1], budget)
    return [_schema(value, budget) for number, value in _fields(_bytes(whole), budget) if number == 2] or None


def _schema_or_texts(fields: Fields, whole: int | bytes, budget: _Budget) -> Any:
    if 1 in fields:
        return _schema(fields[1], budget)
    return [_text(value) for number, value in _fields(_bytes(whole), budget) if number == 2]


SPECIAL: dict[str, Callable[[Fields, int | bytes, _Budget], Any]] = {
    META + "Time": _time,
    META + "MicroTime": functools.partial(_time, micro=True),
    META + "FieldsV1": _json,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _json,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": lambda fields, *_: _text(fields.get(1, b"0")),
    EXTENSIONS + "JSON": _json,
    EXTENSIONS + "JSONSchemaPropsOrBool": _schema_or,
    EXTENSIONS + "JSONSchemaPropsOrArray": _schema_or_array,
    EXTENSIONS + "JSONSchemaPropsOrStringArray": _schema_or_texts,
}
"""Messages that are written otherwise in JSON."""

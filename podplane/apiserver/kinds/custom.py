"""Custom resources: what a CustomResourceDefinition must be, and the rows that it makes (apiextensions/v1).

A schema becomes two things: a shape, which prunes, fills in defaults and checks types, and a JSON Schema for the rest (patterns, bounds,
combinations), by jsonschema-rs. Rules in CEL (`x-kubernetes-validations`) are stored and not evaluated.
"""

from __future__ import annotations

import copy
import datetime
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from podplane.apiserver import shapes
from podplane.apiserver.kinds import names, printer_paths, printing, selectable
from podplane.apiserver.kinds.resource import Column, Resource, Scale
from podplane.apiserver.problems import MAX_CAUSES, Cause

Object = dict[str, Any]
Schema = Mapping[str, Any]
PLURAL = "customresourcedefinitions"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
VERSION = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MAX_LABEL = 63
HANDLED = ("type", "enum", "required", "nullable", "default")
"""Keywords that the shape holds already."""
FORMATS = ("date", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
COMBINATIONS = ("allOf", "anyOf", "oneOf")
PLAIN = (
    *("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "multipleOf", "maxLength", "minLength", "pattern"),
    *("maxItems", "minItems", "uniqueItems", "maxProperties", "minProperties"),
)


def complete_definition(definition: Object) -> None:
    """Names that follow from others."""
    spec = definition.get("spec", {})
    own = spec.get("names", {})
    if own.get("kind"):
        own.setdefault("singular", own["kind"].lower())
        own.setdefault("listKind", own["kind"] + "List")
    spec.setdefault("conversion", {}).setdefault("strategy", "None")


def accept(definition: Object, now: str) -> None:
    """The status of a definition that is served from now on."""
    spec, status = definition["spec"], definition.setdefault("status", {})
    stored = [version["name"] for version in spec["versions"] if version["storage"]]
    status["acceptedNames"] = dict(spec["names"])
    status["storedVersions"] = [*dict.fromkeys([*status.get("storedVersions", ()), *stored])]
    if not status.get("conditions"):
        texts = (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
        status["conditions"] = [
            {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
            for kind, reason, message in texts
        ]


def begin_termination(definition: Object, now: str) -> None:
    """Say of a definition that is marked as deleted that its custom resources go first; its status and finalizers are replaced."""
    metadata, status = definition["metadata"], definition.get("status", {})
    metadata["finalizers"] = [*dict.fromkeys([*metadata.get("finalizers", ()), CLEANUP])]
    condition = {
        "type": "Terminating",
        "status": "True",
        "reason": "InstanceDeletionInProgress",
        "message": "CustomResource deletion is in progress",
        "lastTransitionTime": now,
    }
    kept = [one for one in status.get("conditions", ()) if one["type"] != "Terminating"]
    definition["status"] = {**status, "conditions": [*kept, condition]}


def check_definition(definition: Object, old: Object | None) -> Iterator[Cause]:
    """CustomResourceDefinition: names, versions of which one is stored, and structural schemas."""
    spec = definition["spec"]
    own, versions = spec.get("names", {}), spec.get("versions", [])
    if "plural" in own and definition["metadata"]["name"] != f"{own['plural']}.{spec.get('group', '')}":
        yield Cause.invalid("metadata.name", definition["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')
    if "." not in spec.get("group", ".") or names.SUBDOMAIN(spec.get("group", "x")):
        yield Cause.invalid("spec.group", spec.get("group"), "should be a domain with at least one dot")
    for field in ("plural", "singular"):
        if field in own and (why := names.LABEL_1035(own[field])):
            yield Cause.invalid(f"spec.names.{field}", own[field], why)
    if "kind" in own and (why := names.LABEL_1035(own["kind"].lower())):
        yield Cause.invalid("spec.names.kind", own["kind"], why)
    if spec["conversion"]["strategy"] != "None":
        yield Cause.invalid("spec.conversion.strategy", spec["conversion"]["strategy"], "conversion by webhooks is not served")
    if not versions:
        yield Cause.required("spec.versions")
    elif sum(bool(v.get("storage")) for v in versions) != 1:
        yield Cause.invalid(
            "spec.versions", [v.get("name") for v in versions], "must have exactly one version marked as storage version"
        )
    seen: set[str] = set()
    kept = {column["jsonPath"] for version in (old["spec"]["versions"] if old else ()) for column in _columns_of(version)}
    for i, version in enumerate(versions):
        where = f"spec.versions[{i}]"
        if version.get("name", "") in seen:
            yield Cause.duplicate(f"{where}.name", version.get("name", ""))
        seen.add(version.get("name", ""))
        if not VERSION.fullmatch(version.get("name", "v")) or len(version.get("name", "v")) > MAX_LABEL:
            yield Cause.invalid(
                f"{where}.name", version["name"], "must be a lower-case RFC 1035 label of at most 63 characters, v1 say"
            )
        yield from _check_schema_of(version, where)
        yield from _check_columns_of(version, where, kept)
    if old is not None:
        for path in (("group",), ("names", "plural"), ("names", "kind"), ("scope",)):
            before, after = _in(old["spec"], path), _in(spec, path)
            if before != after:
                yield Cause.immutable("spec." + ".".join(path), after)


def _in(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _columns_of(version: Object) -> list[Object]:
    return version.get("additionalPrinterColumns") or []


def _check_columns_of(version: Object, path: str, kept: set[str]) -> Iterator[Cause]:
    """Paths of columns; those that were `kept` before they were checked stay, and their columns are empty."""
    for i, column in enumerate(_columns_of(version)):
        given = column.get("jsonPath", "")
        if given not in kept and (why := printer_paths.refusal(given)):
            yield Cause.invalid(f"{path}.additionalPrinterColumns[{i}].jsonPath", given, why)


def _check_schema_of(version: Object, path: str) -> Iterator[Cause]:
    where = f"{path}.schema.openAPIV3Schema"
    schema = version.get("schema", {}).get("openAPIV3Schema")
    if schema is None:
        yield Cause.required(where, "schemas are required")
        return
    if schema.get("type") != "object":
        yield Cause.invalid(f"{where}.type", schema.get("type", ""), "must be object at the root")
        return
    found = list(_structural(schema, where))
    yield from found
    if not found:
        try:
            _validator(schema)
            shapes.Library({}).compile(schema)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            yield Cause.invalid(where, "", str(error).splitlines()[0])


def _structural(schema: Schema, path: str) -> Iterator[Cause]:
    """Each field says its type (apiextensions, structural schemas)."""
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free:
        yield Cause.required(f"{path}.type", "must not be empty for specified object fields")
    if schema.get("type") == "array" and "items" not in schema:
        yield Cause.required(f"{path}.items", "must be specified")
    if isinstance(schema.get("items"), list):
        yield Cause.forbidden(f"{path}.items", "items must be a schema object and not an array")
    if "$ref" in schema:
        yield Cause.forbidden(f"{path}.$ref", "$ref is not supported")
    for name, inner in schema.get("properties", {}).items():
        yield from _structural(inner, f"{path}.properties[{name}]")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _structural(schema[key], f"{path}.{key}")


def json_schema(schema: Schema) -> Object:
    """What of a schema the shape doesn't hold, as JSON Schema (draft 4, whose bounds are those of OpenAPI 3.0)."""
    found: Object = {key: schema[key] for key in PLAIN if key in schema}
    if schema.get("format") in FORMATS:
        found["format"] = schema["format"]
    if schema.get("properties"):
        found["properties"] = {name: json_schema(inner) for name, inner in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found[key] = json_schema(schema[key])
    for key in COMBINATIONS:
        if key in schema:
            found[key] = [_logical(inner) for inner in schema[key]]
    if "not" in schema:
        found["not"] = _logical(schema["not"])
    return found


def _logical(schema: Schema) -> Object:
    """Within a combination everything counts: no shape looks there."""
    found = json_schema(schema) | {key: schema[key] for key in ("enum", "required", "type") if key in schema}
    for name, inner in schema.get("properties", {}).items():
        found["properties"][name] = _logical(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found[key] = _logical(schema[key])
    return found


def _validator(schema: Schema) -> Any:
    """A validator; patterns run in linear time, as Go's do. ValueError when the schema is none."""
    import jsonschema_rs  # costs a start that has no custom resources nothing

    try:
        return jsonschema_rs.Draft4Validator(
            json_schema(schema), validate_formats=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except jsonschema_rs.ValidationError as error:
        raise ValueError(error.message) from None


class Reader:
    """Makes objects of one version fit its schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        shape = shapes.Library({}, is_custom=True).compile(schema)
        own = shapes.builtin().shape(shapes.EMBEDDED).fields
        shape.kind = shapes.OBJECT
        shape.fields |= {name: own[name] for name in ("apiVersion", "kind", "metadata")}
        self._shape = shape

    @functools.cached_property
    def _rest(self) -> Any:
        return _validator(self._schema)

    def complete(self, object_: Object) -> Object:
        """A stored object as this schema has it: with its defaults (those that have room, should they have grown since), and without
        what it does not know."""
        found: Object = copy.deepcopy(object_)
        shapes.fit(self._shape, found, status_too=True)
        return found

    def __call__(self, object_: Object) -> shapes.Findings:
        """As the shape says; values of a wrong type count as invalid, with the field's path."""
        findings = shapes.fit(self._shape, object_, status_too=True)
        for text in findings.wrong:
            field, _, why = text.partition(": ")
            findings.causes.append(Cause(field, "FieldValueTypeInvalid", f"Invalid value: {why}"))
        if not findings.wrong:
            findings.causes += [
                Cause(_dotted(error.instance_path), "FieldValueInvalid", f"Invalid value: {error.message}")
                for error in itertools.islice(self._rest.iter_errors(object_), MAX_CAUSES)
            ]
        findings.wrong = []
        return findings


def _dotted(path: list[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or "<root>"


def rows(definition: Object) -> list[Resource]:
    """One row for each version that is served."""
    spec = definition["spec"]
    storage = next(version for version in spec["versions"] if version["storage"])
    served = [version for version in spec["versions"] if version.get("served")]
    complete = Reader(storage["schema"]["openAPIV3Schema"]).complete if served else None
    return [_row(definition, version, storage["name"], complete) for version in served]


def _row(definition: Object, version: Object, storage: str, complete: Callable[[Object], Object] | None) -> Resource:
    spec, metadata = definition["spec"], definition["metadata"]
    own, schema = spec["names"], version["schema"]["openAPIV3Schema"]
    subresources = version.get("subresources", {})
    scale = subresources.get("scale")
    chosen = [field["jsonPath"].lstrip(".") for field in version.get("selectableFields", ())]
    return Resource(
        group=spec["group"],
        version=version["name"],
        plural=own["plural"],
        kind=own["kind"],
        singular=own.get("singular", ""),
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(own.get("shortNames", ())),
        categories=tuple(own.get("categories", ())),
        read=Reader(schema),
        columns=columns(version.get("additionalPrinterColumns")),
        fields=selectable.custom(spec["scope"] == "Namespaced", chosen),
        has_status="status" in subresources,
        counts=True,
        scale=_scale(scale) if scale else None,
        schema=schema,
        is_terminating="deletionTimestamp" in metadata,
        complete=complete,
        defined_at=int(metadata.get("resourceVersion", 0)),
        storage=f"{spec['group']}/{storage}",
    )


def _scale(scale: Object) -> Scale:
    paths = (scale.get("specReplicasPath", ""), scale.get("statusReplicasPath", ""), scale.get("labelSelectorPath", ""))
    replicas, current, selector = (tuple(path.lstrip(".").split(".")) if path else () for path in paths)
    return Scale(replicas, current, selector)


def columns(given: list[Object] | None) -> tuple[Column, ...]:
    """The printer columns of a version; name and age when it has none."""
    if not given:
        return printing.OTHERS
    return (
        printing.NAME,
        *(
            Column(one["name"], _cell(one["jsonPath"], one["type"]), one["type"], one.get("priority", 0), one.get("format", ""))
            for one in given
        ),
    )


def _cell(path: str, kind: str) -> Callable[[Object, datetime.datetime], Any]:
    """The first value that a JSON path finds."""

    @functools.cache
    def compiled() -> Any:
        return printer_paths.compiled(path)

    def value(object_: Object, now: datetime.datetime) -> Any:
        found = printer_paths.first(compiled(), object_) if compiled() else ()
        if not found:
            return None
        if kind == "date":
            try:
                return printing.since(found[0], now)
            except (TypeError, ValueError):
                return "<invalid>"
        return _as_text(found[0]) if kind == "string" else found[0]

    return value


def _as_text(value: Any) -> str:
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

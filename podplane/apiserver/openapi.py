"""OpenAPI v3 of what is served: an index, and a document for each group and version, made when they are asked for.

Schemas come from the shapes' data file, those of custom resources from their definitions; paths from the table of kinds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from podplane.apiserver import shapes
from podplane.apiserver.discovery import subresources
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.patches import served
from podplane.apiserver.registry import Registry
from podplane.kubeapi.messages import Response

Object = dict[str, Any]
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
SCHEMAS = "#/components/schemas/"
SECURITY = "BearerToken"
OLD_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
VALIDATION = ("fieldValidation", "string")
DRY = ("dryRun", "string")
MANAGER = ("fieldManager", "string")
LIST = (
    ("labelSelector", "string"),
    ("fieldSelector", "string"),
    ("limit", "integer"),
    ("continue", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
    ("allowWatchBookmarks", "boolean"),
    ("sendInitialEvents", "boolean"),
)
DELETE = (("gracePeriodSeconds", "integer"), ("propagationPolicy", "string"), ("orphanDependents", "boolean"), DRY)
SUBRESOURCE_BODIES = {
    "scale": "io.k8s.api.autoscaling.v1.Scale",
    "binding": "io.k8s.api.core.v1.Binding",
    "eviction": "io.k8s.api.policy.v1.Eviction",
    "token": "io.k8s.api.authentication.v1.TokenRequest",
}


def index(registry: Registry) -> Object:
    """/openapi/v3."""
    paths = {}
    for group, versions in registry.groups().items():
        for version, rows in versions.items():
            name = f"apis/{group}/{version}" if group else "api/v1"
            text = repr([(row.plural, row.schema) for row in rows]).encode()
            digest = hashlib.sha256(shapes.data()["origin"].encode() + text).hexdigest()[:32].upper()
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
    return {"paths": paths}


def old_document(as_protobuf: bool) -> Response:
    """/openapi/v2, without anything described in it.

    kubectl asks for it to check the items of a `List` by itself, and leaves to the server what it doesn't find there: the server
    checks each item anyhow. In protobuf (gnostic's openapi.v2.Document) `swagger` is field 1, `info` field 2 with title and version.
    """
    title, version = "podplane", f"v{shapes.data()['kubernetes']}"
    if as_protobuf:
        return Response(
            200, _field(1, b"2.0") + _field(2, _field(1, title.encode()) + _field(2, version.encode())), OLD_PROTOBUF
        )
    body = {"swagger": "2.0", "info": {"title": title, "version": version}, "paths": {}}
    return Response(200, msgspec.json.encode(body), "application/json")


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf that is a text or a message, shorter than 128 bytes."""
    return bytes((number << 3 | 2, len(content))) + content


def document(registry: Registry, name: str) -> Object | None:
    """/openapi/v3/<api/v1 or apis/group/version>; None for any other."""
    for group, versions in registry.groups().items():
        for version, rows in versions.items():
            if name == (f"apis/{group}/{version}" if group else "api/v1"):
                return _document(rows)
    return None


def _document(rows: list[Resource]) -> Object:
    paths: Object = {}
    roots: set[str] = {META + "DeleteOptions", META + "Status"}
    schemas: Object = {}
    for row in rows:
        if row.schema is not None:
            schemas |= _custom_schemas(row)
            roots |= {META + "ObjectMeta", META + "ListMeta"}
        else:
            roots.add(row.definition)
            roots |= set() if row.is_review else {row.definition + "List"}
        roots |= {SUBRESOURCE_BODIES[name] for name, *_ in subresources(row) if name in SUBRESOURCE_BODIES}
        paths |= _paths(row)
    schemas |= _closure(roots)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{shapes.data()['kubernetes']}.0"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {SECURITY: {"type": "http", "scheme": "bearer"}},
        },
        "security": [{SECURITY: []}],
    }


def _closure(roots: Iterable[str]) -> Object:
    """Built-in definitions and all that they refer to, with references as version 3 has them."""
    found: Object = {}
    todo = list(roots)
    definitions = shapes.builtin().definitions
    while todo:
        name = todo.pop()
        if name not in found:
            text = msgspec.json.encode(definitions[name]).decode()
            todo += [part.split('"')[0] for part in text.split(f'"{shapes.PREFIX}')[1:]]
            found[name] = _version_3(msgspec.json.decode(text.replace(shapes.PREFIX, SCHEMAS)))
    return found


def _version_3(schema: Object) -> Object:
    """A reference with markers beside it is `allOf` (siblings of $ref mean nothing in OpenAPI 3.0)."""
    inner = dict(schema)
    if "properties" in inner:
        inner["properties"] = {name: _version_3(one) for name, one in inner["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in inner:
            inner[key] = _version_3(inner[key])
    if "$ref" in inner and len(inner) > 1:
        inner["allOf"] = [{"$ref": inner.pop("$ref")}]
    return inner


def definition_name(row: Resource) -> str:
    """The name of a kind's schema."""
    return row.definition or ".".join([*reversed(row.group.split(".")), row.version, row.kind])


def _custom_schemas(row: Resource) -> Object:
    name = definition_name(row)
    schema = dict(row.schema or {})
    common: Object = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    metadata: Object = {"metadata": {"allOf": [{"$ref": f"{SCHEMAS}{META}ObjectMeta"}]}}
    schema["properties"] = {**schema.get("properties", {}), **common, **metadata}
    schema["x-kubernetes-group-version-kind"] = [_gvk(row)]
    of_list = {
        "type": "object",
        "required": ["items"],
        "properties": {
            **common,
            "metadata": {"allOf": [{"$ref": f"{SCHEMAS}{META}ListMeta"}]},
            "items": {"type": "array", "items": {"$ref": SCHEMAS + name}},
        },
        "x-kubernetes-group-version-kind": [{**_gvk(row), "kind": row.list_kind}],
    }
    return {name: schema, name + "List": of_list}


def _gvk(row: Resource) -> Object:
    return {"group": row.group, "version": row.version, "kind": row.kind}


def _parameters(*found: tuple[str, str]) -> list[Object]:
    return [{"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}} for name, kind in found]


def _segments(*names: str) -> list[Object]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}} for name in names]


def _content(name: str, *types: str) -> Object:
    return {kind: {"schema": {"$ref": SCHEMAS + name}} for kind in types or ("application/json",)}


def _operation(row: Resource, action: str, schema: str, *parameters: tuple[str, str], body: Object | None = None) -> Object:
    codes = ("200", "201", "202") if action in ("post", "delete") else ("200", "201")
    operation: Object = {
        "operationId": "".join([action.capitalize(), row.group.replace(".", "").title(), row.version.title(), row.kind]),
        "parameters": _parameters(*parameters),
        "responses": {
            **{code: {"description": "OK", "content": _content(schema)} for code in codes},
            "default": {"description": "Refused", "content": _content(META + "Status")},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(row),
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    return operation


WRITE = (DRY, MANAGER, VALIDATION)


def _paths(row: Resource) -> Object:
    base = f"/apis/{row.group}/{row.version}" if row.group else "/api/v1"
    collection = f"{base}/namespaces/{{namespace}}/{row.plural}" if row.namespaced else f"{base}/{row.plural}"
    outer = ("namespace",) if row.namespaced else ()
    name = definition_name(row)
    post = _operation(row, "post", name, *WRITE, body=_content(name, "application/json", "application/yaml"))
    if row.is_review:
        return {collection: {"post": post}}
    found: Object = {
        collection: {
            "parameters": _segments(*outer),
            "get": _operation(row, "list", name + "List", *LIST),
            "post": post,
            "delete": _operation(row, "deletecollection", META + "Status", *LIST[:2], *DELETE),
        },
        f"{collection}/{{name}}": {
            "parameters": _segments("name", *outer),
            "get": _operation(row, "get", name),
            **_changes(row, name),
            "delete": _operation(row, "delete", META + "Status", *DELETE),
        },
    }
    if row.namespaced:
        found[f"{base}/{row.plural}"] = {"get": _operation(row, "list", name + "List", *LIST)}
    for below, _, _, _, verbs in subresources(row):
        schema = SUBRESOURCE_BODIES.get(below, name)
        entry: Object = {"parameters": _segments("name", *outer)}
        if below == "exec":
            continue
        if verbs == ("create",):
            entry["post"] = _operation(row, "post", schema, *WRITE, body=_content(schema))
        else:
            entry |= {"get": _operation(row, "get", schema), **_changes(row, schema)}
        found[f"{collection}/{{name}}/{below}"] = entry
    return found


def _changes(row: Resource, schema: str) -> Object:
    patch: Object = {kind: {"schema": {"type": "object"}} for kind in served(row)}
    patch["application/json-patch+json"] = {"schema": {"type": "array", "items": {"type": "object"}}}
    return {
        "put": _operation(row, "put", schema, *WRITE, body=_content(schema, "application/json", "application/yaml")),
        "patch": _operation(row, "patch", schema, *WRITE, body=patch),
    }

"""Objects of all served kinds, and what Kubernetes' own types make of them (`tools/facts.py` says how the data file is made)."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.apiserver import protobuf, shapes, wire
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.writing import BINDING, EVICTION, SCALE

Object = dict[str, Any]
KINDS = {(row.group_version, row.kind): row for row in (*RESOURCES, SCALE, BINDING, EVICTION)}
FACTS = Path(__file__).parent / "data" / "objects.jsonl.gz"


def facts() -> Iterator[Object]:
    with gzip.open(FACTS, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def row_of(object_: Object) -> Resource:
    return KINDS[object_["apiVersion"], object_["kind"]]


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two values differ, a line each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            yield from differences(ours.get(name), theirs.get(name), f"{path}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs, strict=True):
            yield from differences(one, other, f"{path}[]")
    elif ours != theirs or isinstance(ours, bool) is not isinstance(theirs, bool):
        yield f"{path}: {ours!r}, with Kubernetes {theirs!r}"


def report(found: Counter[str]) -> str:
    return "\n".join(f"{count} × {text}" for text, count in found.most_common(40))


def test_the_facts_are_of_every_kind_and_have_every_field() -> None:
    """What is never there would prove nothing: each field of each definition that a served kind reaches stands in one object at least."""
    seen: dict[str, set[str]] = {}
    kinds: Counter[str] = Counter()
    for fact in facts():
        row = row_of(fact["object"])
        kinds[row.kind] += 1
        note(shapes.builtin().shape(row.definition), fact["object"], seen)
    assert kinds.keys() == {row.kind for row in KINDS.values()}
    assert min(kinds.values()) >= 10
    missing = {
        f"{definition}.{name}"
        for definition, names in seen.items()
        for name in shapes.builtin().shape(definition).fields.keys() - names
    }
    assert missing == {f"{META}{name}" for name in ("ObjectMeta.managedFields", "ObjectMeta.selfLink")} | {
        "io.k8s.api.core.v1.Secret.stringData"
    }, "what the server takes away"


META = "io.k8s.apimachinery.pkg.apis.meta.v1."


def note(shape: shapes.Shape, value: Any, seen: dict[str, set[str]]) -> None:
    """Note which fields of which definitions are there."""
    if isinstance(value, list):
        for inner in value:
            if shape.items is not None:
                note(shape.items, inner, seen)
    elif isinstance(value, dict) and shape.kind == shapes.MAP:
        for inner in value.values():
            if shape.items is not None:
                note(shape.items, inner, seen)
    elif isinstance(value, dict) and shape.kind == shapes.OBJECT:
        seen.setdefault(shape.definition, set()).update(value)
        for name, inner in value.items():
            note(shape.fields[name], inner, seen)


def test_fields_and_structs_are_the_same_ones() -> None:
    """The OpenAPI document and the Go types speak of the same fields, so that none is read from one form and lost from the other."""
    for name, schema in shapes.builtin().definitions.items():
        if "properties" in schema:
            ours = set(schema["properties"]) - {"apiVersion", "kind"}
            assert ours == {field.name for field in wire.fields_of(name)} - {"apiVersion", "kind"}, name


def test_what_typed_clients_send_is_read_as_go_reads_it() -> None:
    found: Counter[str] = Counter()
    for fact in facts():
        ours = protobuf.decode(base64.b64decode(fact["wire"]))
        found.update(f"{fact['object']['kind']}{line}" for line in differences(ours, fact["plain"]))
    assert not found, report(found)


STRATEGIES = "a strategy that rolls nothing has no numbers: it is refused with them"
UNSENT = ": None, with Kubernetes []"
"""An empty list is nothing in protobuf."""
LEFT_OUT = {
    "DaemonSet.metadata.annotations": "admission counts the templates (test_defaults)",
    "DaemonSet.spec.updateStrategy.rollingUpdate": STRATEGIES,
    "Deployment.spec.strategy.rollingUpdate": STRATEGIES,
    "Service.spec.clusterIP": "allocation gives it, or takes it away (test_service_rules)",
    "Service.spec.internalTrafficPolicy": "an ExternalName has none",
    "CustomResourceDefinition.status.storedVersions": "admission keeps them (test_custom)",
    "CustomResourceDefinition.spec.versions[].schema": "schemas stay as they were written",
    "Eviction.deleteOptions": "they are read as those of a deletion",
    "Node.status.allocatable: {": "an empty map is nothing said: then all of the capacity can be had",
    "Pod.status.podIP": "its addresses agree once its status is written (test_status_writes)",
    "Pod.status.nodeAllocatableResourceClaimStatuses": "claims of devices are not served",
}
"""Where ours differs from what the defaulting functions alone give, and why."""


def completed(object_: Object) -> Object:
    """An object as the server completes it before it is validated."""
    row = row_of(object_)
    object_["metadata"].pop("uid", None)  # with one, a Job gets a selector of its own
    found = row.read(object_)
    assert (found.wrong, found.unknown) == ([], []), row.kind
    row.prepare(object_)
    return object_


@pytest.mark.parametrize("sent", ["JSON", "protobuf"])
def test_defaults_are_those_of_kubernetes(sent: str) -> None:
    found: Counter[str] = Counter()
    for fact in facts():
        ours = fact["object"] if sent == "JSON" else protobuf.decode(base64.b64decode(fact["wire"]))
        ours.setdefault("metadata", {})
        fact["defaulted"]["metadata"].pop("uid", None)
        lines = (f"{ours['kind']}{line}" for line in differences(completed(ours), fact["defaulted"]))
        found.update(line for line in lines if not line.startswith(tuple(LEFT_OUT)) and not line.endswith(UNSENT))
    assert not found, report(found)


def test_completing_twice_changes_nothing() -> None:
    for fact in facts():
        once = completed({"metadata": {}, **fact["object"]})
        assert completed(json.loads(json.dumps(once))) == once

"""Bodies with more values than one may have are refused before anything is made of them, and a refusal says only so many causes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from podplane.apiserver import protobuf, shapes, yaml_bodies
from podplane.apiserver.decoding import MAX_VALUES, body
from podplane.apiserver.kinds.resource import admit
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.problems import MAX_CAUSES, Cause, Problem, invalid
from podplane.kubeapi.messages import Request, Response
from podplane.model.bounded_yaml import TooMany
from tests.unit.apiserver.test_custom import PEERS, SPEC, VERSION, define, peer
from tests.unit.apiserver.test_protobuf import body as message
from tests.unit.apiserver.test_protobuf import field
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]
TOO_MANY = f"the body is too large: it has more than {MAX_VALUES} values"
PODS = "/api/v1/namespaces/default/pods"
EMPTY = field(1, b"")
MADE: dict[str, Callable[[], tuple[str, bytes]]] = {
    "elements": lambda: (protobuf.TYPE, message("v1", "Pod", field(2, field(2, b"") * MAX_VALUES))),
    "again and again": lambda: (protobuf.TYPE, message("v1", "Pod", EMPTY * MAX_VALUES)),
    "entries of a map": lambda: (protobuf.TYPE, message("v1", "ConfigMap", field(2, b"") * MAX_VALUES)),
    "envelope": lambda: (protobuf.TYPE, protobuf.MAGIC + EMPTY * (MAX_VALUES + 1)),
    "packed": lambda: (protobuf.TYPE, message("v1", "Pod", field(2, field(14, field(4, b"\1" * MAX_VALUES))))),
    "raw": lambda: (
        protobuf.TYPE,
        message("apps/v1", "ControllerRevision", field(2, field(1, b"[" + b"{}," * MAX_VALUES + b"0]"))),
    ),
    "list": lambda: ("application/json", b'{"a":[' + b"{}," * MAX_VALUES + b"{}]}"),
    "fields": lambda: ("application/json", json.dumps({f"k{i}": 0 for i in range(MAX_VALUES + 1)}).encode()),
    "nested": lambda: ("application/json", b'{"a":[' + b"[1,2]," * (MAX_VALUES // 3) + b"0]}"),
    "yaml": lambda: ("application/yaml", b"a: [" + b"{}," * 2 * MAX_VALUES + b"0]"),
}


def request(method: str, path: str, kind: str, data: bytes) -> Request:
    return Request(method, path, {}, {"authorization": "Bearer secret", "content-type": kind}, data)


@pytest.mark.parametrize("name", MADE)
async def test_a_body_with_too_many_values(name: str) -> None:
    kind, data = MADE[name]()
    answer = await Api().server.handle(request("POST", PODS, kind, data))
    assert isinstance(answer, Response)
    assert (answer.status, json.loads(answer.body)["message"]) == (413, TOO_MANY)


async def test_a_patch_with_too_many_values() -> None:
    api = Api()
    await api("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})
    data = b'{"x":[' + b"{}," * MAX_VALUES + b"{}]}"
    answer = await api.server.handle(
        request("PATCH", "/api/v1/namespaces/default/configmaps/a", "application/merge-patch+json", data)
    )
    assert isinstance(answer, Response)
    assert (answer.status, json.loads(answer.body)["message"]) == (413, TOO_MANY)


def test_what_stands_in_a_text_is_no_value() -> None:
    value = {"data": {"a": "{[," * MAX_VALUES}}
    assert body(request("POST", PODS, "application/json", json.dumps(value).encode())) == value


def test_a_body_with_as_many_values_as_it_may_have() -> None:
    value: dict[str, Any] = {"a": [{}] * (MAX_VALUES - 1)}
    assert body(request("POST", PODS, "application/json", json.dumps(value).encode())) == value
    entries = field(2, field(1, b"")) * ((MAX_VALUES - 10) // 3)
    assert protobuf.decode(message("v1", "ConfigMap", entries))["data"] == {"": ""}


def test_events_of_yaml_are_counted() -> None:
    assert yaml_bodies.read(b"a: [1, {}]", 10, 5).value == {"a": [1, {}]}
    with pytest.raises(TooMany):
        yaml_bodies.read(b"a: [1, {}]", 10, 4)


def test_a_refusal_says_only_so_many_causes() -> None:
    problem = invalid("Pod", "a", [Cause.required(f"spec.x[{i}]") for i in range(MAX_CAUSES + 1)])
    assert problem.details is not None
    assert len(problem.details["causes"]) == MAX_CAUSES
    assert f"x[{MAX_CAUSES - 1}]" in str(problem)
    assert f"x[{MAX_CAUSES}]" not in str(problem)


def test_a_check_stops_when_it_has_found_that_many() -> None:
    asked: list[int] = []

    def check(*_: Any) -> Any:
        for i in range(10 * MAX_CAUSES):
            asked.append(i)
            yield Cause.required(f"spec.x[{i}]")

    row = dataclasses.replace(next(row for row in RESOURCES if row.id == "configmaps"), check=check)
    with pytest.raises(Problem):
        admit(row, {"metadata": {"name": "a"}}, None)
    assert len(asked) <= MAX_CAUSES


async def test_defaults_add_no_more_than_a_request_may_have() -> None:
    api = Api()
    item: Object = {
        "type": "object",
        "properties": {"z": {"type": "array", "items": {"type": "integer"}, "default": [1] * 1000}},
    }
    items = {"type": "array", "items": item}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"items": items}}}}
    version = {**VERSION, "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": [], "selectableFields": []}
    await define(api, {**SPEC, "versions": [version]})
    small = await api("POST", PEERS, peer("small", items=[{}] * 10))
    assert small["spec"]["items"] == [{"z": [1] * 1000}] * 10
    small["spec"]["items"][0]["z"].append(2)
    assert (await api("GET", f"{PEERS}/small"))["spec"]["items"] == [{"z": [1] * 1000}] * 10
    why = await api.refused("RequestEntityTooLarge", "POST", PEERS, peer("large", items=[{}] * 20_000))
    assert why == "the object is too large: the defaults of its kind add more than 3145728 bytes to it"
    shape = shapes.Library({}).compile(items)
    value: Object = {"items": [{} for _ in range(20_000)]}
    assert shapes.fit(shapes.Shape(shapes.OBJECT, fields={"items": shape}), value).is_too_large
    assert len(json.dumps(value, separators=(",", ":"))) < shapes.MAX_DEFAULTS_BYTES + 20_000 * 10, "it is not built to its end"

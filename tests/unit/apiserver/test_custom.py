"""Custom resources: served as their definition says, pruned, defaulted, checked with the field's path, in several versions."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PEERS = "/apis/net.example.org/v1/peers"
SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["asn"],
            "properties": {
                "asn": {"type": "integer", "minimum": 1, "maximum": 4294967295},
                "address": {"type": "string", "format": "ipv4"},
                "title": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
                "mode": {"type": "string", "enum": ["active", "passive"], "default": "active"},
                "timers": {"type": "object", "default": {}, "properties": {"hold": {"type": "integer", "default": 90}}},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}},
                },
                "any": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "one": {
                    "type": "object",
                    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                    "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                },
            },
        },
        "status": {"type": "object", "properties": {"state": {"type": "string"}, "up": {"type": "integer"}}},
    },
}
VERSION: Object = {
    "name": "v1",
    "served": True,
    "storage": True,
    "schema": {"openAPIV3Schema": SCHEMA},
    "subresources": {"status": {}},
    "additionalPrinterColumns": [
        {"name": "ASN", "type": "integer", "jsonPath": ".spec.asn"},
        {"name": "State", "type": "string", "jsonPath": ".status.state"},
        {"name": "Ports", "type": "string", "jsonPath": ".spec.ports[*].port"},
        {"name": "Note", "type": "string", "jsonPath": ".metadata.annotations.example\\.org/note"},
    ],
    "selectableFields": [{"jsonPath": ".spec.mode"}],
}
SPEC: Object = {
    "group": "net.example.org",
    "scope": "Cluster",
    "names": {"plural": "peers", "kind": "Peer", "shortNames": ["pr"]},
    "versions": [VERSION],
}


async def define(api: Api, spec: Object = SPEC) -> Object:
    """The definition as it was stored."""
    return await api("POST", CRDS, {"metadata": {"name": "peers.net.example.org"}, "spec": copy.deepcopy(spec)})


@pytest.fixture
async def api() -> Api:
    api = Api()
    await define(api)
    return api


def peer(name: str = "p", **spec: Any) -> Object:
    return {"apiVersion": "net.example.org/v1", "kind": "Peer", "metadata": {"name": name}, "spec": {"asn": 1, **spec}}


async def test_a_definition_is_established_at_once(api: Api) -> None:
    found = await api("GET", f"{CRDS}/peers.net.example.org")
    assert {c["type"]: c["status"] for c in found["status"]["conditions"]} == {"NamesAccepted": "True", "Established": "True"}
    assert found["spec"]["names"]["listKind"] == "PeerList"
    groups = await api("GET", "/apis")
    assert "net.example.org" in [group["name"] for group in groups["groups"]]
    (row,) = [r for r in (await api("GET", "/apis/net.example.org/v1"))["resources"] if r["name"] == "peers"]
    assert (row["kind"], row["shortNames"], row["namespaced"]) == ("Peer", ["pr"], False)


async def test_defaults_come_and_what_is_unknown_goes(api: Api) -> None:
    made = await api("POST", PEERS, peer(free={"x": [1]}, any="80", unknown=1))
    assert made["spec"] == {"asn": 1, "mode": "active", "timers": {"hold": 90}, "free": {"x": [1]}, "any": "80"}
    await api.refused("BadRequest", "POST", PEERS, peer("q", unknown=1), fieldValidation="Strict")
    assert await api.names(PEERS, fieldSelector="spec.mode=active") == ["p"]
    assert await api.names(PEERS, fieldSelector="spec.mode=passive") == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"asn": 0}, "spec.asn"),
        ({"asn": "one"}, "spec.asn"),
        ({"asn": None}, "spec.asn"),
        ({"address": "10.0.0.256"}, "spec.address"),
        ({"title": "ABC"}, "spec.title"),
        ({"title": "abcdefg"}, "spec.title"),
        ({"mode": "other"}, "spec.mode"),
        ({"ports": [{}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 1}, {"port": 1}]}, "spec.ports[1]"),
        ({"any": True}, "spec.any"),
        ({"one": {}}, "spec.one"),
        ({"one": {"a": "1", "b": "2"}}, "spec.one"),
    ],
)
async def test_what_the_schema_forbids_is_said_with_its_place(api: Api, spec: Object, field: str) -> None:
    answer = await api.answer("POST", PEERS, peer(**spec))
    status = json.loads(answer.body)
    assert (answer.status, status["reason"]) == (422, "Invalid")
    assert field in [cause["field"] for cause in status["details"]["causes"]]


async def test_status_is_written_apart_and_generation_counts_the_rest(api: Api) -> None:
    made = await api("POST", PEERS, {**peer(), "status": {"state": "Up"}})
    assert "status" not in made
    after = await api("PATCH", f"{PEERS}/p/status", {"status": {"state": "Up"}, "spec": {"asn": 7}})
    assert (after["status"], after["spec"]["asn"], after["metadata"]["generation"]) == ({"state": "Up"}, 1, 1)
    after = await api("PATCH", f"{PEERS}/p", {"spec": {"asn": 7}, "status": {"state": "Down"}})
    assert (after["status"], after["metadata"]["generation"]) == ({"state": "Up"}, 2)
    await api.refused("NotFound", "GET", f"{PEERS}/p/scale")
    del after["metadata"]["resourceVersion"]
    await api.refused("Invalid", "PUT", f"{PEERS}/p", after)


async def test_columns_are_what_the_definition_says(api: Api) -> None:
    body = peer(ports=[{"port": 1}, {"port": 2}])
    body["metadata"]["annotations"] = {"example.org/note": "here"}
    await api("POST", PEERS, body)
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    answer = await api.server.handle(Request("GET", PEERS, {}, {"authorization": "Bearer secret", "accept": accept}))
    assert isinstance(answer, Response)
    table = json.loads(answer.body)
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "ASN", "State", "Ports", "Note"]
    assert table["rows"][0]["cells"] == ["p", 1, None, "1", "here"]


async def test_versions_are_of_one_object() -> None:
    api = Api()
    second = {**copy.deepcopy(VERSION), "name": "v2", "storage": False}
    await define(api, {**SPEC, "versions": [VERSION, second]})
    await api("POST", PEERS, peer())
    newer = "/apis/net.example.org/v2/peers"
    found = await api("GET", f"{newer}/p")
    assert found["apiVersion"] == "net.example.org/v2"
    assert (await api("PUT", f"{newer}/p", found))["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]
    assert (await api("GET", f"{PEERS}/p"))["apiVersion"] == "net.example.org/v1"
    assert [o["apiVersion"] for o in (await api("GET", newer))["items"]] == ["net.example.org/v2"]


async def test_a_definition_that_changes_is_served_as_it_is_now(api: Api) -> None:
    change = {"spec": {"versions": [{**copy.deepcopy(VERSION), "served": False}]}}
    await api("PATCH", f"{CRDS}/peers.net.example.org", change)
    await api.refused("NotFound", "GET", PEERS)
    await api("PATCH", f"{CRDS}/peers.net.example.org", {"spec": {"versions": [VERSION]}})
    assert await api.names(PEERS) == []


@pytest.mark.parametrize("name", ["v" + "1" * 5000, "v1beta" + "1" * 5000, "v" + "1" * 63])
async def test_a_version_with_a_long_name_is_refused_and_stops_no_discovery(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    body = {"metadata": {"name": "peers.net.example.org"}, "spec": {**SPEC, "versions": [{**VERSION, "name": name}]}}
    assert "63 characters" in await api.refused("Invalid", "POST", CRDS, body)
    monkeypatch.setattr("podplane.apiserver.kinds.custom.MAX_LABEL", 1 << 20)  # one that was stored before
    await api("POST", CRDS, body)
    groups = (await api("GET", "/apis"))["groups"]
    assert [g["preferredVersion"]["version"] for g in groups if g["name"] == "net.example.org"] == [name]


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"type": "string"}, "type"),
        ({"type": "object", "properties": {"a": {}}}, "properties[a].type"),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, "properties[a].items"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, ""),
    ],
)
async def test_schemas_that_are_none(schema: Object, field: str) -> None:
    api = Api()
    version = {**VERSION, "schema": {"openAPIV3Schema": schema}}
    answer = await api.answer(
        "POST", CRDS, {"metadata": {"name": "peers.net.example.org"}, "spec": {**SPEC, "versions": [version]}}
    )
    where = f"spec.versions[0].schema.openAPIV3Schema{'.' if field else ''}{field}"
    assert answer.status == 422
    assert where in [cause["field"] for cause in json.loads(answer.body)["details"]["causes"]]


async def test_definitions_come_back_with_the_store(api: Api, tmp_path: Any) -> None:
    path = tmp_path / "state.db"
    first = Api(path)
    await define(first)
    await first("POST", PEERS, peer())
    first.store.close()
    assert await Api(path).names(PEERS) == ["p"]


async def test_a_list_that_is_required_is_asked_for() -> None:
    """Of a custom kind: of a built-in one, a list that is not there is an empty one."""
    api, spec = Api(), copy.deepcopy(SPEC)
    schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["required"] = ["asn", "ports"]
    await define(api, spec)
    said = await api.refused("Invalid", "POST", PEERS, {"metadata": {"name": "a"}, "spec": {"asn": 1}})
    assert "spec.ports: Required value" in said
    made = await api("POST", PEERS, {"metadata": {"name": "a"}, "spec": {"asn": 1, "ports": []}})
    assert made["spec"]["ports"] == []
    await api.refused("Invalid", "PATCH", f"{PEERS}/a", {"spec": {"ports": None}})


async def test_what_is_required_may_be_a_field_that_is_not_described() -> None:
    api, spec = Api(), copy.deepcopy(SPEC)
    schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"] |= {"required": ["other"], "x-kubernetes-preserve-unknown-fields": True}
    await define(api, spec)
    said = await api.refused("Invalid", "POST", PEERS, {"metadata": {"name": "a"}, "spec": {"asn": 1}})
    assert "spec.other: Required value" in said
    await api("POST", PEERS, {"metadata": {"name": "a"}, "spec": {"asn": 1, "other": 2}})


@pytest.mark.parametrize("metadata", ["25%", [], 3, None, True])
async def test_a_replacement_whose_metadata_is_no_object_is_refused(api: Api, metadata: Any) -> None:
    await api("POST", PEERS, peer())
    said = await api.refused("Invalid", "PUT", f"{PEERS}/p", {**peer(), "metadata": metadata})
    assert "metadata.resourceVersion" in said


@pytest.mark.parametrize("place", ["items", "additionalProperties", "not"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"properties": {"a": ["x"]}},
        {"properties": 3},
        {"type": 3},
        {"items": {"properties": {"a": 1}}},
        {"required": "a"},
        "x",
        3,
    ],
)
async def test_a_schema_within_another_is_read_as_strictly(place: str, wrong: Any) -> None:
    """Whatever stands in its place: nothing of it makes the API fail."""
    api, spec = Api(), copy.deepcopy(SPEC)
    schema = spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["odd"] = {"type": "array" if place == "items" else "object", place: wrong}
    said = await api.refused("BadRequest", "POST", CRDS, {"metadata": {"name": "peers.net.example.org"}, "spec": spec})
    assert "must be" in said


async def test_what_a_schema_within_another_does_not_say_is_not_there() -> None:
    api, spec = Api(), copy.deepcopy(SPEC)
    schema = spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["odd"] = {"type": "array", "items": {"type": "string", "properties": None, "unknown": 1}}
    made = await define(api, spec)
    found = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["odd"]
    assert found == {"type": "array", "items": {"type": "string"}}


async def test_several_schemas_for_the_items_of_a_list_are_refused() -> None:
    api, spec = Api(), copy.deepcopy(SPEC)
    schema = spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["odd"] = {"type": "array", "items": [{"type": "string"}]}
    definition = {"metadata": {"name": "peers.net.example.org"}, "spec": spec}
    assert "must be a schema object and not an array" in await api.refused("Invalid", "POST", CRDS, definition)

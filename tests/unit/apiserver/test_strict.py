"""Strict reading: what is not known and what is there twice is named as kube-apiserver names it, refused, warned of, or let pass.

The bodies and the words are those of Kubernetes' own test (test/integration/apiserver/field_validation_test.go).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import decoding, strict, yaml_bodies
from podplane.apiserver.problems import Problem
from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_server import Api, Object

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
JSON_BODY = b"""{
  "apiVersion": "apps/v1", "kind": "Deployment",
  "metadata": {"name": "web", "labels": {"app": "nginx"}},
  "spec": {
    "unknown1": "val1",
    "unknownDupe": "valDupe", "unknownDupe": "valDupe2",
    "paused": true, "paused": false,
    "selector": {"matchLabels": {"app": "nginx"}},
    "template": {
      "metadata": {"labels": {"app": "nginx"}},
      "spec": {"containers": [{
        "name": "nginx", "image": "podplane/echo",
        "unknownNested": "val1",
        "imagePullPolicy": "Always", "imagePullPolicy": "Never"
      }]}
    }
  }
}"""
YAML_BODY = b"""apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels:
    app: nginx
spec:
  unknown1: val1
  unknownDupe: valDupe
  unknownDupe: valDupe2
  paused: true
  paused: false
  selector:
    matchLabels:
      app: nginx
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: podplane/echo
        unknownNested: val1
        imagePullPolicy: Always
        imagePullPolicy: Never"""
CONTAINER = "spec.template.spec.containers[0]"
IN_JSON = [
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
    'duplicate field "spec.paused"',
    f'unknown field "{CONTAINER}.unknownNested"',
    f'duplicate field "{CONTAINER}.imagePullPolicy"',
]
LINES = [
    'line 10: key "unknownDupe" already set in map',
    'line 12: key "paused" already set in map',
    'line 26: key "imagePullPolicy" already set in map',
]
IN_YAML = [
    *LINES,
    f'unknown field "{CONTAINER}.unknownNested"',
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
]
MERGE = "application/merge-patch+json"
BODIES = {"application/json": (JSON_BODY, IN_JSON), "application/yaml": (YAML_BODY, IN_YAML)}


async def send(api: Api, method: str, path: str, body: bytes, kind: str, **query: str) -> tuple[int, Object, list[str]]:
    """The status, the object and the warnings of an answer."""
    headers = {"authorization": "Bearer secret", "content-type": kind}
    answer = await api.server.handle(Request(method, path, {k: [v] for k, v in query.items()}, headers, body))
    assert isinstance(answer, Response)
    warnings = [
        value.removeprefix('299 - "').removesuffix('"').replace('\\"', '"') for n, value in answer.headers if n == "warning"
    ]
    return answer.status, json.loads(answer.body), warnings


@pytest.mark.parametrize("kind", BODIES)
async def test_warnings_name_everything(kind: str) -> None:
    body, expected = BODIES[kind]
    for query in ({}, {"fieldValidation": "Warn"}):
        status, made, warnings = await send(Api(), "POST", DEPLOYMENTS, body, kind, **query)
        assert (status, warnings) == (201, expected)
        assert "paused" not in made["spec"]
        assert made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Never"
        assert "unknown1" not in made["spec"]


@pytest.mark.parametrize("kind", BODIES)
async def test_nothing_is_said_when_it_is_to_be_ignored(kind: str) -> None:
    assert (await send(Api(), "POST", DEPLOYMENTS, BODIES[kind][0], kind, fieldValidation="Ignore"))[::2] == (201, [])


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("kind", BODIES)
async def test_strictly_it_is_refused(kind: str, method: str) -> None:
    api, path = Api(), DEPLOYMENTS
    if method == "PUT":
        await send(api, "POST", DEPLOYMENTS, JSON_BODY, "application/json", fieldValidation="Ignore")
        path = f"{DEPLOYMENTS}/web"
    before = api.store.version
    status, refusal, warnings = await send(api, method, path, BODIES[kind][0], kind, fieldValidation="Strict")
    said = ", ".join(IN_JSON)
    if kind != "application/json":
        said = ", ".join(["\n  ".join(["yaml: unmarshal errors:", *LINES]), *IN_YAML[3:]])
    head = 'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
    assert (status, refusal["reason"], refusal["message"], warnings) == (400, "BadRequest", head + said, [])
    assert api.store.version == before


@pytest.mark.parametrize(
    ("kind", "patch", "expected"),
    [
        (
            MERGE,
            b'{"spec":{"foo":"bar","paused":true,"paused":false,"twice":1,"twice":2}}',
            [
                'duplicate field "spec.paused"',
                'duplicate field "spec.twice"',
                'unknown field "spec.foo"',
                'unknown field "spec.twice"',
            ],
        ),
        (
            "application/strategic-merge-patch+json",
            b'{"spec":{"foo":"bar","paused":true,"paused":false}}',
            ['duplicate field "spec.paused"', 'unknown field "spec.foo"'],
        ),
        (
            "application/json-patch+json",
            b'[{"op":"add","path":"/spec/foo","path":"/spec/bar","value":1,"more":2}]',
            ['json patch duplicate field "[0].path"', 'json patch unknown field "[0].more"', 'unknown field "spec.bar"'],
        ),
    ],
)
async def test_patches(kind: str, patch: bytes, expected: list[str]) -> None:
    api, path = Api(), f"{DEPLOYMENTS}/web"
    await send(api, "POST", DEPLOYMENTS, JSON_BODY, "application/json", fieldValidation="Ignore")
    assert (await send(api, "PATCH", path, patch, kind))[::2] == (200, expected)
    assert (await send(api, "PATCH", path, patch, kind, fieldValidation="Ignore"))[::2] == (200, [])
    status, refusal, _ = await send(api, "PATCH", path, patch, kind, fieldValidation="Strict")
    assert (status, refusal["reason"]) == (422, "Invalid")
    assert refusal["message"].startswith(' "" is invalid: patch: Invalid value: "{')
    assert refusal["message"].endswith(f": strict decoding error: {', '.join(expected)}")


SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "knownField1": {"type": "string"},
                "ports": {"type": "array", "items": {"type": "object", "properties": {"hostPort": {"type": "integer"}}}},
                "by": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
            },
        }
    },
}
CRD = {
    "group": "example.org",
    "scope": "Cluster",
    "names": {"plural": "noxus", "kind": "Noxu"},
    "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}],
}
CUSTOM = (
    b'{"apiVersion":"example.org/v1","kind":"Noxu","metadata":{"name":"n"},"spec":{"unknown1":"v","unknownDupe":"v","unknownDupe":"w",'
    b'"knownField1":"a","knownField1":"b","ports":[{"hostPort":8081,"hostPort":8082,"unknownNested":"v"}],"by":{"k.x":{"b":1}}}}'
)


async def test_of_custom_resources_what_is_there_twice_comes_first() -> None:
    api = Api()
    body = {"metadata": {"name": "noxus.example.org"}, "spec": CRD}
    await api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    path, expected = (
        "/apis/example.org/v1/noxus",
        [
            'duplicate field "spec.unknownDupe"',
            'duplicate field "spec.knownField1"',
            'duplicate field "spec.ports[0].hostPort"',
            'unknown field "spec.by.k.x.b"',
            'unknown field "spec.ports[0].unknownNested"',
            'unknown field "spec.unknown1"',
            'unknown field "spec.unknownDupe"',
        ],
    )
    status, refusal, _ = await send(api, "POST", path, CUSTOM, "application/json", fieldValidation="Strict")
    head = 'Noxu in version "v1" cannot be handled as a Noxu: strict decoding error: '
    assert (status, refusal["message"]) == (400, head + ", ".join(expected))
    assert (await send(api, "POST", path, CUSTOM, "application/json"))[::2] == (201, expected)


async def test_fields_below_the_key_of_a_map_are_named_by_it() -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "wrong": 1}}}
    spec = {**CRD, "versions": [{**CRD["versions"][0], "schema": {"openAPIV3Schema": schema}}]}  # type: ignore[index]
    body = json.dumps({"metadata": {"name": "noxus.example.org"}, "spec": spec}).encode()
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    _, refusal, _ = await send(Api(), "POST", path, body, "application/json", fieldValidation="Strict")
    assert 'unknown field "spec.versions[0].schema.openAPIV3Schema.properties.spec.wrong"' in refusal["message"]


async def test_there_are_three_modes() -> None:
    status, refusal, _ = await send(Api(), "POST", DEPLOYMENTS, JSON_BODY, "application/json", fieldValidation="Loose")
    assert (status, refusal["reason"]) == (422, "Invalid")
    said = 'fieldValidation: Unsupported value: "Loose": supported values: "", "Ignore", "Strict", "Warn"'
    assert refusal["message"] == f'CreateOptions.meta.k8s.io "" is invalid: {said}'


async def test_many_are_counted() -> None:
    spec = {f"u{number:02}": 1 for number in range(30)}
    body = json.dumps({"metadata": {"name": "c"}, "more": 1, **spec}).encode()
    maps = "/api/v1/namespaces/default/configmaps"
    _, refusal, _ = await send(Api(), "POST", maps, body, "application/json", fieldValidation="Strict")
    assert refusal["message"].endswith('unknown field "u18" and 11 more')


@pytest.mark.parametrize("body", [b"- " * 60_000 + b"1", b"[" * 60_000, b"{a: " * 60_000, b"a: &a b\nc: *a"])
async def test_yaml_that_would_end_the_process_is_refused(body: bytes) -> None:
    maps = "/api/v1/namespaces/default/configmaps"
    status, refusal, _ = await send(Api(), "POST", maps, body, "application/yaml")
    assert (status, refusal["reason"]) == (400, "BadRequest")
    with pytest.raises(Problem):
        decoding.body(Request("POST", maps, {}, {"content-type": "application/yaml"}, body))


@pytest.mark.parametrize("body", [b"{", b'{"a":' * 5000, b"\xff", b""])
def test_what_is_no_json_is_refused_elsewhere(body: bytes) -> None:
    assert strict.in_json(body) == strict.Twice()


values = st.recursive(
    st.integers() | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=12,
)


def twice_in(text: str) -> list[str]:
    """What is said of a document in YAML."""
    return strict.in_yaml(yaml_bodies.read(text.encode(), 100, 100_000)).lines


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), values, max_size=4))
def test_of_what_is_there_once_nothing_is_said(value: dict[str, Any]) -> None:
    assert strict.in_json(json.dumps(value).encode()).paths == []
    assert strict.is_plain(json.dumps(value, separators=(",", ":")).encode() + b"\n")
    assert twice_in(yaml.safe_dump(value)) == []
    assert twice_in(yaml.safe_dump(value, default_flow_style=True)) == []


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), st.sampled_from(["", "x", "[0]"]))
def test_each_key_that_is_there_again_is_named(keys: list[str], under: str) -> None:
    """In YAML each time, in JSON once."""
    fields = ", ".join(f'"{key}": 1' for key in keys)
    text = {"": "{%s}", "x": '{"x": {%s}}', "[0]": "[{%s}]"}[under] % fields
    again = [key for number, key in enumerate(keys) if key in keys[:number]]
    prefix = f"{under}." if under else ""
    assert not (again and strict.is_plain(text.replace(", ", ",").replace(": ", ":").encode()))
    assert strict.in_json(text.encode()).paths == [f"{prefix}{key}" for key in dict.fromkeys(again)]
    assert twice_in(text) == [f'line 1: key "{key}" already set in map' for key in again]

"""What makes no sense is refused as a client's mistake (never 500), is not stored, and breaks nothing for others."""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec
import pytest

from podplane.model.objects import Namespace, Node
from podplane.model.pod import Pod
from tests.unit.apiserver.test_server import POD, PODS, Api

CONTAINER = {"name": "main", "image": "podplane/echo"}
MODELS: dict[str, Any] = {"/api/v1/nodes": Node, PODS: Pod, "/api/v1/namespaces": Namespace}


@pytest.fixture
def api(caplog: pytest.LogCaptureFixture) -> Api:
    caplog.set_level(logging.CRITICAL)
    return Api()


def case(path: str, body: dict[str, Any]) -> Any:
    return path, {"metadata": {}, **body}


def pod(**container: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{**CONTAINER, **container}]}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        case("/api/v1/nodes", {"spec": []}),
        case("/api/v1/nodes", {"status": "x"}),
        case(PODS, {"spec": None}),
        case(PODS, pod(command=[1])),
        case(PODS, pod(args="x")),
        case(PODS, pod(image=5)),
        case(PODS, pod(name="x" * 64)),
        case(PODS, {"spec": {"containers": {"main": {}}}}),
        case("/api/v1/nodes", {"spec": {"podCIDRs": ["garbage"]}}),
        case("/api/v1/nodes", {"spec": {"podCIDRs": "10.1.0.0/24"}}),
        case("/api/v1/namespaces", {"spec": "x"}),
        case(PODS, pod(env=5)),
        case(PODS, {"spec": {"containers": [CONTAINER], "nodeName": ["n1"]}}),
        case(PODS, {**POD, "metadata": {"labels": "x"}}),
        case(PODS, {**POD, "metadata": {"labels": {"a": 1}}}),
        case(PODS, {**POD, "metadata": {"annotations": {"a": 1}}}),
        case(PODS, pod(env=[{"name": "A", "value": 1}])),
        case(PODS, pod(ports=[{"name": "http"}])),
        case(PODS, pod(ports=[{"containerPort": "80"}])),
        case(PODS, pod(workingDir=5)),
        case(PODS, {"spec": {"containers": [CONTAINER], "hostNetwork": "yes"}}),
        case(PODS, {"spec": {"containers": [CONTAINER], "hostname": 5}}),
        case("/api/v1/nodes", {"spec": {"unschedulable": "yes"}}),
        case("/api/v1/nodes", {"status": {"addresses": [{"type": 5}]}}),
    ],
)
async def test_an_object_of_wrong_types_is_refused_and_not_stored(api: Api, path: str, body: dict[str, Any]) -> None:
    body["metadata"] = {"name": "bad", **body["metadata"]}
    answer = await api.answer("POST", path, body)
    assert json.loads(answer.body)["reason"] in ("BadRequest", "Invalid")
    await api.refused("NotFound", "GET", f"{path}/bad")
    assert (await api.answer("GET", path, labelSelector="a=b")).status == 200
    for item in (await api("GET", path))["items"]:
        msgspec.convert(item, MODELS[path])


@pytest.mark.parametrize(
    ("path", "patch"),
    [
        (f"{PODS}/a/status", {"status": "x"}),
        (f"{PODS}/a/status", {"status": {"podIPs": ["10.1.0.1"]}}),
        (f"{PODS}/a", {"metadata": {"labels": ["x"]}}),
        (f"{PODS}/a", {"kind": "Node"}),
        (f"{PODS}/a", {"spec": {"containers": None}}),
        (f"{PODS}/a", {"spec": {"containers": [{"name": "other"}]}}),
        (f"{PODS}/a", {"metadata": "x"}),
    ],
)
async def test_a_patch_that_makes_no_sense_changes_nothing(api: Api, path: str, patch: dict[str, Any]) -> None:
    made = await api.pod("a")
    answer = await api.answer("PATCH", path, patch)
    assert await api("GET", f"{PODS}/a") == made
    assert json.loads(answer.body)["reason"] in ("BadRequest", "Invalid")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["1" * 1_000_000 + "x", "1." * 300_000, "a." * 300_000 + "!", "a-" * 300_000 + "!"])
async def test_long_texts_are_refused_in_no_time(api: Api, text: str) -> None:
    """No pattern takes more than linear time, else one request stops everybody."""
    for body in (
        pod(resources={"limits": {"cpu": text}}),
        {**POD, "metadata": {"name": text}},
        {**POD, "metadata": {"name": "a", "labels": {text: text}}},
        {**POD, "metadata": {"name": "a", "annotations": {text: ""}, "finalizers": [text]}},
        pod(ports=[{"containerPort": 1, "name": text}], env=[{"name": text, "value": ""}]),
    ):
        body = {"metadata": {"name": "a"}, **body}
        assert (await api.answer("POST", PODS, body)).status in (400, 422)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b'"x"',
        b"{} trailing",
        b'{"metadata": {"name": "a"}} {}',
        b"\xff\xfe",
        b'{"metadata": {"name": "\\ud800"}}',
        b'{"metadata": {"name": "a"}, "spec": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    ],
)
async def test_a_body_that_is_no_object_is_a_bad_request(api: Api, body: bytes) -> None:
    await api.refused("BadRequest", "POST", "/api/v1/nodes", body)


@pytest.mark.parametrize(
    "options",
    [
        {"gracePeriodSeconds": "soon"},
        {"gracePeriodSeconds": [1]},
        {"preconditions": "x"},
    ],
)
async def test_delete_options_that_make_no_sense_delete_nothing(api: Api, options: dict[str, Any]) -> None:
    await api.node("n1")
    made = await api.pod("a")
    await api.refused("BadRequest", "DELETE", f"{PODS}/a", options)
    assert await api("GET", f"{PODS}/a") == made


@pytest.mark.parametrize(("own", "asked"), [(10**12, None), (30, 10**12)])
async def test_a_very_long_grace_is_refused_or_kept_to(api: Api, own: int, asked: int | None) -> None:
    await api.node("n1")
    spec = {**POD["spec"], "terminationGracePeriodSeconds": own}
    made = await api.answer("POST", PODS, {"metadata": {"name": "a"}, "spec": spec})
    answer = await api.answer("DELETE", f"{PODS}/a", {"gracePeriodSeconds": asked})
    assert made.status == 422 or answer.status in (200, 400, 422)


async def test_a_delete_of_another_version_is_a_conflict(api: Api) -> None:
    await api.pod("a")
    await api.refused("Conflict", "DELETE", f"{PODS}/a", {"preconditions": {"resourceVersion": "1"}})


async def test_a_status_alone_can_not_be_deleted(api: Api) -> None:
    await api.pod("a")
    await api.refused("MethodNotAllowed", "DELETE", f"{PODS}/a/status")


async def test_an_update_of_another_namespace_is_a_bad_request(api: Api) -> None:
    made = await api.pod("a")
    made["metadata"]["namespace"] = "kube-system"
    await api.refused("BadRequest", "PUT", f"{PODS}/a", made)


NULLS = [
    ("/api/v1/namespaces", {"metadata": {"name": "a", "labels": None}}),
    ("/api/v1/namespaces", {"metadata": {"name": "a"}, "spec": None}),
    ("/api/v1/nodes", {"metadata": {"name": "a"}, "spec": None}),
    (PODS, {"metadata": {"name": "a"}, "spec": {**POD["spec"], "terminationGracePeriodSeconds": None}}),
    (PODS, {"metadata": {"name": "a", "labels": None, "creationTimestamp": None}, **POD}),
    (PODS, {"metadata": {"name": "a"}, **pod(env=None)}),
]


@pytest.mark.parametrize(("path", "body"), NULLS)
async def test_null_is_as_good_as_nothing(api: Api, path: str, body: dict[str, Any]) -> None:
    """As `kubectl create --dry-run=client -o yaml` writes it, and as every Go decoder reads it."""
    answer = await api.answer("POST", path, body)
    assert answer.status == 201, answer.body

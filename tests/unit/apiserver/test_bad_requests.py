"""Requests that make no sense: each is refused with the reason and the field, none fails inside, and nothing is stored."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.test_server import POD, PODS, Api

NODES, NAMESPACES = "/api/v1/nodes", "/api/v1/namespaces"


def pod(**container: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "m", "image": "podplane/echo", **container}]}}


@pytest.mark.parametrize(
    ("path", "body", "reason", "words"),
    [
        (NAMESPACES, {"metadata": {"name": "a"}, "spec": 5}, "BadRequest", "spec: must be an object"),
        (NODES, {"metadata": {"name": "a"}, "spec": {"podCIDRs": ["x"]}}, "Invalid", "spec.podCIDRs[0]: Invalid value"),
        (NODES, {"metadata": {"name": "a"}, "spec": {"podCIDRs": 5}}, "BadRequest", "spec.podCIDRs: must be a list"),
        (
            NODES,
            {"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.244.8.0/24", "10.244.9.0/24"]}},
            "Invalid",
            "may specify no more than one CIDR for each IP family",
        ),
        (
            PODS,
            {"metadata": {"name": "p", "labels": "x"}, **POD},
            "BadRequest",
            "metadata.labels: must be an object, not a string",
        ),
        (
            PODS,
            {"metadata": {"name": "p", "annotations": {"a": 1}}, **POD},
            "BadRequest",
            "metadata.annotations[a]: must be a string",
        ),
        (PODS, {"metadata": {"name": "p"}, "spec": {**POD["spec"], "nodeName": ["a"]}}, "BadRequest", "spec.nodeName: must be"),
        (PODS, pod(env=5), "BadRequest", "spec.containers[0].env: must be a list"),
        (PODS, pod(env=[{"name": "a", "value": 1}]), "BadRequest", "spec.containers[0].env[0].value: must be a string"),
        (PODS, {"metadata": {"generateName": 5}, **POD}, "BadRequest", "metadata.generateName"),
        (PODS, {"metadata": {"name": "p\n"}, **POD}, "Invalid", "metadata.name"),
        (PODS, {"metadata": {"name": "p", "namespace": "other"}, **POD}, "BadRequest", "the namespace of the provided object"),
        ("/api/v1/pods", {"metadata": {"name": "p"}, **POD}, "MethodNotAllowed", "POST is not served"),
        (PODS, b'{"metadata":{"name":"\\ud800"}}', "BadRequest", "not JSON"),
        (PODS, b'{"metadata":{"name":"\xff"}}', "BadRequest", "not JSON"),
        (PODS, b'{"metadata":{},"spec":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "BadRequest", "recursion"),
    ],
)
async def test_creations(path: str, body: Any, reason: str, words: str) -> None:
    api = Api()
    before = api.store.version
    assert words in await api.refused(reason, "POST", path, body)
    assert api.store.version == before


@pytest.mark.parametrize("options", ["x", "", [1], [], 0, False, {"gracePeriodSeconds": "x"}, {"kind": "Pod"}])
async def test_evictions_whose_options_are_none(options: Any) -> None:
    api = Api()
    await api("POST", PODS, {"metadata": {"name": "p"}, **POD})
    body = {"metadata": {"name": "p"}, "deleteOptions": options}
    assert "DeleteOptions" in await api.refused("BadRequest", "POST", f"{PODS}/p/eviction", body)
    assert "deletionTimestamp" not in (await api("GET", f"{PODS}/p"))["metadata"]
    await api("POST", f"{PODS}/p/eviction", {**body, "deleteOptions": None})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preconditions": "x"}, "BadRequest"),
        ({"preconditions": {"resourceVersion": "1"}}, "Conflict"),
        ({"preconditions": {"uid": "another"}}, "Conflict"),
        ({"gracePeriodSeconds": -1}, "BadRequest"),
        ({"gracePeriodSeconds": 1e300}, "BadRequest"),
        ({"gracePeriodSeconds": "soon"}, "BadRequest"),
    ],
)
async def test_deletions(options: dict[str, Any], reason: str) -> None:
    api = Api()
    await api.node("n1")
    await api.pod("web")
    await api.refused(reason, "DELETE", f"{PODS}/web", options)
    assert "deletionTimestamp" not in (await api("GET", f"{PODS}/web"))["metadata"]


async def test_a_grace_of_ages_is_a_long_grace() -> None:
    api = Api()
    await api.node("n1")
    await api.pod("web", nodeName="n1")
    marked = await api("DELETE", f"{PODS}/web", {"gracePeriodSeconds": 10**12})
    assert marked["metadata"]["deletionTimestamp"] > "2030"


async def test_an_objects_status_can_not_be_deleted() -> None:
    api = Api()
    await api.pod("web")
    await api.refused("MethodNotAllowed", "DELETE", f"{PODS}/web/status")


async def test_what_is_null_counts_as_not_said() -> None:
    api = Api()
    made = await api("POST", NAMESPACES, {"metadata": {"name": "a", "labels": None}, "spec": None})
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}
    await api("POST", PODS, {"metadata": {"name": "p", "namespace": ""}, **POD})


@pytest.mark.parametrize("patch", [{"kind": "Pod"}, {"apiVersion": "v2"}, {"metadata": {"name": "other"}}, {"metadata": 5}])
async def test_patches_into_something_else(patch: dict[str, Any]) -> None:
    api = Api()
    await api.node("n1")
    await api.refused("BadRequest", "PATCH", f"{NODES}/n1", patch)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_what_is_to_be_tried_only_is_answered_and_not_done(method: str) -> None:
    api = Api()
    await api.pod("web")
    before = api.store.version
    body = {"metadata": {"name": "p"}, **POD} if method == "POST" else None
    found = await api(method, PODS if body else f"{PODS}/web", body, dryRun="All")
    assert found["metadata"]["name"] == ("p" if body else "web")
    assert await api.names(PODS) == ["web"]
    assert api.store.version == before
    said = await api.refused("Invalid", method, PODS if body else f"{PODS}/web", body, dryRun="Some")
    assert said.endswith('Options.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"')


async def test_a_pod_on_a_node_that_is_not_there_goes_at_once() -> None:
    api = Api()
    await api.pod("lost", nodeName="nosuch")
    await api("DELETE", f"{PODS}/lost")
    assert await api.names(PODS) == []

"""A namespace that is being deleted: what it says of what remains, its finalizers and their subresource, and who may still write to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.test_server import Api, Object

TEAM = "/api/v1/namespaces/team"
MAPS = f"{TEAM}/configmaps"
HOLD = "example.org/hold"


async def held(made: Any, *, spec: Object | None = None) -> Any:
    """A namespace with a ConfigMap that something holds."""
    await made("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}, "spec": spec or {}})
    await made("POST", MAPS, {"metadata": {"name": "held", "finalizers": [HOLD]}})
    return made


def finalizers(*names: str, **more: Any) -> Object:
    """A body of the subresource `finalize`."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", **more}, "spec": {"finalizers": list(names)}}


async def test_it_says_what_remains() -> None:
    made = await held(await Cluster(0).begin())
    for name in ("x", "y"):
        metadata = {"name": name, "finalizers": [HOLD, "example.org/more"]}
        await made("POST", f"{TEAM}/secrets", {"metadata": metadata, "stringData": {"a": "b"}})
    await made("DELETE", TEAM)
    await made.settle()
    found = {c["type"]: (c["status"], c["reason"], c["message"]) for c in (await made("GET", TEAM))["status"]["conditions"]}
    assert found == {
        "NamespaceDeletionDiscoveryFailure": ("False", "ResourcesDiscovered", "All resources successfully discovered"),
        "NamespaceDeletionGroupVersionParsingFailure": (
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        "NamespaceDeletionContentFailure": (
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        "NamespaceContentRemaining": (
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: configmaps. has 1 resource instances, secrets. has 2 resource instances",
        ),
        "NamespaceFinalizersRemaining": (
            "True",
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {HOLD} in 3 resource instances, "
            "example.org/more in 2 resource instances",
        ),
    }
    before = (await made("GET", TEAM))["metadata"]["resourceVersion"]
    await made.settle(10)
    assert (await made("GET", TEAM))["metadata"]["resourceVersion"] == before
    for name in ("x", "y"):
        await made("PATCH", f"{TEAM}/secrets/{name}", {"metadata": {"finalizers": None}})
    await made.settle(10)
    condition = next(c for c in (await made("GET", TEAM))["status"]["conditions"] if c["type"] == "NamespaceContentRemaining")
    assert condition["message"] == "Some resources are remaining: configmaps. has 1 resource instances"
    await made("PATCH", f"{MAPS}/held", {"metadata": {"finalizers": None}})
    await made.settle(10)
    await made.refused("NotFound", "GET", TEAM)


async def test_nothing_is_made_in_it() -> None:
    api = await held(Api())
    await api("DELETE", TEAM)
    answer = await api.answer("POST", MAPS, {"metadata": {"name": "late"}})
    status = json.loads(answer.body)
    why = "unable to create new content in namespace team because it is being terminated"
    assert status["message"] == f'configmaps "late" is forbidden: {why}'
    cause = {
        "reason": "NamespaceTerminating",
        "message": "namespace team is being terminated",
        "field": "metadata.namespace",
    }
    assert (answer.status, status["details"]["causes"]) == (403, [cause])


async def test_who_finalizes_it_lets_it_go_and_leaves_its_contents() -> None:
    """What users do with a namespace that hangs: `kubectl replace --raw /api/v1/namespaces/NAME/finalize`."""
    api = await held(Api())
    await api("PUT", f"{TEAM}/finalize", finalizers("kubernetes"))
    await api("DELETE", TEAM)
    left = await api("PUT", f"{TEAM}/finalize", finalizers())
    assert left["spec"].get("finalizers", []) == []
    await api.refused("NotFound", "GET", TEAM)
    await api.refused("NotFound", "POST", MAPS, {"metadata": {"name": "late"}})
    await api("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    assert await api.names(MAPS) == ["held"]


async def test_another_finalizer_holds_it_until_it_is_taken_away() -> None:
    api = Api()
    made = await api("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}, "spec": {"finalizers": [HOLD]}})
    assert made["spec"]["finalizers"] == [HOLD, "kubernetes"]
    going = await api("DELETE", TEAM)
    assert (going["spec"]["finalizers"], going["status"]["phase"]) == ([HOLD], "Terminating")
    await api("PUT", f"{TEAM}/finalize", finalizers())
    await api.refused("NotFound", "GET", TEAM)


async def test_one_that_is_not_deleted_stays_whatever_its_finalizers() -> None:
    api = await held(Api())
    found = await api("PUT", f"{TEAM}/finalize", finalizers(labels={"a": "b"}))
    assert "a" in found["metadata"]["labels"]
    assert (await api("GET", TEAM))["status"]["phase"] == "Active"
    assert await api.names(MAPS) == ["held"]


async def test_only_the_subresource_changes_them() -> None:
    api = await held(Api())
    await api("PATCH", TEAM, {"spec": {"finalizers": []}})
    await api("PATCH", f"{TEAM}/status", {"spec": {"finalizers": []}})
    assert (await api("GET", TEAM))["spec"]["finalizers"] == ["kubernetes"]


@pytest.mark.parametrize(
    ("reason", "method", "body"),
    [
        ("Invalid", "PUT", finalizers("not/a/name")),
        ("Invalid", "PUT", finalizers("unqualified")),
        ("BadRequest", "PUT", {**finalizers(), "kind": "Pod"}),
        ("BadRequest", "PUT", finalizers(name="other")),
        ("Conflict", "PUT", finalizers(resourceVersion="1")),
        ("Conflict", "PUT", finalizers(uid="1")),
        ("MethodNotAllowed", "GET", None),
        ("MethodNotAllowed", "PATCH", {"spec": {}}),
    ],
)
async def test_what_makes_no_sense_is_refused(reason: str, method: str, body: Object | None) -> None:
    api = await held(Api())
    await api.refused(reason, method, f"{TEAM}/finalize", body)
    assert (await api("GET", TEAM))["spec"]["finalizers"] == ["kubernetes"]


async def test_a_dry_run_changes_nothing() -> None:
    api = await held(Api())
    await api("DELETE", TEAM)
    await api("PUT", f"{TEAM}/finalize", finalizers(), dryRun="All")
    assert (await api("GET", TEAM))["spec"]["finalizers"] == ["kubernetes"]


async def test_discovery_names_it() -> None:
    (found,) = [one for one in (await Api()("GET", "/api/v1"))["resources"] if one["name"] == "namespaces/finalize"]
    assert (found["kind"], found["namespaced"], found["verbs"]) == ("Namespace", False, ["update"])


async def test_finalizers_of_built_in_kinds_say_whose_they_are() -> None:
    api = Api()
    body = {"metadata": {"name": "a", "finalizers": ["mine"]}}
    message = await api.refused("Invalid", "POST", "/api/v1/namespaces/default/configmaps", body)
    assert "name is neither a standard finalizer name nor is it fully qualified" in message

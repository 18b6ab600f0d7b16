"""A namespace that is being deleted: what it says of what remains, its finalizers and their subresource, and who may still write to it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from podplane.apiserver.kinds.table import RESOURCES
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


PODS_OF_IT, SETS_OF_IT = f"{TEAM}/pods", "/apis/apps/v1/namespaces/team/replicasets"


async def ordered(cluster: Cluster) -> None:
    """A namespace with a ReplicaSet, two pods of it and a pod that something holds, and what they use."""
    await cluster("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    for path in (MAPS, f"{TEAM}/secrets"):
        await cluster("POST", path, {"metadata": {"name": "used"}})
    spec: Object = {"containers": [{"name": "c", "image": "podplane/echo"}]}
    await cluster("POST", PODS_OF_IT, {"metadata": {"name": "held", "finalizers": [HOLD]}, "spec": spec})
    template = {"metadata": {"labels": {"a": "b"}}, "spec": spec}
    selected = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await cluster("POST", SETS_OF_IT, {"metadata": {"name": "set"}, "spec": selected})
    await cluster.settle()
    assert len(await cluster.names(PODS_OF_IT)) == 3


async def gone_pods(cluster: Cluster, *names: str) -> None:
    """Their node has ended these pods."""
    for name in names:
        await cluster("DELETE", f"{PODS_OF_IT}/{name}", {"gracePeriodSeconds": 0})
    await cluster.settle()


async def test_its_pods_go_before_all_else() -> None:
    cluster = await Cluster().begin()
    await ordered(cluster)
    await cluster("DELETE", TEAM)
    await cluster.settle(1)
    pods = (await cluster("GET", PODS_OF_IT))["items"]
    assert len(pods) == 3 and all("deletionTimestamp" in pod["metadata"] for pod in pods)
    others = [o for path in (MAPS, f"{TEAM}/secrets", SETS_OF_IT) for o in (await cluster("GET", path))["items"]]
    assert len(others) >= 3 and not any("deletionTimestamp" in o["metadata"] for o in others)
    await gone_pods(cluster, *(pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("finalizers")))
    assert await cluster.names(PODS_OF_IT) == ["held"], "and nobody makes new ones"
    assert await cluster.names(SETS_OF_IT) == ["set"]
    await gone_pods(cluster, "held")
    assert "used" in await cluster.names(MAPS), "its finalizer is left"
    await cluster("PATCH", f"{PODS_OF_IT}/held", {"metadata": {"finalizers": None}})
    await cluster.settle()
    await cluster.refused("NotFound", "GET", TEAM)
    assert not any(row.namespaced and cluster.store.all(row.id, "team") for row in RESOURCES if not row.is_review)


async def test_a_lab_that_ends_meanwhile_goes_on_with_the_rest(tmp_path: Path) -> None:
    first = Api(tmp_path / "state")
    await first("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    await first("POST", MAPS, {"metadata": {"name": "used"}})
    spec: Object = {"containers": [{"name": "c", "image": "podplane/echo"}]}
    await first("POST", PODS_OF_IT, {"metadata": {"name": "held", "finalizers": [HOLD]}, "spec": spec})
    await first("DELETE", TEAM)
    assert await first.names(MAPS) == ["used"]
    first.store.close()
    second = Api(tmp_path / "state")
    assert await second.names(MAPS) == ["used"] and await second.names(PODS_OF_IT) == ["held"]
    await second("PATCH", f"{PODS_OF_IT}/held", {"metadata": {"finalizers": None}})
    await asyncio.sleep(0)
    await second.refused("NotFound", "GET", TEAM)


async def test_pods_that_no_node_has_hold_nothing_up() -> None:
    api = Api()
    await api("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    await api("POST", MAPS, {"metadata": {"name": "used"}})
    for number in range(3):
        spec: Object = {"containers": [{"name": "c", "image": "podplane/echo"}]}
        await api("POST", PODS_OF_IT, {"metadata": {"name": f"p{number}"}, "spec": spec})
    await api("DELETE", TEAM)
    await asyncio.sleep(0)
    await api.refused("NotFound", "GET", TEAM)


async def test_who_makes_pods_gives_up_at_once_when_the_namespace_goes() -> None:
    cluster = await Cluster().begin()
    await ordered(cluster)
    await cluster("DELETE", TEAM)
    pods = [name for name in await cluster.names(PODS_OF_IT) if name != "held"]
    await gone_pods(cluster, *pods)
    assert not cluster.manager._failures, "a creation that can't be any more is no failure"

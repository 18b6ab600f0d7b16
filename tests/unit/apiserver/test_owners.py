"""Dependents and owners, as Kubernetes' garbage collector sees them: an owner that does not exist, circles, and who waits for whom."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver.owners import Standing, standing
from podplane.apiserver.problems import Problem
from tests.unit.apiserver.test_kinds import CRD
from tests.unit.apiserver.test_server import Api, Object

MAPS, OTHER = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/other/configmaps"
NODES, EVENTS = "/api/v1/nodes", "/api/v1/namespaces/default/events"
DEFINITIONS, THINGS = (
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/example.org/v1/namespaces/default/things",
)
HOLD = ("example.org/hold",)


async def turns() -> None:
    """Let everything that is queued happen."""
    for _ in range(20):
        await asyncio.sleep(0)


def reference(found: Object, kind: str = "ConfigMap", version: str = "v1", **other: Any) -> Object:
    """A reference to this owner; `other` is what it says wrongly, or more of."""
    metadata = found["metadata"]
    return {"apiVersion": version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"]} | other


async def make(api: Api, name: str, *owners: Object, path: str = MAPS, finalizers: tuple[str, ...] = ()) -> Object:
    """An object with these owner references."""
    metadata = {"name": name, "ownerReferences": list(owners), "finalizers": list(finalizers)}
    return await api("POST", path, {"metadata": metadata})


@pytest.fixture
async def api() -> Api:
    """A server with the ConfigMap `owner`, a node, and a namespace `other`."""
    made = Api()
    await make(made, "owner")
    await made.node("n1")
    await made("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    return made


# Who is an owner.

WRONG = {
    "another uid": {"uid": "0f0f0f0f-0000-0000-0000-000000000000"},
    "another name": {"name": "else"},
    "another kind": {"kind": "Secret"},
    "a cluster-scoped kind": {"kind": "Node"},
    "another version of a kind that is there": {"apiVersion": "apps/v1", "kind": "Deployment"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_dependent_whose_owner_does_not_exist_is_deleted(api: Api, wrong: Object) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    made = await make(api, "child", reference(owner, **wrong))
    assert made["metadata"]["uid"], "the request is answered as if it stayed"
    await turns()
    assert await api.names(MAPS) == ["owner"]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_reference_that_is_patched_in_counts_too(api: Api, wrong: Object) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    await make(api, "child")
    await api("PATCH", f"{MAPS}/child", {"metadata": {"ownerReferences": [reference(owner, **wrong)]}})
    await turns()
    assert await api.names(MAPS) == ["owner"]


async def test_of_several_owners_those_that_do_not_exist_are_let_go_of(api: Api) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    await make(api, "child", reference(owner), reference(owner, uid="gone", name="gone"))
    await turns()
    assert (await api("GET", f"{MAPS}/child"))["metadata"]["ownerReferences"] == [reference(owner)]


async def test_a_node_owns_what_is_in_a_namespace_and_what_is_in_none(api: Api) -> None:
    node = await api("GET", f"{NODES}/n1")
    await make(api, "child", reference(node, "Node"))
    await make(api, "n2", reference(node, "Node"), path=NODES)
    await turns()
    assert (await api.names(MAPS), await api.names(NODES)) == (["child", "owner"], ["n1", "n2"])
    await api("DELETE", f"{NODES}/n1")
    await turns()
    assert (await api.names(MAPS), await api.names(NODES)) == (["owner"], [])


async def test_an_owner_in_another_namespace_is_none_and_the_event_says_so(api: Api) -> None:
    foreign = await make(api, "foreign", path=OTHER)
    child = await make(api, "child", reference(foreign))
    await turns()
    assert await api.names(MAPS) == ["owner"]
    (event,) = (await api("GET", EVENTS))["items"]
    uid = foreign["metadata"]["uid"]
    assert event["reason"] == "OwnerRefInvalidNamespace"
    assert event["involvedObject"]["uid"] == child["metadata"]["uid"]
    said = f'ownerRef [v1/ConfigMap, namespace: default, name: foreign, uid: {uid}] does not exist in namespace "default"'
    assert event["message"] == said


async def test_a_cluster_scoped_object_of_a_namespaced_owner_is_never_collected(api: Api) -> None:
    """It is a mistake that nobody can mend but the user (namespacedOwnerOfClusterScopedObjectErr)."""
    owner = await api("GET", f"{MAPS}/owner")
    await make(api, "n2", reference(owner), path=NODES)
    await turns()
    assert await api.names(NODES) == ["n1", "n2"]
    (event,) = (await api("GET", EVENTS))["items"]
    assert event["reason"] == "OwnerRefInvalidNamespace"
    await api("DELETE", f"{MAPS}/owner")
    await turns()
    assert await api.names(NODES) == ["n1", "n2"]


async def test_of_a_kind_that_is_not_served_nothing_is_known_until_it_is() -> None:
    api, thing = Api(), {"apiVersion": "example.org/v1", "kind": "Thing", "name": "t", "uid": "gone"}
    await make(api, "child", thing)
    await make(api, "old", {**thing, "apiVersion": "example.org/v1beta9"})
    await turns()
    assert await api.names(MAPS) == ["child", "old"]
    await api("POST", DEFINITIONS, {"metadata": {"name": "things.example.org"}, "spec": CRD})
    await turns()
    assert await api.names(MAPS) == ["old"]


async def test_events_are_not_collected(api: Api) -> None:
    event = {"metadata": {"name": "e", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "x"}]}}
    about = {"kind": "ConfigMap", "namespace": "default", "name": "owner"}
    await api("POST", EVENTS, {**event, "involvedObject": about})
    await turns()
    assert await api.names(EVENTS) == ["e"]


async def test_what_lost_its_owner_before_is_found_by_the_next_process(tmp_path: Path) -> None:
    """As the store of a former version may have it, which took any reference."""
    path = tmp_path / "state.db"
    former = Api(path)
    owner = await make(former, "owner")
    child = await make(former, "child", reference(owner))
    lost = {**child, "metadata": {**child["metadata"], "ownerReferences": [reference(owner, uid="gone")]}}
    former.store.put("configmaps", ("default", "child"), lost)
    former.store.close()
    again = Api(path)
    await turns()
    assert await again.names(MAPS) == ["owner"]


async def test_a_write_that_is_taken_back_collects_nothing(api: Api) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    await make(api, "child", reference(owner))

    async def fail() -> None:
        with api.server.transaction():
            await api("PATCH", f"{MAPS}/child", {"metadata": {"ownerReferences": [reference(owner, uid="gone")]}})
            raise ValueError

    with pytest.raises(ValueError):
        await fail()
    await turns()
    assert await api.names(MAPS) == ["child", "owner"]


async def test_a_standing_is_read_off_the_store(api: Api) -> None:
    owner, registry = await api("GET", f"{MAPS}/owner"), api.server._registry
    assert standing(api.store, registry, reference(owner), "default") is Standing.SOLID
    assert standing(api.store, registry, reference(owner), "other") is Standing.DANGLING
    assert standing(api.store, registry, reference(owner), "") is Standing.UNKNOWN
    assert standing(api.store, registry, reference(owner, kind="TokenReview"), "default") is Standing.UNKNOWN
    await make(api, "child", reference(owner, blockOwnerDeletion=True), finalizers=HOLD)
    await api("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Foreground"})
    assert standing(api.store, registry, reference(owner), "default") is Standing.WAITING


async def test_references_that_are_there_twice_are_there_once(api: Api) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    same, other = reference(owner), reference(owner, controller=True)
    answer = await api.answer("POST", MAPS, {"metadata": {"name": "child", "ownerReferences": [same, other, same]}})
    assert json.loads(answer.body)["metadata"]["ownerReferences"] == [same, other]
    (warned,) = [value for name, value in answer.headers if name == "warning"]
    assert f"please fix your requests; duplicate UID(s) observed: {owner['metadata']['uid']}" in warned


@pytest.mark.parametrize("version", ["a/b/c", "apps/", "/"])
async def test_an_owner_has_a_version(api: Api, version: str) -> None:
    owner = {"apiVersion": version, "kind": "Deployment", "name": "d", "uid": "x"}
    said = await api.refused("Invalid", "POST", MAPS, {"metadata": {"name": "child", "ownerReferences": [owner]}})
    assert "metadata.ownerReferences[0].apiVersion: Invalid value" in said


async def test_an_event_owns_nothing(api: Api) -> None:
    event = {"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "x"}
    said = await api.refused("Invalid", "POST", MAPS, {"metadata": {"name": "child", "ownerReferences": [event]}})
    assert "/v1, Kind=Event is disallowed from being an owner" in said


# Foreground deletion.


async def circle(api: Api, length: int, *, blocks: bool = True) -> list[str]:
    """ConfigMaps of which each belongs to the one before it, and the first to the last."""
    made = [await make(api, f"c{i}") for i in range(length)]
    for i, one in enumerate(made):
        owner = reference(made[i - 1], blockOwnerDeletion=blocks)
        await api("PATCH", f"{MAPS}/{one['metadata']['name']}", {"metadata": {"ownerReferences": [owner]}})
    return [one["metadata"]["name"] for one in made]


@pytest.mark.parametrize("policy", ["Foreground", "Background"])
@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3, 7])
async def test_a_circle_ends(length: int, blocks: bool, policy: str) -> None:
    api = Api()
    await api("DELETE", f"{MAPS}/{(await circle(api, length, blocks=blocks))[0]}", {"propagationPolicy": policy})
    await turns()
    assert await api.names(MAPS) == []


async def test_in_the_foreground_too_who_has_another_owner_stays(api: Api) -> None:
    owner, other = await api("GET", f"{MAPS}/owner"), await make(api, "other")
    await make(api, "child", reference(owner, blockOwnerDeletion=True), reference(other))
    await api("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Foreground"})
    await turns()
    assert await api.names(MAPS) == ["child", "other"]
    assert (await api("GET", f"{MAPS}/child"))["metadata"]["ownerReferences"] == [reference(other)]


async def test_who_does_not_block_is_not_waited_for(api: Api) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    await make(api, "child", reference(owner), finalizers=HOLD)
    await api("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Foreground"})
    await turns()
    assert await api.names(MAPS) == ["child"]


@pytest.mark.parametrize("change", ["unblocks", "leaves"])
async def test_an_owner_no_longer_waits_for_who_lets_go_of_it(api: Api, change: str) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    await make(api, "child", reference(owner, blockOwnerDeletion=True), finalizers=HOLD)
    await api("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Foreground"})
    assert await api.names(MAPS) == ["child", "owner"]
    left = [reference(owner, blockOwnerDeletion=False)] if change == "unblocks" else None
    await api("PATCH", f"{MAPS}/child", {"metadata": {"ownerReferences": left}})
    await turns()
    assert await api.names(MAPS) == ["child"]


async def test_who_joins_an_owner_that_waits_is_deleted(api: Api) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    await make(api, "held", reference(owner, blockOwnerDeletion=True), finalizers=HOLD)
    await api("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Foreground"})
    await make(api, "late", reference(owner, blockOwnerDeletion=True))
    await turns()
    assert await api.names(MAPS) == ["held", "owner"]


# Finalizers of the garbage collector that users set.


async def test_an_orphan_finalizer_of_the_object_counts(api: Api) -> None:
    await make(api, "child", reference(await make(api, "parent", finalizers=("orphan",))))
    await api("DELETE", f"{MAPS}/parent")
    await turns()
    assert await api.names(MAPS) == ["child", "owner"]
    assert "ownerReferences" not in (await api("GET", f"{MAPS}/child"))["metadata"]


@pytest.mark.parametrize("options", [{"propagationPolicy": "Background"}, {"orphanDependents": False}])
async def test_what_the_request_says_counts_more(api: Api, options: Object) -> None:
    await make(api, "child", reference(await make(api, "parent", finalizers=("orphan",))))
    await api("DELETE", f"{MAPS}/parent", options)
    await turns()
    assert await api.names(MAPS) == ["owner"]


async def test_a_dependent_with_an_orphan_finalizer_lets_go_of_its_own(api: Api) -> None:
    owner = await api("GET", f"{MAPS}/owner")
    child = await make(api, "child", reference(owner), finalizers=("orphan",))
    await make(api, "grandchild", reference(child))
    await api("DELETE", f"{MAPS}/owner")
    await turns()
    assert await api.names(MAPS) == ["grandchild"]


@pytest.mark.parametrize(("options", "left"), [({}, ["p"]), ({"propagationPolicy": "Background"}, [])])
async def test_jobs_let_go_of_their_pods_unless_the_request_says_otherwise(options: Object, left: list[str]) -> None:
    api, jobs = Api(), "/apis/batch/v1/namespaces/default/jobs"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "podplane/echo"}]}}
    job = await api("POST", jobs, {"metadata": {"name": "j"}, "spec": {"template": template}})
    pods = "/api/v1/namespaces/default/pods"
    metadata = {"name": "p", "ownerReferences": [reference(job, "Job", "batch/v1", controller=True)]}
    await api("POST", pods, {"metadata": metadata, "spec": template["spec"]})
    answer = await api.answer("DELETE", f"{jobs}/j", options)
    warned = [value for name, value in answer.headers if name == "warning"]
    assert len(warned) == len(left)
    assert all("child pods are preserved by default when jobs are deleted" in text for text in warned)
    await turns()
    assert (await api.names(pods), await api.names(jobs)) == (left, [])


# Definitions that go.


async def test_no_custom_resource_is_made_while_its_definition_goes() -> None:
    api = Api()
    await api("POST", DEFINITIONS, {"metadata": {"name": "things.example.org"}, "spec": CRD})
    await api("POST", THINGS, {"metadata": {"name": "t", "finalizers": list(HOLD)}})
    await api("DELETE", f"{DEFINITIONS}/things.example.org")
    going = await api("GET", f"{DEFINITIONS}/things.example.org")
    assert going["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    condition = next(c for c in going["status"]["conditions"] if c["type"] == "Terminating")
    assert (condition["status"], condition["reason"]) == ("True", "InstanceDeletionInProgress")
    message = await api.refused("MethodNotAllowed", "POST", THINGS, {"metadata": {"name": "late"}})
    assert message == "create not allowed while custom resource definition is terminating"
    (listed,) = [r for r in (await api("GET", "/apis/example.org/v1"))["resources"] if r["name"] == "things"]
    assert listed["verbs"] == ["delete", "deletecollection", "get", "list", "watch"]
    await api("PATCH", f"{THINGS}/t", {"metadata": {"finalizers": None}})
    await api.refused("NotFound", "GET", f"{DEFINITIONS}/things.example.org")
    await api("POST", DEFINITIONS, {"metadata": {"name": "things.example.org"}, "spec": CRD})
    assert await api.names(THINGS) == []


async def test_what_fails_to_be_told_harms_no_write(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise Problem("Forbidden", "no")

    monkeypatch.setattr(api.server._writer, "create", refuse)
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "x"}
    api.server._tell_of_owner(await api("GET", f"{MAPS}/owner"), foreign)


# A law.

graphs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=12)
deletions = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["Background", "Foreground"])), min_size=1, max_size=3)


@settings(deadline=None)
@given(graphs, deletions)
def test_whatever_belongs_to_whom_what_is_deleted_goes(edges: list[tuple[int, int, bool]], gone: list[tuple[int, str]]) -> None:
    """Any graph, circles among them: without other finalizers, what was deleted is gone, and nobody has an owner that is not there."""

    async def play() -> None:
        api = Api()
        made = [await make(api, f"o{i}") for i in range(6)]
        for child in range(6):
            owners = {parent: blocks for dependent, parent, blocks in edges if dependent == child}
            named = [reference(made[parent], blockOwnerDeletion=blocks) for parent, blocks in owners.items()]
            await api("PATCH", f"{MAPS}/o{child}", {"metadata": {"ownerReferences": named}})
        for number, policy in gone:
            await api.answer("DELETE", f"{MAPS}/o{number}", {"propagationPolicy": policy})
        await turns()
        left = {one["metadata"]["uid"]: one["metadata"] for one in (await api("GET", MAPS))["items"]}
        assert not {made[number]["metadata"]["uid"] for number, _ in gone} & left.keys()
        for metadata in left.values():
            assert all(owner["uid"] in left for owner in metadata.get("ownerReferences", ()))

    asyncio.run(play())

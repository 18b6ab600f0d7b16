"""StatefulSets: in which order members come, go and change, and which pods are members."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver.controllers.decision import Action, Create, Delete
from podplane.apiserver.controllers.pods import BURST
from podplane.apiserver.controllers.stateful_set import CONTROLLER
from tests.unit.apiserver.controllers.cluster import APPS, Cluster, image, workload
from tests.unit.apiserver.test_server import PODS, Object

SETS, DB = f"{APPS}/statefulsets", f"{APPS}/statefulsets/db"


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().begin()


async def make(cluster: Cluster, replicas: int, **spec: Any) -> None:
    await cluster("POST", SETS, workload("db", replicas, serviceName="db", **spec))
    await cluster.kubelet()


def rolling(**more: Any) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": more}


async def images(cluster: Cluster) -> dict[int, str]:
    """What the members run, by their number."""
    found = {}
    for pod in await cluster.pods(app="db"):
        found[int(pod["metadata"]["name"].rpartition("-")[2])] = pod["spec"]["containers"][0]["image"].rpartition("/")[2]
    return dict(sorted(found.items()))


async def leaving(cluster: Cluster) -> list[str]:
    return [pod["metadata"]["name"] for pod in await cluster.pods() if "deletionTimestamp" in pod["metadata"]]


def is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


async def test_parallel_members_come_and_go_at_once(cluster: Cluster) -> None:
    await cluster("POST", SETS, workload("db", 4, serviceName="db", podManagementPolicy="Parallel"))
    await cluster.settle()
    assert len(await cluster.pods()) == 4
    await cluster.kubelet()
    await cluster("PATCH", DB, {"spec": {"replicas": 1}})
    await cluster.settle()
    assert await leaving(cluster) == ["db-1", "db-2", "db-3"]


async def test_a_member_waits_for_the_one_before_it(cluster: Cluster) -> None:
    await make(cluster, 3)
    await cluster.set_status(await cluster("GET", f"{PODS}/db-0"), "Running", False)
    await cluster("DELETE", f"{PODS}/db-2", {"gracePeriodSeconds": 0})
    await cluster("PATCH", DB, {"spec": {"replicas": 5}})
    await cluster.settle()
    assert list(await images(cluster)) == [0, 1]
    await cluster.set_status(await cluster("GET", f"{PODS}/db-0"), "Running", True)
    await cluster.settle()
    assert list(await images(cluster)) == [0, 1, 2]


async def test_a_member_serves_only_after_it_was_ready_long_enough(cluster: Cluster) -> None:
    await make(cluster, 2, minReadySeconds=20)
    assert list(await images(cluster)) == [0]
    status = (await cluster("GET", DB))["status"]
    assert (status["readyReplicas"], status["availableReplicas"]) == (1, 0)
    await cluster.settle(21)
    assert list(await images(cluster)) == [0, 1]


async def test_numbers_start_where_they_are_said_to(cluster: Cluster) -> None:
    """The partition counts from there (stateful_set_utils.go, newVersionedStatefulSetPod)."""
    await make(cluster, 3, ordinals={"start": 5}, updateStrategy=rolling(partition=2))
    await cluster("PATCH", DB, image("host/new"))
    await cluster.kubelet()
    assert await images(cluster) == {5: "echo", 6: "echo", 7: "new"}
    await cluster("DELETE", f"{PODS}/db-6", {"gracePeriodSeconds": 0})
    await cluster.kubelet()
    assert (await images(cluster))[6] == "echo"


async def test_with_on_delete_members_change_when_the_user_deletes_them(cluster: Cluster) -> None:
    await make(cluster, 2, updateStrategy={"type": "OnDelete"})
    await cluster("PATCH", DB, image("host/new"))
    await cluster.kubelet()
    assert await images(cluster) == {0: "echo", 1: "echo"}
    await cluster("DELETE", f"{PODS}/db-0", {"gracePeriodSeconds": 0})
    await cluster.kubelet()
    assert await images(cluster) == {0: "new", 1: "echo"}
    assert (await cluster("GET", DB))["status"]["updatedReplicas"] == 1


@pytest.mark.parametrize(
    ("most", "first"), [(1, ["db-4"]), (2, ["db-3", "db-4"]), ("50%", ["db-3", "db-4"]), ("10%", ["db-4"])]
)
async def test_so_many_change_at_once(cluster: Cluster, most: int | str, first: list[str]) -> None:
    await make(cluster, 5, podManagementPolicy="Parallel", updateStrategy=rolling(maxUnavailable=most))
    await cluster("PATCH", DB, image("host/new"))
    await cluster.settle()
    assert await leaving(cluster) == first
    await cluster.kubelet()
    assert set((await images(cluster)).values()) == {"new"}


async def test_a_broken_member_changes_though_others_may_not(cluster: Cluster) -> None:
    await make(cluster, 3, podManagementPolicy="Parallel")
    await cluster.set_status(await cluster("GET", f"{PODS}/db-0"), "Running", False)
    await cluster("PATCH", DB, image("host/new"))
    await cluster.settle()
    assert await leaving(cluster) == ["db-0"]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 3), st.integers(1, 3), st.booleans())
def test_an_update_goes_from_the_top_and_keeps_enough(replicas: int, partition: int, most: int, parallel: bool) -> None:
    """Never fewer that serve than allowed, and nobody below the partition changes."""

    async def play() -> None:
        cluster = await Cluster().begin()
        policy = "Parallel" if parallel else "OrderedReady"
        strategy = rolling(partition=partition, maxUnavailable=most)
        await make(cluster, replicas, podManagementPolicy=policy, updateStrategy=strategy)
        await cluster("PATCH", DB, image("host/new"))
        for _ in range(60):
            await cluster.settle()
            pods = await cluster.pods(app="db")
            living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            assert sum(map(is_ready, living)) >= replicas - most
            gone = await leaving(cluster)
            assert all(int(name[3:]) >= partition for name in gone)
            waiting = [pod for pod in living if pod["spec"].get("nodeName") and not is_ready(pod)]
            if gone:
                await cluster("DELETE", f"{PODS}/{gone[0]}", {"gracePeriodSeconds": 0})
            elif waiting:
                await cluster.set_status(waiting[0], "Running", True)
            else:
                break
        assert await images(cluster) == {n: "new" if n >= partition else "echo" for n in range(replicas)}
        status = (await cluster("GET", DB))["status"]
        assert status.get("updatedReplicas", 0) == max(0, replicas - partition)
        assert (status["currentRevision"] == status["updateRevision"]) is (partition == 0)

    asyncio.run(play())


# As many as the API takes.


MOST = 2**31 - 1


def decided(cluster: Cluster) -> list[Action]:
    """What one decision is, of which nothing is carried out; no more than would be too much in any case."""
    return list(islice(CONTROLLER.decide(cluster.view, ("default", "db")), 3 * BURST))


async def test_a_decision_makes_so_many_members_and_no_more(cluster: Cluster) -> None:
    """As that of a ReplicaSet: others have their turn, and a lab that is asked for two thousand million answers."""
    await cluster("POST", SETS, workload("db", MOST, serviceName="db", podManagementPolicy="Parallel"))
    made = [action.object for action in decided(cluster) if isinstance(action, Create) and action.resource == "pods"]
    assert [pod["metadata"]["name"] for pod in made] == [f"db-{n}" for n in range(BURST)]


async def test_the_next_decision_makes_the_next_members_and_takes_away_what_is_too_much(cluster: Cluster) -> None:
    count = 2 * BURST + 10
    await cluster("POST", SETS, workload("db", count, serviceName="db", podManagementPolicy="Parallel"))
    await cluster.settle()
    assert (await cluster("GET", DB))["status"]["replicas"] == count
    await cluster("PATCH", DB, {"spec": {"replicas": 3}})
    gone = [int(action.target["metadata"]["name"][3:]) for action in decided(cluster) if isinstance(action, Delete)]
    assert gone == list(range(count - 1, count - 1 - BURST, -1))
    await cluster.settle()
    pods = cluster.view.controlled("pods", await cluster("GET", DB))
    assert sorted(p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"]) == ["db-0", "db-1", "db-2"]


async def test_an_update_looks_at_the_members_that_there_are(cluster: Cluster) -> None:
    """Of two thousand million numbers three have a pod; the broken one changes, since it costs nobody anything."""
    await make(cluster, 3, podManagementPolicy="Parallel")
    await cluster.set_status(await cluster("GET", f"{PODS}/db-1"), "Running", False)
    await cluster("PATCH", DB, {"spec": {"replicas": MOST, **image("host/new")["spec"]}})
    deleted = [action.target["metadata"]["name"] for action in decided(cluster) if isinstance(action, Delete)]
    assert deleted == ["db-1"]


@pytest.mark.parametrize(
    ("phase", "reason", "word"),
    [("Failed", "RecreatingFailedPod", "failed"), ("Succeeded", "RecreatingTerminatedPod", "terminated")],
)
async def test_a_member_that_ended_comes_again(cluster: Cluster, phase: str, reason: str, word: str) -> None:
    await make(cluster, 1)
    before = (await cluster("GET", f"{PODS}/db-0"))["metadata"]["uid"]
    await cluster.end("db-0", phase)
    await cluster.kubelet()
    after = await cluster("GET", f"{PODS}/db-0")
    assert (after["metadata"]["uid"] == before, after["status"]["phase"]) == (False, "Running")
    assert await cluster.events(reason) == [f"StatefulSet default/db is recreating {word} Pod db-0"]
    assert set(await cluster.events("SuccessfulCreate")) == {"create Pod db-0 in StatefulSet db successful"}


async def test_a_member_without_a_controller_is_adopted_and_a_stranger_is_not(cluster: Cluster) -> None:
    """As after `kubectl delete --cascade=orphan`: who has the name of a member becomes one."""
    await make(cluster, 2)
    uids = {pod["metadata"]["uid"] for pod in await cluster.pods(app="db")}
    await cluster("DELETE", DB, propagationPolicy="Orphan")
    await cluster.pod("other-0", labels={"app": "db"})
    await make(cluster, 2)
    pods = {pod["metadata"]["name"]: pod for pod in await cluster.pods(app="db")}
    assert {pods[name]["metadata"]["uid"] for name in ("db-0", "db-1")} == uids
    assert "ownerReferences" not in pods["other-0"]["metadata"]


async def test_a_member_that_matches_no_more_is_let_go(cluster: Cluster) -> None:
    await make(cluster, 1)
    await cluster("PATCH", f"{PODS}/db-0", {"metadata": {"labels": {"app": "debug"}}})
    await cluster.kubelet()
    assert "ownerReferences" not in (await cluster("GET", f"{PODS}/db-0"))["metadata"]


# Claims.


def claims(*names: str) -> list[Object]:
    storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return [{"metadata": {"name": name}, "spec": storage} for name in names]


def mounting(*names: str, volumes: tuple[str, ...] = ()) -> Object:
    """A StatefulSet whose container mounts these, and whose template has these volumes."""
    made = workload("db", 2, serviceName="db")
    spec = made["spec"]["template"]["spec"]
    spec["containers"][0]["volumeMounts"] = [{"name": name, "mountPath": f"/{name}"} for name in names]
    spec["volumes"] = [{"name": name, "configMap": {"name": name}} for name in volumes]
    return made


async def test_containers_mount_the_volumes_of_claim_templates(cluster: Cluster) -> None:
    """A claim comes in the place of a volume of its name (stateful_set_utils.go, updateStorage)."""
    manifest = mounting("data", "log", "settings", volumes=("log", "settings"))
    manifest["spec"]["volumeClaimTemplates"] = claims("data", "log")
    await cluster("POST", SETS, manifest)
    await cluster.kubelet()
    for pod in await cluster.pods(app="db"):
        assert pod["status"]["phase"] == "Running"
        volumes = {volume["name"]: set(volume) - {"name"} for volume in pod["spec"]["volumes"][:3]}
        assert volumes == {"data": {"emptyDir"}, "log": {"emptyDir"}, "settings": {"configMap"}}
    assert len(await cluster.pods(app="db")) == 2
    assert len(set(await cluster.events("NoPersistentStorage"))) == 1


@pytest.mark.parametrize(
    ("names", "why"),
    [((), 'spec.containers[0].volumeMounts[0].name: Not found: "data"'), (("",), "spec.volumes[0].name: Invalid value")],
)
async def test_a_pod_that_cannot_be_made_is_told_by_an_event(cluster: Cluster, names: tuple[str, ...], why: str) -> None:
    """As kube-apiserver, which leaves what the pods run to their creation (ValidatePodTemplateSpecForStatefulSet)."""
    manifest = mounting("data")
    manifest["spec"]["volumeClaimTemplates"] = claims(*names)
    await cluster("POST", SETS, manifest)
    await cluster.settle()
    (message,) = await cluster.events("FailedCreate")
    assert message.startswith("create Pod db-0 in StatefulSet db failed error: ")
    assert why in message
    assert await cluster.pods() == []


async def test_a_claim_template_without_a_name_breaks_nothing(cluster: Cluster) -> None:
    manifest = mounting()
    manifest["spec"]["volumeClaimTemplates"] = [{"spec": claims("data")[0]["spec"]}]
    await cluster("POST", SETS, manifest)
    await cluster.settle()
    assert "spec.volumes[0].name" in (await cluster.events("FailedCreate"))[0]


async def test_the_claim_templates_stay_and_their_retention_may_change(cluster: Cluster) -> None:
    manifest = mounting("data")
    manifest["spec"]["volumeClaimTemplates"] = claims("data")
    await cluster("POST", SETS, manifest)
    await cluster.refused("Invalid", "PATCH", DB, {"spec": {"volumeClaimTemplates": claims("data", "log")}})
    changed = await cluster("PATCH", DB, {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}})
    assert changed["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Delete"}

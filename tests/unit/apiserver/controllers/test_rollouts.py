"""ReplicaSets that reach their count from anywhere, and Deployments that keep their promises at every step."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver.controllers.pods import share
from podplane.apiserver.controllers.replica_set import worth
from podplane.controllers.objects import owned_by
from tests.unit.apiserver.controllers.cluster import APPS, Cluster, image, workload
from tests.unit.apiserver.test_server import PODS, Object

SETS, WEB = f"{APPS}/replicasets", f"{APPS}/deployments/web"
COST = "controller.kubernetes.io/pod-deletion-cost"


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().begin()


def living(pods: list[Object]) -> list[Object]:
    ended = ("Succeeded", "Failed")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] not in ended]


async def progress(cluster: Cluster) -> tuple[str, str]:
    found = (await cluster("GET", WEB))["status"]["conditions"]
    return next((c["status"], c["reason"]) for c in found if c["type"] == "Progressing")


# ReplicaSet.

POD_KINDS = st.sampled_from(["unscheduled", "pending", "running", "ready", "failed", "succeeded", "leaving", "stranger"])


async def plant(cluster: Cluster, number: int, kind: str) -> None:
    """A pod of the label that the ReplicaSet is going to select, in some state."""
    labels = {"app": "other" if kind == "stranger" else "web"}
    spec = {"schedulerName": "none"} if kind == "unscheduled" else {"nodeName": f"node{number % 3 + 1}"}
    pod = await cluster.pod(f"p{number}", labels=labels, **spec)
    phases = {"running": "Running", "ready": "Running", "failed": "Failed", "succeeded": "Succeeded"}
    if kind in phases:
        await cluster.set_status(pod, phases[kind], kind == "ready")
    if kind == "leaving":
        await cluster("DELETE", f"{PODS}/p{number}")


@settings(max_examples=30, deadline=None)
@given(st.lists(POD_KINDS, max_size=9), st.integers(0, 6))
def test_a_replica_set_reaches_its_count_from_any_pods(kinds: list[str], replicas: int) -> None:
    async def play() -> None:
        cluster = await Cluster().begin()
        for number, kind in enumerate(kinds):
            await plant(cluster, number, kind)
        await cluster("POST", SETS, workload("web", replicas))
        await cluster.settle()
        pods = await cluster.pods(app="web")
        mine = [pod for pod in living(pods) if pod["metadata"].get("ownerReferences")]
        assert len(mine) == len(living(pods)) == replicas
        kept = [kinds[int(pod["metadata"]["name"][1:])] for pod in mine if pod["metadata"]["name"].startswith("p")]
        order = ["unscheduled", "pending", "running", "ready"]
        worth = sorted((kind for kind in kinds if kind in order), key=order.index)
        assert sorted(kept, key=order.index) == worth[max(0, len(worth) - replicas) :], "those that are worth most stay"
        status = (await cluster("GET", f"{SETS}/web"))["status"]
        assert (status["replicas"], status.get("readyReplicas", 0)) == (replicas, kept.count("ready"))
        assert len(await cluster.pods(app="other")) == kinds.count("stranger")

    asyncio.run(play())


def candidate(name: str, node: str = "n", phase: str = "Running", since: str | None = "10", **more: Any) -> Object:
    """A pod that may be deleted; `since` are the minutes of the hour at which it became ready."""
    times = {"lastTransitionTime": f"2026-01-01T00:{since}:00Z"}
    ready = {"type": "Ready", "status": "False" if since is None else "True", **times}
    restarts = [{"restartCount": more.pop("restarts", 0)}]
    annotations = {COST: cost} if (cost := more.pop("cost", "")) else {}
    made = f"2026-01-01T00:{more.pop('made', '00')}:00Z"
    status = {"phase": phase, "conditions": [ready], "containerStatuses": restarts}
    metadata = {"name": name, "annotations": annotations, "creationTimestamp": made}
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": status}


RANKED = [
    candidate("unscheduled", node="", phase="Pending", since=None, cost="100"),
    candidate("pending", phase="Pending", since=None, cost="100"),
    candidate("unknown", phase="Unknown", since=None),
    candidate("unready", since=None, cost="100"),
    candidate("cheap", cost="-5"),
    candidate("crowded", node="full"),
    candidate("newly-ready", since="50"),
    candidate("restarted", restarts=3),
    candidate("restarted-less", restarts=2),
    candidate("new", made="09"),
    candidate("old", made="01"),
    candidate("dear", cost="7", node="full"),
]


def test_pods_are_deleted_in_the_documented_order() -> None:
    crowd = {"full": 5, "n": 1, "": 1}
    for one, other in itertools.combinations(RANKED, 2):
        assert worth(one, crowd) < worth(other, crowd), (one["metadata"]["name"], other["metadata"]["name"])


@pytest.mark.parametrize("cost", ["--5", "-", "five", "1e3", "+7", "007", "12345678901", "٣"])
async def test_a_cost_that_is_no_number_is_none(cluster: Cluster, cost: str) -> None:
    await cluster("POST", SETS, workload("web", 2))
    await cluster.kubelet()
    first = (await cluster.pods(app="web"))[0]["metadata"]["name"]
    await cluster("PATCH", f"{PODS}/{first}", {"metadata": {"annotations": {COST: cost}}})
    await cluster("PATCH", f"{SETS}/web", {"spec": {"replicas": 0}})
    await cluster.kubelet()
    assert await cluster.pods(app="web") == []


async def test_in_a_rollout_the_crowd_on_a_node_is_of_all_replica_sets(cluster: Cluster) -> None:
    """Of two old pods that goes which shares its node with a new one."""
    configs = "/api/v1/namespaces/default/configmaps"
    owner = await cluster("POST", configs, {"metadata": {"name": "owner"}})
    metadata = {"ownerReferences": [owned_by(owner, "ConfigMap", "v1")]}
    await cluster("POST", SETS, workload("old", 2) | {"metadata": {"name": "old", **metadata}})
    await cluster.kubelet()
    crowded = (await cluster.pods())[-1]["spec"]["nodeName"]  # of equals, the first by name would go
    new = workload("new") | {"metadata": {"name": "new", **metadata}}
    new["spec"]["template"]["spec"]["nodeName"] = crowded
    await cluster("POST", SETS, new)
    await cluster("PATCH", f"{SETS}/old", {"spec": {"replicas": 1}})
    await cluster.settle()
    (left,) = living(await cluster.pods(app="old"))
    assert left["spec"]["nodeName"] != crowded


async def test_pods_that_cannot_be_made_are_told_by_replica_set_and_deployment(cluster: Cluster) -> None:
    made = workload("web", 2)
    made["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    await cluster("POST", f"{APPS}/deployments", made)
    await cluster.settle()
    (replica_set,) = (await cluster("GET", SETS))["items"]
    for status in (replica_set["status"], (await cluster("GET", WEB))["status"]):
        failure = next(c for c in status["conditions"] if c["type"] == "ReplicaFailure")
        assert (failure["status"], failure["reason"]) == ("True", "FailedCreate")
        assert 'serviceaccount "nobody" not found' in failure["message"]
    assert (await cluster("GET", WEB))["status"]["unavailableReplicas"] == 2
    assert "Error creating: " in (await cluster.events("FailedCreate"))[0]
    await cluster("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "nobody"}})
    await cluster.settle(60)
    await cluster.kubelet()
    assert len(living(await cluster.pods(app="web"))) == 2
    assert {c["type"] for c in (await cluster("GET", WEB))["status"]["conditions"]} == {"Available", "Progressing"}


# Deployment.

BOUNDS = st.sampled_from([("25%", "25%"), (1, 0), (0, 1), ("100%", 0), (2, "50%"), (0, "34%")])
EVENTS = st.tuples(st.sampled_from(["ready", "ready", "unready", "fail", "gone"]), st.integers(0, 30))


async def happen(cluster: Cluster, what: str, which: int) -> bool:
    """One thing happens to one pod; was there one that it could happen to?"""
    pods = await cluster.pods(app="web")
    leaving = [pod for pod in pods if "deletionTimestamp" in pod["metadata"]]
    chosen = {
        "ready": [p for p in living(pods) if p["spec"].get("nodeName") and not is_ready(p)],
        "unready": [p for p in living(pods) if is_ready(p)],
        "fail": living(pods),
        "gone": leaving,
    }[what]
    if not chosen:
        return False
    pod = chosen[which % len(chosen)]
    if what == "gone":
        await cluster("DELETE", f"{PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
    else:
        await cluster.set_status(pod, "Failed" if what == "fail" else "Running", what == "ready")
    return True


def is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), BOUNDS, st.lists(EVENTS, max_size=25))
def test_a_rollout_never_breaks_its_bounds_itself(
    replicas: int, bounds: tuple[Any, Any], events: list[tuple[str, int]]
) -> None:
    """Not one pod too many at any write, and the controllers never take away an available pod that is needed."""

    async def play() -> None:
        cluster = await Cluster().begin()
        surge, missing = share(bounds[0], replicas, up=True), share(bounds[1], replicas, up=False)
        missing = missing if surge or missing else 1
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": bounds[0], "maxUnavailable": bounds[1]}}
        await cluster("POST", f"{APPS}/deployments", workload("web", replicas, strategy=rolling))
        await cluster.kubelet()
        most: list[int] = []
        cluster.server.observe(lambda *_: most.append(len(living(cluster.view.all("pods", "default")))))
        await cluster("PATCH", WEB, image("host/new"))
        for what, which in [*events, *[("ready", 0), ("gone", 0)] * 60]:
            before = sum(map(is_ready, living(await cluster.pods(app="web"))))
            await cluster.settle()
            after = sum(map(is_ready, living(await cluster.pods(app="web"))))
            assert after >= min(before, replicas - missing), "the controllers took a pod that was needed"
            await happen(cluster, what, which)
        assert max(most) <= replicas + surge
        await assert_rolled(cluster, replicas)

    asyncio.run(play())


async def assert_rolled(cluster: Cluster, replicas: int) -> None:
    """One ReplicaSet has all pods, and their hash."""
    sets = {rs["metadata"]["name"]: rs for rs in (await cluster("GET", SETS))["items"]}
    (new,) = [rs for rs in sets.values() if rs["spec"]["replicas"]]
    digest = new["metadata"]["labels"]["pod-template-hash"]
    assert new["metadata"]["name"] == f"web-{digest}"
    pods = living(await cluster.pods(app="web"))
    assert [pod["metadata"]["labels"]["pod-template-hash"] for pod in pods] == [digest] * replicas
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"host/new"}
    assert all(rs["status"]["replicas"] == 0 for rs in sets.values() if rs is not new)


async def test_a_rollback_reuses_its_replica_set(cluster: Cluster) -> None:
    """As `kubectl rollout undo` does it: the old template again, as a new revision."""
    await cluster("POST", f"{APPS}/deployments", workload("web", 2))
    await cluster.kubelet()
    (first,) = (await cluster("GET", SETS))["items"]
    for name in ("host/two", "podplane/echo"):
        await cluster("PATCH", WEB, image(name))
        await cluster.kubelet()
    again = await cluster("GET", f"{SETS}/{first['metadata']['name']}")
    annotations = again["metadata"]["annotations"]
    assert (again["spec"]["replicas"], annotations["deployment.kubernetes.io/revision"]) == (2, "3")
    assert annotations["deployment.kubernetes.io/revision-history"] == "1"
    assert len((await cluster("GET", SETS))["items"]) == 2


async def test_scaling_in_the_middle_of_a_rollout_keeps_the_proportions(cluster: Cluster) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    await cluster("POST", f"{APPS}/deployments", workload("web", 10, strategy=rolling))
    await cluster.kubelet()
    await cluster("PATCH", WEB, image("host/broken"))
    await cluster.settle()

    async def sizes() -> list[int]:
        return sorted(rs["spec"]["replicas"] for rs in (await cluster("GET", SETS))["items"])

    assert await sizes() == [5, 8]
    await cluster("PATCH", WEB, {"spec": {"replicas": 15}})
    await cluster.settle()
    assert await sizes() == [7, 11]  # the example of Kubernetes' documentation, which has 5, 8 and then 18 in all


@pytest.mark.parametrize("text", ["abc", "", "-1", "1" * 5000, "\u0663"])
async def test_what_anybody_wrote_into_annotations_of_a_rollout_stops_none(cluster: Cluster, text: str) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 4))
    await cluster.kubelet()
    await cluster("PATCH", WEB, image("host/broken"))
    await cluster.settle()
    for replica_set in (await cluster("GET", SETS))["items"]:
        named = {"deployment.kubernetes.io/max-replicas": text, "deployment.kubernetes.io/revision": text}
        await cluster("PATCH", f"{SETS}/{replica_set['metadata']['name']}", {"metadata": {"annotations": named}})
    await cluster("PATCH", WEB, {"spec": {"replicas": 6}})
    await cluster.settle()
    assert sum(rs["spec"]["replicas"] for rs in (await cluster("GET", SETS))["items"]) >= 6
    assert (await cluster("GET", WEB))["status"]["observedGeneration"] == 3


@pytest.mark.parametrize("share", ["1" * 5000 + "%", "\u0663%", "%", "-1%", "1%%"])
async def test_a_share_is_a_percentage_in_digits(cluster: Cluster, share: str) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": share}}
    await cluster.refused("Invalid", "POST", f"{APPS}/deployments", workload("web", 1, strategy=rolling))


async def test_equal_replica_sets_grow_by_the_newer_one_first(cluster: Cluster) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"}}
    await cluster("POST", f"{APPS}/deployments", workload("web", 4, strategy=rolling))
    await cluster.kubelet()
    await cluster.settle(5)
    await cluster("PATCH", WEB, image("host/broken"))
    await cluster.settle()
    await cluster("PATCH", WEB, {"spec": {"replicas": 5}})
    await cluster.settle()
    sets = (await cluster("GET", SETS))["items"]
    by_image = {rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["spec"]["replicas"] for rs in sets}
    assert by_image == {"podplane/echo": 2, "host/broken": 3}


async def test_a_complete_rollout_stays_so_when_it_is_scaled_or_a_pod_fails(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 2, progressDeadlineSeconds=30))
    await cluster.kubelet()
    assert await progress(cluster) == ("True", "NewReplicaSetAvailable")
    await cluster("PATCH", WEB, {"spec": {"replicas": 3}})
    await cluster.set_status((await cluster.pods(app="web"))[0], "Running", False)
    await cluster.settle()
    await cluster.settle(600)
    assert await progress(cluster) == ("True", "NewReplicaSetAvailable")
    await cluster("PATCH", WEB, image("host/two"))
    await cluster.settle()
    assert await progress(cluster) == ("True", "ReplicaSetUpdated")


async def test_going_backwards_is_no_progress_and_progress_ends_being_stuck(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 2, progressDeadlineSeconds=30))
    await cluster.settle()
    first, second = await cluster.pods(app="web")
    await cluster.set_status(first, "Running", True)
    await cluster.settle(20)
    await cluster.set_status(first, "Running", False)
    await cluster.settle(11)
    await cluster.settle(20)
    assert await progress(cluster) == ("False", "ProgressDeadlineExceeded")
    await cluster.settle(300)
    await cluster.set_status(second, "Running", True)
    await cluster.settle()
    assert await progress(cluster) == ("True", "ReplicaSetUpdated")


async def test_a_paused_deployment_has_no_deadline(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 1, progressDeadlineSeconds=30))
    await cluster.settle()
    await cluster("PATCH", WEB, {"spec": {"paused": True}})
    await cluster.settle()
    await cluster.settle(60)
    assert await progress(cluster) == ("Unknown", "DeploymentPaused")
    await cluster("PATCH", WEB, {"spec": {"paused": False}})
    await cluster.settle()
    assert await progress(cluster) == ("Unknown", "DeploymentResumed")


async def test_recreate_waits_for_the_last_pod_that_is_leaving(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 2, strategy={"type": "Recreate"}))
    await cluster.kubelet()
    await cluster("PATCH", WEB, image("host/new"))
    for left in (2, 1):
        await cluster.settle()
        pods = await cluster.pods(app="web")
        assert [pod["spec"]["containers"][0]["image"] for pod in pods] == ["podplane/echo"] * left
        await cluster("DELETE", f"{PODS}/{pods[0]['metadata']['name']}", {"gracePeriodSeconds": 0})
    await cluster.settle()
    await assert_rolled(cluster, 2)


async def test_a_replica_set_of_the_same_name_is_stepped_around(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 1))
    await cluster.kubelet()
    (mine,) = (await cluster("GET", SETS))["items"]
    name = mine["metadata"]["name"]
    await cluster("DELETE", WEB)
    await cluster.kubelet()
    await cluster("POST", SETS, workload("stranger", 0) | {"metadata": {"name": name}})
    await cluster("POST", f"{APPS}/deployments", workload("web", 1))
    await cluster.kubelet()
    assert len(living(await cluster.pods(app="web"))) == 1
    assert (await cluster("GET", WEB))["status"]["collisionCount"] == 1

"""Deployments, ReplicaSets, DaemonSets, StatefulSets and Jobs: what follows from them, over the real API server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.apiserver.controllers.cluster import APPS, Cluster, image, workload
from tests.unit.apiserver.test_server import PODS, Object

JOBS = "/apis/batch/v1/namespaces/default/jobs"


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().begin()


def images(pods: list[Object]) -> list[str]:
    return sorted(pod["spec"]["containers"][0]["image"] for pod in pods)


# ReplicaSet.


async def test_a_replica_set_has_its_pods_and_replaces_those_that_end(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/replicasets", workload("web", 3))
    await cluster.kubelet()
    first = await cluster.pods(app="web")
    assert len(first) == 3
    assert {pod["spec"]["nodeName"] for pod in first} == {"node1", "node2", "node3"}
    status = (await cluster("GET", f"{APPS}/replicasets/web"))["status"]
    assert (status["replicas"], status["readyReplicas"], status["availableReplicas"]) == (3, 3, 3)
    await cluster.end(first[0]["metadata"]["name"], "Failed")
    await cluster.kubelet()
    assert sum(pod["status"]["phase"] == "Running" for pod in await cluster.pods(app="web")) == 3
    assert len(await cluster.events("SuccessfulCreate")) == 4


async def test_pods_that_are_worth_least_go_first(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/replicasets", workload("web", 4))
    await cluster.kubelet()
    pods = await cluster.pods(app="web")
    unready, cheap = pods[1], pods[2]
    await cluster.set_status(unready, "Running", False)
    cost = {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}}
    await cluster("PATCH", f"{PODS}/{cheap['metadata']['name']}", cost)
    await cluster("PATCH", f"{APPS}/replicasets/web", {"spec": {"replicas": 2}})
    await cluster.kubelet()
    left = {pod["metadata"]["name"] for pod in await cluster.pods(app="web")}
    assert left == {pods[0]["metadata"]["name"], pods[3]["metadata"]["name"]}


async def test_orphans_are_adopted_and_strangers_let_go(cluster: Cluster) -> None:
    await cluster.pod("orphan", labels={"app": "web"})
    await cluster("POST", f"{APPS}/replicasets", workload("web", 2))
    await cluster.kubelet()
    pods = await cluster.pods(app="web")
    assert len(pods) == 2
    assert (await cluster("GET", f"{PODS}/orphan"))["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet"
    await cluster("PATCH", f"{PODS}/orphan", {"metadata": {"labels": {"app": "debug"}}})
    await cluster.kubelet()
    assert len(await cluster.pods(app="web")) == 2
    assert "ownerReferences" not in (await cluster("GET", f"{PODS}/orphan"))["metadata"]


# Deployment.


async def test_a_rollout_has_revisions_and_can_be_undone(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 3))
    await cluster.kubelet()
    for name in ("host/two", "host/three", "podplane/echo"):
        await cluster("PATCH", f"{APPS}/deployments/web", image(name))
        await cluster.kubelet()
    assert images(await cluster.pods(app="web")) == ["podplane/echo"] * 3
    deployment = await cluster("GET", f"{APPS}/deployments/web")
    sets = (await cluster("GET", f"{APPS}/replicasets"))["items"]
    numbers = {rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for rs in sets}
    assert (len(sets), numbers) == (3, {"2", "3", "4"})
    assert deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "4"
    status = deployment["status"]
    assert (status["updatedReplicas"], status["availableReplicas"], status.get("unavailableReplicas", 0)) == (3, 3, 0)
    reasons = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert reasons == {"Available": ("True", "MinimumReplicasAvailable"), "Progressing": ("True", "NewReplicaSetAvailable")}


async def test_recreate_has_no_two_templates_at_once(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 2, strategy={"type": "Recreate"}))
    await cluster.kubelet()
    await cluster("PATCH", f"{APPS}/deployments/web", image("host/two"))
    await cluster.settle()
    assert images(await cluster.pods(app="web")) == ["podplane/echo"] * 2
    await cluster.kubelet()
    assert images(await cluster.pods(app="web")) == ["host/two"] * 2


async def test_a_paused_deployment_scales_and_does_not_roll(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 2))
    await cluster.kubelet()
    await cluster("PATCH", f"{APPS}/deployments/web", {"spec": {"paused": True, "replicas": 4}} | image("host/two"))
    await cluster("PATCH", f"{APPS}/deployments/web", {"spec": {"paused": True, "replicas": 4}})
    await cluster.kubelet()
    assert images(await cluster.pods(app="web")) == ["podplane/echo"] * 4
    await cluster("PATCH", f"{APPS}/deployments/web", {"spec": {"paused": False}})
    await cluster.kubelet()
    assert images(await cluster.pods(app="web")) == ["host/two"] * 4


async def test_a_rollout_that_gets_stuck_says_so_at_its_deadline(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 1, progressDeadlineSeconds=30))
    await cluster.settle()
    await cluster.settle(31)
    conditions = (await cluster("GET", f"{APPS}/deployments/web"))["status"]["conditions"]
    assert [c["reason"] for c in conditions if c["type"] == "Progressing"] == ["ProgressDeadlineExceeded"]
    await cluster.kubelet()
    conditions = (await cluster("GET", f"{APPS}/deployments/web"))["status"]["conditions"]
    assert [c["reason"] for c in conditions if c["type"] == "Progressing"] == ["NewReplicaSetAvailable"]


async def test_old_replica_sets_are_forgotten(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/deployments", workload("web", 1, revisionHistoryLimit=1))
    for number in range(4):
        await cluster("PATCH", f"{APPS}/deployments/web", image(f"host/{number}"))
        await cluster.kubelet()
    assert len((await cluster("GET", f"{APPS}/replicasets"))["items"]) == 2


STEPS = st.one_of(
    st.integers(0, 6).map(lambda n: ("scale", n)),
    st.sampled_from(["a", "b", "c"]).map(lambda name: ("image", f"host/{name}")),
    st.integers(0, 20).map(lambda n: ("end", n)),
    st.just(("kubelet", 0)),
    st.just(("settle", 0)),
)


async def act(cluster: Cluster, step: tuple[str, Any]) -> None:
    kind, value = step
    if kind == "scale":
        await cluster("PATCH", f"{APPS}/deployments/web", {"spec": {"replicas": value}})
    elif kind == "image":
        await cluster("PATCH", f"{APPS}/deployments/web", image(value))
    elif kind == "end" and (pods := await cluster.pods(app="web")):
        await cluster.set_status(pods[value % len(pods)], "Failed", False)
    elif kind == "kubelet":
        await cluster.kubelet()
    await cluster.settle()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(STEPS, max_size=8),
    st.sampled_from([("25%", "25%"), (1, 0), (0, 1), ("100%", 0), (2, "50%")]),
)
def test_whatever_happens_it_settles_at_what_is_wanted(steps: list[tuple[str, Any]], bounds: tuple[Any, Any]) -> None:
    async def play() -> None:
        cluster = await Cluster().begin()
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": bounds[0], "maxUnavailable": bounds[1]}}
        await cluster("POST", f"{APPS}/deployments", workload("web", 3, strategy=rolling))
        for step in steps:
            await act(cluster, step)
        await cluster.kubelet()
        wanted = await cluster("GET", f"{APPS}/deployments/web")
        alive = [pod for pod in await cluster.pods(app="web") if pod["status"]["phase"] == "Running"]
        template = wanted["spec"]["template"]["spec"]["containers"][0]["image"]
        assert images(alive) == [template] * wanted["spec"]["replicas"]
        counts = {wanted["status"].get(field, 0) for field in ("availableReplicas", "updatedReplicas")}
        assert counts == {wanted["spec"]["replicas"]}
        version = cluster.server._records.hub.version
        cluster.manager.begin()
        await cluster.settle()
        assert cluster.server._records.hub.version == version, "deciding again changes nothing"

    asyncio.run(play())


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 8), st.sampled_from([("25%", "25%"), (1, 0), (0, 1), ("100%", 0), (2, "50%")]))
def test_a_rolling_update_keeps_within_its_bounds(replicas: int, bounds: tuple[Any, Any]) -> None:
    """Never fewer available than allowed, never more than allowed in total, at any step."""

    async def play() -> None:
        cluster = await Cluster().begin()
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": bounds[0], "maxUnavailable": bounds[1]}}
        await cluster("POST", f"{APPS}/deployments", workload("web", replicas, strategy=rolling))
        await cluster.kubelet()
        surge, missing = (-(-int(b[:-1]) * replicas // 100) if isinstance(b, str) else b for b in bounds)
        missing = int(bounds[1][:-1]) * replicas // 100 if isinstance(bounds[1], str) else bounds[1]
        missing = missing if surge or missing else 1
        await cluster("PATCH", f"{APPS}/deployments/web", image("host/new"))
        for _ in range(100):
            await cluster.settle()
            pods = [p for p in await cluster.pods(app="web") if "deletionTimestamp" not in p["metadata"]]
            ready = [p for p in pods if p["status"]["phase"] == "Running"]
            assert len(ready) >= replicas - missing
            assert len(pods) <= replicas + surge
            waiting = [p for p in pods if p["status"]["phase"] == "Pending" and p["spec"].get("nodeName")]
            leaving = [p for p in await cluster.pods(app="web") if "deletionTimestamp" in p["metadata"]]
            for pod in waiting[:1]:
                await cluster.set_status(pod, "Running", True)
            for pod in leaving[:1]:
                await cluster("DELETE", f"{PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
            if not waiting and not leaving:
                break
        assert images(await cluster.pods(app="web")) == ["host/new"] * replicas

    asyncio.run(play())


# DaemonSet.


async def test_a_daemon_set_has_a_pod_on_each_node_that_it_fits(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/daemonsets", workload("agent") | {"spec": daemon()})
    await cluster.kubelet()
    assert sorted(p["spec"]["nodeName"] for p in await cluster.pods(app="agent")) == ["node1", "node2", "node3"]
    await cluster.add_node("node4", taints=[{"key": "gpu", "effect": "NoSchedule"}])
    await cluster.add_node("node5", unschedulable=True)
    await cluster.kubelet()
    assert sorted(p["spec"]["nodeName"] for p in await cluster.pods(app="agent")) == ["node1", "node2", "node3", "node5"]
    await cluster("PATCH", f"{APPS}/daemonsets/agent", image("host/two"))
    await cluster.kubelet()
    assert images(await cluster.pods(app="agent")) == ["host/two"] * 4
    status = (await cluster("GET", f"{APPS}/daemonsets/agent"))["status"]
    assert (status["desiredNumberScheduled"], status["numberReady"], status["updatedNumberScheduled"]) == (4, 4, 4)
    revisions = (await cluster("GET", f"{APPS}/controllerrevisions"))["items"]
    assert sorted(r["revision"] for r in revisions) == [1, 2]
    template = (await cluster("GET", f"{APPS}/daemonsets/agent"))["spec"]["template"]
    newest = next(r["data"] for r in revisions if r["revision"] == 2)
    as_go_writes_it = json.dumps({"spec": {"template": {**template, "$patch": "replace"}}}, sort_keys=True)
    assert json.dumps(newest) == as_go_writes_it, "clients compare the bytes (daemon/update.go, Match)"


def daemon() -> Object:
    spec: Object = workload("agent")["spec"]
    del spec["replicas"]
    return spec


# StatefulSet.


async def test_a_stateful_set_starts_in_order_and_stops_in_reverse(cluster: Cluster) -> None:
    await cluster("POST", f"{APPS}/statefulsets", workload("db", 3, serviceName="db"))
    await cluster.settle()
    assert [p["metadata"]["name"] for p in await cluster.pods(app="db")] == ["db-0"]
    await cluster.kubelet()
    pods = await cluster.pods(app="db")
    assert [(p["metadata"]["name"], p["spec"]["hostname"], p["spec"]["subdomain"]) for p in pods] == [
        (f"db-{n}", f"db-{n}", "db") for n in range(3)
    ]
    await cluster("PATCH", f"{APPS}/statefulsets/db", {"spec": {"replicas": 1}})
    await cluster.settle()
    leaving = [p["metadata"]["name"] for p in await cluster.pods(app="db") if "deletionTimestamp" in p["metadata"]]
    assert leaving == ["db-2"]
    await cluster.kubelet()
    assert [p["metadata"]["name"] for p in await cluster.pods(app="db")] == ["db-0"]


async def test_a_partition_keeps_the_members_below_it(cluster: Cluster) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    await cluster("POST", f"{APPS}/statefulsets", workload("db", 3, serviceName="db", updateStrategy=strategy))
    await cluster.kubelet()
    await cluster("PATCH", f"{APPS}/statefulsets/db", image("host/two"))
    await cluster.kubelet()
    found = {p["metadata"]["name"]: p["spec"]["containers"][0]["image"] for p in await cluster.pods(app="db")}
    assert found == {"db-0": "podplane/echo", "db-1": "podplane/echo", "db-2": "host/two"}
    await cluster("DELETE", f"{PODS}/db-0", {"gracePeriodSeconds": 0})
    await cluster.kubelet()
    assert (await cluster("GET", f"{PODS}/db-0"))["spec"]["containers"][0]["image"] == "podplane/echo"


# Job.


def job(**more: Any) -> Object:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "podplane/echo"}]}}
    return {"metadata": {"name": "work"}, "spec": {"template": template, **more}}


async def conditions(cluster: Cluster) -> dict[str, str]:
    found = (await cluster("GET", f"{JOBS}/work")).get("status", {}).get("conditions", ())
    return {c["type"]: c["reason"] for c in found if c["status"] == "True"}


async def test_a_job_ends_when_so_many_have_succeeded(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(completions=3, parallelism=2))
    for count in (2, 1):
        await cluster.kubelet()
        running = [p for p in await cluster.pods() if p["status"]["phase"] == "Running"]
        assert len(running) == count
        for pod in running:
            await cluster.end(pod["metadata"]["name"], "Succeeded")
    status = (await cluster("GET", f"{JOBS}/work"))["status"]
    assert (status["succeeded"], "active" in status) == (3, False)
    assert (await conditions(cluster))["Complete"] == "CompletionsReached"


async def test_pods_count_once_though_they_are_deleted_at_once(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(completions=3, parallelism=3))
    await cluster.kubelet()
    for pod in await cluster.pods():
        await cluster.set_status(pod, "Succeeded", False)
        await cluster("DELETE", f"{PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
    await cluster.kubelet()
    assert await cluster.pods() == []
    assert (await cluster("GET", f"{JOBS}/work"))["status"]["succeeded"] == 3
    assert "Complete" in await conditions(cluster)


async def test_a_job_gives_up_after_its_backoff_limit(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(backoffLimit=1))
    for _ in range(2):
        await cluster.kubelet()
        running = [p for p in await cluster.pods() if p["status"]["phase"] == "Running"]
        await cluster.end(running[0]["metadata"]["name"], "Failed")
        await cluster.settle(21)
    await cluster.kubelet()
    assert (await conditions(cluster))["Failed"] == "BackoffLimitExceeded"
    assert len(await cluster.pods()) == 2


async def test_a_job_has_a_deadline_and_is_forgotten_in_time(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(activeDeadlineSeconds=20, ttlSecondsAfterFinished=60))
    await cluster.kubelet()
    await cluster.settle(21)
    await cluster.kubelet()
    assert (await conditions(cluster))["Failed"] == "DeadlineExceeded"
    await cluster.settle(61)
    await cluster.refused("NotFound", "GET", f"{JOBS}/work")


async def test_each_index_of_an_indexed_job_is_done_once(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(completions=5, parallelism=2, completionMode="Indexed"))
    seen = []
    for _ in range(5):
        await cluster.kubelet()
        for pod in [p for p in await cluster.pods() if p["status"]["phase"] == "Running"]:
            seen.append(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
            await cluster.end(pod["metadata"]["name"], "Succeeded")
    assert sorted(seen) == ["0", "1", "2", "3", "4"]
    assert (await cluster("GET", f"{JOBS}/work"))["status"]["completedIndexes"] == "0-4"


async def test_a_suspended_job_has_no_pods_until_it_is_resumed(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(suspend=True))
    await cluster.kubelet()
    assert await cluster.pods() == []
    await cluster("PATCH", f"{JOBS}/work", {"spec": {"suspend": False}})
    await cluster.kubelet()
    assert len(await cluster.pods()) == 1


async def test_pods_of_a_job_that_is_gone_go_too(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job())
    await cluster.kubelet()
    await cluster("DELETE", f"{JOBS}/work", propagationPolicy="Background")
    await cluster.kubelet()
    assert await cluster.pods() == []

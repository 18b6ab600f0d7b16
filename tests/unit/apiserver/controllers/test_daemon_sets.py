"""DaemonSets: which nodes have a pod, which keep theirs, and how a new template comes to all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.apiserver.controllers.cluster import APPS, Cluster, image, workload
from tests.unit.apiserver.test_server import PODS, Object

AGENT, NODES = f"{APPS}/daemonsets/agent", "/api/v1/nodes"


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().begin()


async def make(cluster: Cluster, pod: Object | None = None, **spec: Any) -> None:
    """A DaemonSet; `pod` is added to its pods' spec."""
    manifest = workload("agent", **spec)
    del manifest["spec"]["replicas"]
    manifest["spec"]["template"]["spec"] |= pod or {}
    await cluster("POST", f"{APPS}/daemonsets", manifest)
    await cluster.kubelet()


async def nodes(cluster: Cluster) -> list[str]:
    """The nodes of its pods that aren't being deleted."""
    pods = await cluster.pods(app="agent")
    return sorted(pod["spec"]["nodeName"] for pod in pods if "deletionTimestamp" not in pod["metadata"])


def is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def is_new(pod: Object) -> bool:
    return bool(pod["spec"]["containers"][0]["image"] == "host/new")


async def test_a_taint_that_keeps_new_pods_away_leaves_the_old_one(cluster: Cluster) -> None:
    await make(cluster)
    taint = {"key": "maintenance", "effect": "NoSchedule"}
    for name in ("node1", "node2"):
        await cluster("PATCH", f"{NODES}/{name}", {"spec": {"taints": [taint]}})
    await cluster.kubelet()
    assert await nodes(cluster) == ["node1", "node2", "node3"]
    status = (await cluster("GET", AGENT))["status"]
    assert [status[f] for f in ("desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled")] == [1, 1, 2]
    gone = next(pod for pod in await cluster.pods() if pod["spec"]["nodeName"] == "node1")
    await cluster("DELETE", f"{PODS}/{gone['metadata']['name']}")
    await cluster.kubelet()
    assert await nodes(cluster) == ["node2", "node3"]
    await cluster("PATCH", f"{NODES}/node2", {"spec": {"taints": [{**taint, "effect": "NoExecute"}]}})
    await cluster.kubelet()
    assert await nodes(cluster) == ["node3"]


async def test_a_silent_node_keeps_its_daemon_pod(cluster: Cluster) -> None:
    await make(cluster)
    cluster.silent = {"node1"}
    for _ in range(40):
        await cluster.settle(10)
    assert await nodes(cluster) == ["node1", "node2", "node3"]


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ({"nodeSelector": {"kubernetes.io/hostname": "node2"}}, ["node2"]),
        ({"nodeName": "node3"}, ["node3"]),
        (
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node1"]}]}
                            ]
                        }
                    }
                }
            },
            ["node2", "node3"],
        ),
    ],
)
async def test_it_runs_where_its_template_says(cluster: Cluster, pod: Object, expected: list[str]) -> None:
    await make(cluster, pod)
    assert await nodes(cluster) == expected
    assert (await cluster("GET", AGENT))["status"]["desiredNumberScheduled"] == len(expected)


async def test_a_label_that_comes_and_goes_brings_and_takes_its_pod(cluster: Cluster) -> None:
    await make(cluster, {"nodeSelector": {"role": "edge"}})
    assert await nodes(cluster) == []
    await cluster("PATCH", f"{NODES}/node2", {"metadata": {"labels": {"role": "edge"}}})
    await cluster.kubelet()
    assert await nodes(cluster) == ["node2"]
    await cluster("PATCH", f"{NODES}/node2", {"metadata": {"labels": {"role": None}}})
    await cluster.kubelet()
    assert await nodes(cluster) == []


@pytest.mark.parametrize(
    ("phase", "reason", "text"),
    [
        ("Failed", "FailedDaemonPod", "Found failed daemon pod default/{} on node node1, will try to kill it"),
        ("Succeeded", "SucceededDaemonPod", "Found succeeded daemon pod default/{} on node node1, will try to delete it"),
    ],
)
async def test_a_pod_that_ended_is_replaced(cluster: Cluster, phase: str, reason: str, text: str) -> None:
    await make(cluster)
    name = next(pod["metadata"]["name"] for pod in await cluster.pods() if pod["spec"]["nodeName"] == "node1")
    await cluster.end(name, phase)
    await cluster.kubelet()
    assert await nodes(cluster) == ["node1", "node2", "node3"]
    assert await cluster.events(reason) == [text.format(name)]


async def test_with_on_delete_pods_change_when_the_user_deletes_them(cluster: Cluster) -> None:
    await make(cluster, updateStrategy={"type": "OnDelete"})
    await cluster("PATCH", AGENT, image("host/new"))
    await cluster.kubelet()
    pods = await cluster.pods(app="agent")
    assert not any(map(is_new, pods))
    await cluster("DELETE", f"{PODS}/{pods[0]['metadata']['name']}")
    await cluster.kubelet()
    assert sum(map(is_new, await cluster.pods(app="agent"))) == 1
    assert (await cluster("GET", AGENT))["status"]["updatedNumberScheduled"] == 1


async def step(cluster: Cluster) -> bool:
    """One pod that waits becomes ready, or one that leaves goes; is there nothing left to do?"""
    pods = await cluster.pods(app="agent")
    leaving = [pod for pod in pods if "deletionTimestamp" in pod["metadata"]]
    waiting = [pod for pod in pods if pod["spec"].get("nodeName") and not is_ready(pod) and pod not in leaving]
    if waiting:
        await cluster.set_status(waiting[0], "Running", True)
    elif leaving:
        await cluster("DELETE", f"{PODS}/{leaving[0]['metadata']['name']}", {"gracePeriodSeconds": 0})
    return not waiting and not leaving


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.sampled_from([(0, 1), (0, 2), (0, "50%"), (1, 0), (2, 0), ("50%", 0)]))
def test_a_rolling_update_keeps_within_its_bounds(count: int, bounds: tuple[Any, Any]) -> None:
    async def play() -> None:
        cluster = await Cluster(count).begin()
        surge, missing = (-(-int(b[:-1]) * count // 100) if isinstance(b, str) else b for b in bounds)
        rolling = {"maxSurge": bounds[0], "maxUnavailable": bounds[1]}
        await make(cluster, updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
        await cluster("PATCH", AGENT, image("host/new"))
        for _ in range(100):
            await cluster.settle()
            living = [pod for pod in await cluster.pods(app="agent") if "deletionTimestamp" not in pod["metadata"]]
            assert len({pod["spec"]["nodeName"] for pod in living if is_ready(pod)}) >= count - missing
            assert len(living) <= count + surge
            if await step(cluster):
                break
        pods = await cluster.pods(app="agent")
        assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted(f"node{n + 1}" for n in range(count))
        assert all(map(is_new, pods))

    asyncio.run(play())


async def test_a_surge_waits_until_the_new_pod_has_been_ready_long_enough(cluster: Cluster) -> None:
    rolling = {"maxSurge": 3, "maxUnavailable": 0}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    await make(cluster, minReadySeconds=30, updateStrategy=strategy)
    await cluster.settle(31)
    await cluster("PATCH", AGENT, image("host/new"))
    await cluster.kubelet()
    assert len(await cluster.pods(app="agent")) == 6
    await cluster.settle(31)
    await cluster.kubelet()
    assert [is_new(pod) for pod in await cluster.pods(app="agent")] == [True] * 3


async def test_a_broken_pod_does_not_wait_for_its_update(cluster: Cluster) -> None:
    """Of the nodes that may be without a pod, the one that is without anyway comes first."""
    await make(cluster)
    broken = (await cluster.pods(app="agent"))[-1]
    await cluster.set_status(broken, "Running", False)
    await cluster("PATCH", AGENT, image("host/new"))
    await cluster.settle()
    leaving = [pod["metadata"]["name"] for pod in await cluster.pods() if "deletionTimestamp" in pod["metadata"]]
    assert leaving == [broken["metadata"]["name"]]


async def test_orphans_are_adopted_and_kept_if_they_are_on_their_node(cluster: Cluster) -> None:
    for name in ("node1", "node1", "node2"):
        await cluster.pod(f"p{len(await cluster.pods())}", labels={"app": "agent"}, nodeName=name)
    await make(cluster, updateStrategy={"type": "OnDelete"})
    names = {pod["metadata"]["name"] for pod in await cluster.pods(app="agent")}
    assert len(names) == 3
    assert {"p0", "p2"} <= names

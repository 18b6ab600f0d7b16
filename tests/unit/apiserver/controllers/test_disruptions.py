"""A pod that goes because of a disruption says so, and a job may ignore its failure (KEP-3329)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.controllers.test_jobs import running, status
from tests.unit.apiserver.controllers.test_workloads import JOBS, conditions, job
from tests.unit.apiserver.test_server import PODS, Object

IGNORE = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
TAINT = {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().begin()


def target(pod: Object) -> tuple[str, str, str]:
    found = next(c for c in pod["status"]["conditions"] if c["type"] == "DisruptionTarget")
    return found["status"], found["reason"], found["message"]


async def evict(cluster: Cluster, pod: Object, **query: Any) -> None:
    name = pod["metadata"]["name"]
    await cluster("POST", f"{PODS}/{name}/eviction", {"metadata": {"name": name}}, **query)


async def by_eviction(cluster: Cluster, pod: Object) -> None:
    await evict(cluster, pod)


async def by_taint(cluster: Cluster, pod: Object) -> None:
    await cluster("PATCH", f"/api/v1/nodes/{pod['spec']['nodeName']}", TAINT)
    await cluster.settle()


async def by_loss_of_its_node(cluster: Cluster, pod: Object) -> None:
    await cluster("DELETE", f"/api/v1/nodes/{pod['spec']['nodeName']}")
    await cluster.settle()
    await cluster.settle(41)


@pytest.mark.parametrize(
    ("disrupt", "phase", "reason", "message"),
    [
        (by_eviction, "Running", "EvictionByEvictionAPI", "Eviction API: evicting"),
        (by_taint, "Running", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        (by_loss_of_its_node, "Failed", "DeletionByPodGC", "PodGC: node no longer exists"),
    ],
)
async def test_a_job_does_not_count_the_failure_of_a_pod_that_was_disrupted(
    cluster: Cluster, disrupt: Callable[[Cluster, Object], Awaitable[None]], phase: str, reason: str, message: str
) -> None:
    await cluster("POST", JOBS, job(backoffLimit=0, podFailurePolicy=IGNORE))
    (pod,) = await running(cluster)
    path = f"{PODS}/{pod['metadata']['name']}"
    await cluster("PATCH", path, {"metadata": {"finalizers": [*pod["metadata"]["finalizers"], "example.org/keep"]}})
    await disrupt(cluster, pod)
    found = await cluster("GET", path)
    assert ("deletionTimestamp" in found["metadata"], found["status"]["phase"]) == (True, phase)
    assert target(found) == ("True", reason, message)
    await cluster.set_status(found, "Failed", False)
    await cluster.settle(11)
    assert len(await running(cluster)) == 1
    assert (await conditions(cluster), (await status(cluster)).get("failed")) == ({}, None)


async def test_an_eviction_that_is_refused_or_only_tried_changes_nothing(cluster: Cluster) -> None:
    pod = await cluster.pod("web")
    await evict(cluster, pod, dryRun="All")
    body = {"metadata": {"name": "web"}, "deleteOptions": {"preconditions": {"uid": "other"}}}
    await cluster.refused("Conflict", "POST", f"{PODS}/web/eviction", body)
    assert await cluster("GET", f"{PODS}/web") == pod


async def test_an_eviction_of_the_pod_as_it_was_read_is_done(cluster: Cluster) -> None:
    pod = await cluster.pod("web")
    preconditions = {"uid": pod["metadata"]["uid"], "resourceVersion": pod["metadata"]["resourceVersion"]}
    body = {"metadata": {"name": "web"}, "deleteOptions": {"preconditions": preconditions}}
    await cluster("POST", f"{PODS}/web/eviction", body)
    await cluster.refused("NotFound", "GET", f"{PODS}/web")

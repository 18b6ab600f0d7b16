"""Owners whose pods are driven out as soon as they come: that goes on for ever, and must not keep the lab busy."""

from __future__ import annotations

import pytest

from tests.unit.apiserver.controllers.cluster import APPS, Cluster, workload

TAINT = {"spec": {"taints": [{"key": "broken", "effect": "NoExecute"}]}}


@pytest.mark.parametrize("kind", ["replicasets", "deployments", "statefulsets"])
async def test_each_pod_stays_for_a_moment(kind: str) -> None:
    """The template names the node, so no scheduler keeps its pods away from the taint."""
    cluster = await Cluster(1).begin()
    await cluster("PATCH", "/api/v1/nodes/node1", TAINT)
    await cluster.settle()
    await cluster.settle(2)
    manifest = workload("web", 1)
    manifest["spec"]["template"]["spec"] |= {"nodeName": "node1", "terminationGracePeriodSeconds": 0}
    await cluster("POST", f"{APPS}/{kind}", manifest)
    seen = set()
    for _ in range(4):
        await cluster.settle()
        (pod,) = [pod for pod in await cluster.pods() if "deletionTimestamp" not in pod["metadata"]]
        assert pod["metadata"]["uid"] not in seen, "the one before was driven out"
        seen.add(pod["metadata"]["uid"])
        await cluster.settle(1.1)


async def test_a_pod_that_was_there_before_the_taint_goes_at_once() -> None:
    cluster = await Cluster(1).begin()
    await cluster.pod("web", nodeName="node1", terminationGracePeriodSeconds=0)
    await cluster.settle(5)
    await cluster("PATCH", "/api/v1/nodes/node1", TAINT)
    await cluster.settle()
    assert await cluster.pods() == []

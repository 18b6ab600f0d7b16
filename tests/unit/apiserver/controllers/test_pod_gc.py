"""Pods whose node is no node: deleted after a while, unless it is a machine that may have pods all the same."""

from __future__ import annotations

import datetime
from typing import Any

from podplane.apiserver.controllers import pod_gc
from podplane.apiserver.controllers.decision import Again, Delete, Patch
from tests.unit.apiserver.controllers.cluster import APPS, Cluster, workload

BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class View:
    """One pod, and no node at all."""

    def __init__(self, node: str) -> None:
        self.now = BEGIN
        metadata = {"name": "a", "namespace": "default", "uid": "1", "creationTimestamp": BEGIN.isoformat()}
        self.pod: dict[str, Any] = {"metadata": metadata, "spec": {"nodeName": node}}

    def get(self, resource: str, key: tuple[str, str]) -> Any:
        return self.pod if resource == "pods" else None


def decided(node: str) -> list[list[Any]]:
    """What is decided at once, and 41 seconds later."""
    view, controller = View(node), pod_gc.controller({"outside"})
    found = [list(controller.decide(view, ("default", "a")))]  # type: ignore[arg-type]  # as much of a view as it needs
    view.now += datetime.timedelta(seconds=41)
    return [*found, list(controller.decide(view, ("default", "a")))]  # type: ignore[arg-type]  # as above


def test_a_pod_of_a_missing_node_is_deleted_after_a_while() -> None:
    at_once, later = decided("gone")
    assert [type(action) for action in at_once] == [Again]
    assert [type(action) for action in later] == [Patch, Delete]


def test_a_machine_outside_may_have_pods() -> None:
    assert decided("outside") == [[], []]


async def test_who_makes_pods_for_a_missing_node_does_not_keep_the_lab_busy() -> None:
    """A ReplicaSet whose template names a node that is not there: each of its pods lives for a while."""
    cluster = await Cluster(1).begin()
    manifest = workload("web", 1)
    manifest["spec"]["template"]["spec"]["nodeName"] = "gone"
    await cluster("POST", f"{APPS}/replicasets", manifest)
    await cluster.settle()
    first = (await cluster.pods())[0]["metadata"]["name"]
    await cluster.settle(41)
    second = (await cluster.pods())[0]["metadata"]["name"]
    assert second != first
    await cluster.settle(10)
    assert [pod["metadata"]["name"] for pod in await cluster.pods()] == [second]
    await cluster.settle(11)
    assert [pod["metadata"]["name"] for pod in await cluster.pods()] != [second]

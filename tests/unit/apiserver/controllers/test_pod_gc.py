"""Pods whose node is no node: deleted after a while, unless it is a machine that may have pods all the same."""

from __future__ import annotations

import datetime
from typing import Any

from podplane.apiserver.controllers import pod_gc
from podplane.apiserver.controllers.decision import Again, Delete, Patch
from podplane.controllers.objects import key_of
from tests.unit.apiserver.controllers.cluster import APPS, Cluster, workload
from tests.unit.apiserver.test_server import PODS

NODES = "/api/v1/nodes"
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
    await cluster.settle(30)
    assert [pod["metadata"]["name"] for pod in await cluster.pods()] == [second]
    await cluster.settle(11)
    assert [pod["metadata"]["name"] for pod in await cluster.pods()] != [second]


async def on_node1(cluster: Cluster, name: str) -> None:
    spec = {**workload("web")["spec"]["template"]["spec"], "nodeName": "node1"}
    await cluster("POST", PODS, {"metadata": {"name": name}, "spec": spec})
    await cluster.settle()


async def lose(cluster: Cluster) -> None:
    await cluster("DELETE", f"{NODES}/node1")
    cluster.hearts.clear()
    await cluster.settle()


async def test_a_node_that_goes_again_is_waited_for_again() -> None:
    """Though none of its pods was there when it came back."""
    cluster = await Cluster(1).begin()
    await on_node1(cluster, "first")
    await lose(cluster)
    await cluster("DELETE", f"{PODS}/first", {"gracePeriodSeconds": 0})
    await cluster.add_node("node1")
    await cluster.settle(100)
    await on_node1(cluster, "second")
    await lose(cluster)
    assert [pod["metadata"]["name"] for pod in await cluster.pods()] == ["second"]
    await cluster.settle(38)
    assert [pod["metadata"]["name"] for pod in await cluster.pods()] == ["second"]
    await cluster.settle(3)
    assert await cluster.pods() == []


async def test_a_node_that_comes_back_in_time_keeps_its_pods() -> None:
    cluster = await Cluster(1).begin()
    await on_node1(cluster, "first")
    for _ in range(2):
        await lose(cluster)
        await cluster.settle(30)
        await cluster.add_node("node1")
        await cluster.settle()
    assert [pod["metadata"]["name"] for pod in await cluster.pods()] == ["first"]


async def test_names_of_nodes_are_known_as_long_as_a_pod_has_them() -> None:
    collector = pod_gc.PodCollector()
    cluster = await Cluster(1).begin()
    for number in range(3):
        spec = {**workload("web")["spec"]["template"]["spec"], "nodeName": f"gone{number % 2}"}
        made = await cluster("POST", PODS, {"metadata": {"name": f"p{number}"}, "spec": spec})
        assert [type(action) for action in collector.decide(cluster.view, key_of(made))] == [Again]
    for number, left in ((0, ["gone0", "gone1"]), (1, ["gone0"]), (2, [])):
        gone = await cluster("GET", f"{PODS}/p{number}")
        await cluster("DELETE", f"{PODS}/p{number}", {"gracePeriodSeconds": 0})
        assert list(collector.itself(cluster.view, gone)) == [key_of(gone)]
        assert sorted(collector._missing) == left

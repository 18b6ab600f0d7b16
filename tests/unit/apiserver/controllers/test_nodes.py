"""Nodes that fall silent, taints that drive pods out, and pods whose node is gone."""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver.controllers.taint_eviction import seconds_left
from tests.unit.apiserver.controllers.cluster import Cluster, workload
from tests.unit.apiserver.test_server import PODS, Object

NOW = datetime.datetime(2026, 1, 1, 0, 0, 30, tzinfo=datetime.UTC)
NODES = "/api/v1/nodes"
TIMES = (10, 10, 10, 10, 10, 5)
"""Seconds, between which nodes are heard of; together they are longer than the grace."""


async def pod_on(cluster: Cluster, node: str, name: str = "web", **spec: Any) -> None:
    container = {"name": "main", "image": "podplane/echo"}
    await cluster("POST", PODS, {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [container], **spec}})
    await cluster.kubelet()


async def wait(cluster: Cluster, *times: float) -> None:
    for seconds in times:
        await cluster.settle(seconds)


async def taints(cluster: Cluster, node: str) -> list[str]:
    spec = (await cluster("GET", f"{NODES}/{node}"))["spec"]
    return sorted(f"{t['key'].removeprefix('node.kubernetes.io/')}:{t['effect']}" for t in spec.get("taints", ()))


async def conditions(cluster: Cluster, node: str) -> dict[str, str]:
    found = (await cluster("GET", f"{NODES}/{node}"))["status"]["conditions"]
    return {c["type"]: c["status"] for c in found}


async def names(cluster: Cluster) -> list[str]:
    return [pod["metadata"]["name"] for pod in await cluster.pods()]


async def is_ready(cluster: Cluster, pod: str) -> bool:
    found = await cluster("GET", f"{PODS}/{pod}")
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])


async def test_a_silent_node_is_unknown_and_drives_its_pods_out_after_their_time() -> None:
    cluster = await Cluster().begin()
    await pod_on(cluster, "node1")
    cluster.silent = {"node1"}
    await wait(cluster, 10, 10, 10, 10, 9)
    assert await taints(cluster, "node1") == []
    await cluster.settle(2)
    assert await conditions(cluster, "node1") == dict.fromkeys(
        ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"), "Unknown"
    )
    assert await taints(cluster, "node1") == ["unreachable:NoExecute", "unreachable:NoSchedule"]
    assert not await is_ready(cluster, "web")
    assert await taints(cluster, "node2") == []
    await wait(cluster, *[10] * 29, 9)
    assert "deletionTimestamp" not in (await cluster.pods())[0]["metadata"]
    await cluster.settle(2)
    assert "deletionTimestamp" in (await cluster.pods())[0]["metadata"]
    assert await cluster.events("TaintManagerEviction") == ["Marking for deletion Pod default/web"]
    told = (await cluster("GET", "/api/v1/namespaces/default/events"))["items"]
    assert "Node node1 status is now: NodeNotReady" in [event["message"] for event in told]


async def test_a_node_that_is_heard_of_again_is_as_before() -> None:
    cluster = await Cluster().begin()
    await pod_on(cluster, "node1")
    cluster.silent = {"node1"}
    await wait(cluster, *TIMES, 100)
    assert await taints(cluster, "node1") == ["unreachable:NoExecute", "unreachable:NoSchedule"]
    cluster.silent = set()
    await wait(cluster, 10)
    assert (await conditions(cluster, "node1"))["Ready"] == "True"
    assert await taints(cluster, "node1") == []
    await wait(cluster, *[10] * 40)
    assert "deletionTimestamp" not in (await cluster.pods())[0]["metadata"]


@pytest.mark.parametrize("silent", [3, 4, 5])
async def test_when_most_nodes_fall_silent_nothing_is_evicted(silent: int) -> None:
    cluster = await Cluster(5).begin()
    for number in range(1, 6):
        await pod_on(cluster, f"node{number}", f"web{number}", tolerations=[])
    cluster.silent = {f"node{number}" for number in range(1, silent + 1)}
    await wait(cluster, *TIMES, 400, 400)
    assert await taints(cluster, "node1") == ["unreachable:NoSchedule"]
    assert await names(cluster) == ["web1", "web2", "web3", "web4", "web5"]
    assert all([await is_ready(cluster, pod) for pod in await names(cluster)])


async def test_an_outage_that_comes_bit_by_bit_stops_the_eviction_that_it_began() -> None:
    cluster = await Cluster().begin()
    await pod_on(cluster, "node1")
    cluster.silent = {"node1"}
    await wait(cluster, *TIMES, 10)
    assert "unreachable:NoExecute" in await taints(cluster, "node1")
    cluster.silent = {"node1", "node2"}
    await wait(cluster, *TIMES, 10, 400)
    assert await taints(cluster, "node1") == ["unreachable:NoSchedule"]
    assert "deletionTimestamp" not in (await cluster.pods())[0]["metadata"]


async def test_a_suspended_machine_wakes_up_to_what_it_was() -> None:
    cluster = await Cluster().begin()
    await pod_on(cluster, "node1", tolerations=[])
    cluster.silent = {"node1", "node2", "node3"}
    cluster.asleep += 8 * 3600
    await cluster.settle(8 * 3600)
    await cluster.settle(9)
    cluster.silent = set()
    await cluster.settle(1)
    assert [await taints(cluster, f"node{n}") for n in (1, 2, 3)] == [[], [], []]
    assert await cluster.events("NodeNotReady") == []
    assert await is_ready(cluster, "web")


async def test_a_node_whose_kubelet_says_that_it_is_not_ready_gets_no_pods() -> None:
    cluster = await Cluster().begin()
    await cluster("PATCH", f"{NODES}/node1/status", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    await cluster.settle()
    assert await taints(cluster, "node1") == ["not-ready:NoExecute", "not-ready:NoSchedule"]
    await cluster("POST", "/apis/apps/v1/namespaces/default/deployments", workload("app", 6))
    await cluster.kubelet()
    assert {pod["spec"]["nodeName"] for pod in await cluster.pods()} == {"node2", "node3"}
    await cluster("PATCH", f"{NODES}/node1/status", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    await cluster.settle()
    assert await taints(cluster, "node1") == []


async def test_cordon_and_pressure_are_taints_and_those_of_others_stay() -> None:
    cluster = await Cluster().begin()
    own = {"key": "team", "value": "a", "effect": "NoSchedule"}
    await cluster("PATCH", f"{NODES}/node1", {"spec": {"unschedulable": True, "taints": [own]}})
    await cluster.settle()
    assert await taints(cluster, "node1") == ["team:NoSchedule", "unschedulable:NoSchedule"]
    await cluster("PATCH", f"{NODES}/node1", {"spec": {"unschedulable": None}})
    pressure = {"type": "MemoryPressure", "status": "True"}
    await cluster("PATCH", f"{NODES}/node1/status", {"status": {"conditions": [{"type": "Ready", "status": "True"}, pressure]}})
    await cluster.settle()
    assert await taints(cluster, "node1") == ["memory-pressure:NoSchedule", "team:NoSchedule"]


async def test_a_node_that_nobody_runs_is_unknown_after_the_grace() -> None:
    cluster = await Cluster().begin()
    await cluster("POST", NODES, {"metadata": {"name": "ghost"}})
    await cluster.settle()
    assert await taints(cluster, "ghost") == ["not-ready:NoExecute", "not-ready:NoSchedule"]
    await wait(cluster, *TIMES)
    ghost = await cluster("GET", f"{NODES}/ghost")
    assert {c["reason"] for c in ghost["status"]["conditions"]} == {"NodeStatusNeverUpdated"}
    assert await taints(cluster, "ghost") == ["unreachable:NoExecute", "unreachable:NoSchedule"]


async def test_how_long_a_node_may_be_silent_is_a_setting() -> None:
    cluster = await Cluster(node_grace=6.0).begin()
    cluster.silent.add("node1")
    await wait(cluster, 2, 2)
    assert await taints(cluster, "node1") == []
    await wait(cluster, 2, 1)
    assert await taints(cluster, "node1") == ["unreachable:NoExecute", "unreachable:NoSchedule"]


async def test_a_taint_of_a_user_drives_out_at_once_or_in_time() -> None:
    cluster = await Cluster().begin()
    stands = {"key": "maintenance", "operator": "Exists", "effect": "NoExecute"}
    await pod_on(cluster, "node1", "none")
    await pod_on(cluster, "node1", "some", tolerations=[{**stands, "tolerationSeconds": 60}])
    await pod_on(cluster, "node1", "always", tolerations=[stands])
    await pod_on(cluster, "node2", "elsewhere")
    await cluster("PATCH", f"{NODES}/node1", {"spec": {"taints": [{"key": "maintenance", "effect": "NoExecute"}]}})
    await cluster.kubelet()
    assert await names(cluster) == ["always", "elsewhere", "some"]
    await wait(cluster, 30, 29)
    assert await names(cluster) == ["always", "elsewhere", "some"]
    await cluster.settle(2)
    await cluster.kubelet()
    assert await names(cluster) == ["always", "elsewhere"]


async def test_pods_of_a_node_that_is_gone_go_unless_it_comes_back_in_time() -> None:
    cluster = await Cluster().begin()
    await pod_on(cluster, "node1", "a")
    await pod_on(cluster, "node2", "b")
    for name in ("node1", "node2"):
        await cluster("DELETE", f"{NODES}/{name}")
    await wait(cluster, 0, 30)
    assert await names(cluster) == ["a", "b"]
    await cluster.add_node("node2")
    await wait(cluster, 11)
    assert await names(cluster) == ["b"]
    await cluster("DELETE", f"{NODES}/node2")
    await wait(cluster, 0, 39)
    assert await names(cluster) == ["b"]
    await cluster.settle(2)
    assert await names(cluster) == []


async def test_the_lease_goes_with_its_node() -> None:
    cluster = await Cluster().begin()
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    await cluster.settle(1)
    assert [lease["metadata"]["name"] for lease in (await cluster("GET", leases))["items"]] == ["node1", "node2", "node3"]
    await cluster("DELETE", f"{NODES}/node1")
    await cluster.settle()
    assert [lease["metadata"]["name"] for lease in (await cluster("GET", leases))["items"]] == ["node2", "node3"]


async def test_a_renewed_lease_writes_nothing_else() -> None:
    cluster = await Cluster().begin()
    await cluster.settle(1)
    writes: list[str] = []
    cluster.server.observe(lambda resource, old, new: writes.append(resource.id))
    await wait(cluster, 10, 10)
    assert set(writes) == {"leases.coordination.k8s.io"}


effects = st.sampled_from(["NoExecute"])
keys = st.sampled_from(["a", "b"])
toleration = st.fixed_dictionaries(
    {"operator": st.just("Exists")}, optional={"key": keys, "effect": effects, "tolerationSeconds": st.integers(-10, 600)}
)
taint = st.fixed_dictionaries({"key": keys, "effect": effects, "timeAdded": st.just("2026-01-01T00:00:00Z")})


@settings(max_examples=200)
@given(st.lists(toleration, max_size=3), st.lists(taint, min_size=1, max_size=2))
def test_one_more_taint_never_lets_a_pod_stay_longer(tolerations: list[Object], taints_: list[Object]) -> None:
    def stay(taints: list[Object]) -> float:
        seconds = seconds_left({"tolerations": tolerations}, taints, NOW)
        return math.inf if seconds is None else seconds

    assert stay(taints_) <= stay(taints_[:1])


async def test_many_pods_of_a_node_that_fails_cost_what_few_do() -> None:
    cluster = await Cluster().begin()
    await cluster("POST", NODES, {"metadata": {"name": "ghost"}})
    decided: list[str] = []
    table = cluster.manager._controllers
    for name in ("taint-eviction-controller", "pod-garbage-collector"):
        former = table[name]
        table[name] = dataclasses.replace(
            former, decide=lambda view, key, f=former: (decided.append(key[1]), f.decide(view, key))[1]
        )
    for number in range(30):
        await pod_on(cluster, "ghost" if number % 2 else "nowhere", f"pod{number}")
    assert len(decided) <= 30 * 4

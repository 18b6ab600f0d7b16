"""What controllers see of a cluster: at once what they wrote, whatever the watch tells late; and the decisions of a lab on it."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

from podplane.controllers import load_balancer
from podplane.controllers.load_balancers import NODES
from podplane.controllers.load_balancers import SERVICES as RESOURCE
from podplane.controllers.node_blocks import BlockRange, NodeBlocks
from podplane.controllers.watched import AHEAD_SECONDS, Watched
from podplane.kubeapi.errors import ApiError
from podplane.services.pools import CLASS
from podplane.services.pools import POOLS as POOLED
from tests.unit.controllers.cluster import POOLS, SERVICES, Watching, add_node, addresses_of, api_of, balance, said, service

KEY = ("default", "web")


@dataclasses.dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


def owners(watched: Watched, ip: str) -> Any:
    return watched.load_balancers().own.owners(ipaddress.ip_address(ip))


def test_what_was_written_counts_until_the_watch_has_caught_up() -> None:
    told: list[str] = []
    watched = Watched(NodeBlocks())
    watched.observer = lambda part, old, new: told.append(new["metadata"]["resourceVersion"] if new else "")
    watched.take(RESOURCE, service("web", 10))
    watched.written(RESOURCE, service("web", 20, "192.0.2.1"))
    assert owners(watched, "192.0.2.1") == {KEY}
    for late in (11, 19):
        watched.take(RESOURCE, service("web", late))
        assert owners(watched, "192.0.2.1") == {KEY}, "nobody else gets its address meanwhile"
    watched.take(RESOURCE, service("web", 20, "192.0.2.1"))
    watched.take(RESOURCE, service("web", 21))
    assert not owners(watched, "192.0.2.1") and told == ["10", "20", "20", "21"]


def test_versions_that_begin_anew_are_taken_after_a_while() -> None:
    clock = Clock()
    watched = Watched(NodeBlocks(), clock=clock)
    watched.take(RESOURCE, service("web", 10))
    watched.written(RESOURCE, service("web", 2000, "192.0.2.1"))
    watched.take(RESOURCE, service("web", 15))
    assert owners(watched, "192.0.2.1") == {KEY}
    clock.seconds = AHEAD_SECONDS + 1
    watched.take(RESOURCE, service("web", 15))  # of a backup
    assert not owners(watched, "192.0.2.1")
    watched.take(RESOURCE, service("web", 16, "192.0.2.2"))
    assert owners(watched, "192.0.2.2") == {KEY}


def test_an_answer_brings_back_nothing_that_is_gone_or_another_one_by_now() -> None:
    watched = Watched(NodeBlocks())
    watched.written(RESOURCE, service("web", 20, "192.0.2.1"))
    assert watched.get(RESOURCE, KEY) is None
    watched.take(RESOURCE, service("web", 30, uid="new"))
    watched.written(RESOURCE, service("web", 20, "192.0.2.1", uid="old"))
    assert not owners(watched, "192.0.2.1")


async def test_load_balancers_get_addresses_by_watches_as_in_a_lab() -> None:
    api = await api_of("10.96.0.0/24")
    cluster = await Watching(api).begin()
    await api("POST", POOLS, {"metadata": {"name": "p"}, "spec": {"addresses": ["192.0.2.1-192.0.2.3", "10.96.0.0/30"]}})
    await add_node(api, "a", "192.0.2.1")
    for name in ("one", "two", "three"):
        await balance(api, name)
    await cluster.settle()
    assert [await addresses_of(api, name) for name in ("one", "three", "two")] == [["192.0.2.2"], ["192.0.2.3"], []]
    assert await said(api, "two") == [
        ("NoLoadBalancerAddress", "all IPv4 addresses of p are in use: add some to a LoadBalancerPool")
    ]
    assert (await api("GET", f"{POOLS}/p"))["status"]["inUse"] == 2
    await api("DELETE", f"{SERVICES}/one")
    await cluster.settle()
    assert await addresses_of(api, "two") == ["192.0.2.2"]


async def test_what_others_gave_a_service_stays_unless_it_asks_for_podplane_s() -> None:
    api = await api_of("10.96.0.0/24")
    cluster = await Watching(api).begin()
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    for name, more in (("cloud", {}), ("own", {"loadBalancerClass": CLASS})):
        await api("POST", SERVICES, {"metadata": {"name": name}, "spec": spec | more})
        await api("PATCH", f"{SERVICES}/{name}/status", {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}})
    await cluster.settle()
    assert (await addresses_of(api, "cloud"), await addresses_of(api, "own")) == (["203.0.113.1"], [])
    await api("POST", POOLS, {"metadata": {"name": "p"}, "spec": {"addresses": ["192.0.2.1"]}})
    await cluster.settle()
    assert (await addresses_of(api, "cloud"), await addresses_of(api, "own")) == (["203.0.113.1"], ["192.0.2.1"])
    await api("PATCH", f"{POOLS}/p", {"spec": {"addresses": ["192.0.2.9"]}})
    await cluster.settle()
    assert await addresses_of(api, "own") == ["192.0.2.9"], "what a pool had goes with it"


async def test_what_nobody_answers_is_written_when_somebody_does() -> None:
    api = await api_of("10.96.0.0/24")
    cluster = await Watching(api).begin()
    await api("POST", POOLS, {"metadata": {"name": "p"}, "spec": {"addresses": ["192.0.2.1"]}})
    await balance(api, "web")
    client, _ = cluster.manager._clients[load_balancer.CONTROLLER.name]
    handler, refused = client._handler, 0

    async def away(request: Any) -> Any:
        nonlocal refused
        if request.path.endswith("/web/status") and refused < 2:
            refused += 1
            raise ApiError(503, "ServiceUnavailable", "away")
        return await handler(request)

    client._handler = away
    await cluster.settle()
    assert refused == 2 and await addresses_of(api, "web") == ["192.0.2.1"]


def test_of_an_object_only_what_is_read_is_kept() -> None:
    watched = Watched(NodeBlocks())
    whole = service("web", 10)
    whole["metadata"] |= {"managedFields": [{"manager": "x"}], "annotations": {"a": "b", "podplane.dev/load-balancer-ips": "1"}}
    watched.take(RESOURCE, service("web", 9))
    watched.written(RESOURCE, whole)
    found = watched.get(RESOURCE, KEY)
    assert found is not None and "managedFields" not in found["metadata"]
    assert found["metadata"]["annotations"] == {"podplane.dev/load-balancer-ips": "1"}
    assert (found["apiVersion"], found["kind"]) == ("v1", "Service"), "lists of Kubernetes do not say"


def a_node(version: int, *blocks: str, ip: str = "192.168.1.1", name: str = "a") -> Any:
    """As a watch has it."""
    return {
        "metadata": {"name": name, "uid": name, "resourceVersion": str(version)},
        "spec": {"podCIDRs": list(blocks)},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    }


def test_a_heartbeat_of_a_node_is_no_news_to_indices() -> None:
    node_blocks = NodeBlocks((BlockRange(ipaddress.ip_network("10.244.0.0/24"), 24),))
    watched = Watched(node_blocks)
    searched: list[Any] = []
    find = node_blocks.blocks.free
    node_blocks.blocks.free = lambda *words: searched.append(words) or find(*words)  # type: ignore[method-assign,func-returns-value]
    watched.take(NODES, a_node(1, "10.244.0.0/24"))
    watched.take(NODES, a_node(2, name="b"))
    for version in range(3, 8):
        assert node_blocks.give(("", "b"))[0] == ()
        watched.take(NODES, a_node(version, "10.244.0.0/24"))
    found = watched.get(NODES, ("", "a"))
    assert len(searched) == 1 and found is not None and found["metadata"]["resourceVersion"] == "7"
    watched.take(NODES, a_node(8, ip="192.168.1.9"))
    assert [str(block) for block in node_blocks.give(("", "b"))[0]] == ["10.244.0.0/24"], "what changes counts at once"
    allocated = watched.load_balancers().allocated
    assert [len(allocated.owners(ipaddress.ip_address(ip))) for ip in ("192.168.1.1", "192.168.1.9")] == [1, 1]


def test_a_network_concerns_the_pools_that_have_addresses_of_it() -> None:
    watched = Watched(NodeBlocks())
    for name, addresses in (("apart", "192.0.2.0/24"), ("over", "10.244.1.8-10.244.1.9")):
        pool: Any = {"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": {"addresses": [addresses]}}
        watched.take(POOLED, pool)
    known = watched.load_balancers()
    before = {pool.name: pool for pool in known.pools()}
    node = a_node(2, "10.244.1.0/24")
    watched.take(NODES, node)
    concerns = load_balancer.POOL_CONTROLLER.watches[NODES]
    assert list(concerns(watched, node)) == [("", "over")]
    assert known.pool("apart") is before["apart"]
    over = known.pool("over")
    assert over is not None and over.size == 0 and "which are those of pods" in over.problems[0]
    watched.take(NODES, a_node(3))
    assert known.pool("over") == before["over"], "a node that goes gives them back"
    watched.take(POOLED, pool | {"metadata": {**pool["metadata"], "resourceVersion": "4"}, "status": {"inUse": 1}})
    assert known.pool("apart") is before["apart"]
    watched.take(
        POOLED, {**pool, "metadata": {**pool["metadata"], "resourceVersion": "5"}, "spec": {"addresses": ["192.0.2.7"]}}
    )
    assert [one.size for one in known.pools()] == [256, 1]

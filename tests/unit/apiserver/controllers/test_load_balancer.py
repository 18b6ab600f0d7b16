"""Services of type LoadBalancer: addresses from pools, one for each family, nobody's twice, and a word when there is none."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver.controllers.decision import Action, Controller, View
from podplane.controllers import load_balancer
from podplane.controllers.objects import Key
from podplane.services import pools, ranges
from tests.unit.apiserver.controllers.cluster import Cluster

Object = dict[str, Any]
SERVICES, POOLS = "/api/v1/namespaces/default/services", "/apis/podplane.dev/v1/loadbalancerpools"


async def cluster(*addresses: str, **selector: Any) -> Cluster:
    """With a pool of these addresses."""
    made = await Cluster().begin()
    range_ = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/24"]}}
    await made("POST", "/apis/networking.k8s.io/v1/servicecidrs", range_)
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await made("POST", definitions, pools.definition())
    await pool(made, "default", *addresses, **selector)
    return made


async def pool(made: Cluster, name: str, *addresses: str, **selector: Any) -> None:
    spec: Object = {"addresses": list(addresses)} | ({"serviceSelector": selector} if selector else {})
    await made("POST", POOLS, {"metadata": {"name": name}, "spec": spec})
    await made.settle()


async def balanced(made: Cluster, name: str, annotations: Object | None = None, **spec: Any) -> list[str]:
    """Make a load balancer; its addresses."""
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}], **spec}
    await made(
        "POST", SERVICES, {"metadata": {"name": name, "annotations": annotations or {}, "labels": {"name": name}}, "spec": spec}
    )
    await made.settle()
    return await addresses_of(made, name)


async def addresses_of(made: Cluster, name: str) -> list[str]:
    ingress = (await made("GET", f"{SERVICES}/{name}"))["status"]["loadBalancer"].get("ingress", [])
    assert all(one["ipMode"] == "VIP" for one in ingress)
    return [one["ip"] for one in ingress]


async def said(made: Cluster, name: str) -> list[str]:
    """Messages of the events about an object."""
    events = (await made("GET", "/api/v1/namespaces/default/events"))["items"]
    return [e["message"] for e in events if e["involvedObject"]["name"] == name and e["type"] == "Warning"]


async def test_each_gets_an_address_of_its_own_and_the_next_one_waits() -> None:
    made = await cluster("192.0.2.1-192.0.2.2")
    assert await balanced(made, "a") == ["192.0.2.1"]
    assert await balanced(made, "b") == ["192.0.2.2"]
    assert await balanced(made, "c") == []
    assert await said(made, "c") == ["all IPv4 addresses of default are in use: add some to a LoadBalancerPool"]
    assert (await made("GET", f"{POOLS}/default"))["status"] == {"addresses": "2", "inUse": 2, "problems": []}
    await made("DELETE", f"{SERVICES}/a")
    await made.settle()
    assert await addresses_of(made, "c") == ["192.0.2.1"]


async def test_a_new_pool_serves_those_who_wait() -> None:
    made = await cluster("192.0.2.1")
    await balanced(made, "a")
    assert await balanced(made, "b") == []
    await pool(made, "more", "198.51.100.0/31")
    assert await addresses_of(made, "b") == ["198.51.100.0"]


async def test_a_pool_may_be_for_some_services_only() -> None:
    made = await cluster("192.0.2.1", matchLabels={"name": "front"})
    assert await balanced(made, "back") == []
    assert await balanced(made, "front") == ["192.0.2.1"]


async def test_an_address_can_be_asked_for() -> None:
    made = await cluster("192.0.2.0/28")
    assert await balanced(made, "a", {pools.WANTED_IPS: "192.0.2.9"}) == ["192.0.2.9"]
    assert await balanced(made, "b", loadBalancerIP="192.0.2.8") == ["192.0.2.8"]
    assert await balanced(made, "c", loadBalancerIP="192.0.2.8") == []
    assert await said(made, "c") == ["192.0.2.8 is in use already: ask for another one"]
    assert await balanced(made, "d", {pools.WANTED_IPS: "nonsense"}) == []
    assert "'nonsense' does not appear to be an IPv4 or IPv6 address" in (await said(made, "d"))[0]


async def test_load_balancers_of_another_class_are_left_alone() -> None:
    made = await cluster("192.0.2.0/28")
    assert await balanced(made, "theirs", loadBalancerClass="example.com/theirs") == []
    assert await balanced(made, "ours", loadBalancerClass=pools.CLASS) == ["192.0.2.0"]


async def test_an_address_goes_with_the_type_and_with_its_pool() -> None:
    made = await cluster("192.0.2.0/28")
    await balanced(made, "a")
    await balanced(made, "b")
    await made(
        "PATCH",
        f"{SERVICES}/a",
        {"spec": {"type": "ClusterIP", "externalTrafficPolicy": None, "allocateLoadBalancerNodePorts": None}},
    )
    await made("PATCH", f"{POOLS}/default", {"spec": {"addresses": ["198.51.100.7"]}})
    await made.settle()
    assert await addresses_of(made, "a") == []
    assert await addresses_of(made, "b") == ["198.51.100.7"]


async def test_a_nodes_own_address_is_not_given() -> None:
    made = await cluster("192.0.2.1-192.0.2.2")
    addresses = [{"type": "InternalIP", "address": "192.0.2.1"}]
    await made("PATCH", "/api/v1/nodes/node1/status", {"status": {"addresses": addresses}})
    assert await balanced(made, "a") == ["192.0.2.2"]
    await made("PATCH", "/api/v1/nodes/node2/status", {"status": {"addresses": [{**addresses[0], "address": "192.0.2.2"}]}})
    await made.settle()
    assert await addresses_of(made, "a") == []


async def test_what_makes_no_sense_in_a_pool_is_refused() -> None:
    made = await cluster("192.0.2.7")
    spec = {"addresses": ["192.0.2.8", "192.0.2.9-192.0.2.1"]}
    said = await made.refused("Invalid", "POST", POOLS, {"metadata": {"name": "odd"}, "spec": spec})
    assert "spec.addresses[1]: Invalid value" in said and "has no first and last address of one family" in said
    assert "spec.addresses[1]" in await made.refused("Invalid", "PATCH", f"{POOLS}/default", {"spec": spec})


async def test_addresses_of_services_pods_and_the_api_server_are_not_given() -> None:
    made = await cluster("10.96.0.0-10.96.1.0", "10.244.1.0/24", "192.0.2.1")
    assert await said(made, "default") == [
        "'10.96.0.0-10.96.1.0' has addresses of 10.96.0.0/24, which are those of Services: they are not given",
        "'10.244.1.0/24' has addresses of 10.244.1.0/24, which are those of pods: they are not given",
    ]
    assert (await made("GET", f"{POOLS}/default"))["status"]["addresses"] == "2"
    endpoints = {"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}]}
    labels = {"kubernetes.io/service-name": "kubernetes"}
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    await made("POST", slices, {"metadata": {"name": "kubernetes", "labels": labels}, **endpoints})
    assert await balanced(made, "a") == ["10.96.1.0"]
    assert await balanced(made, "b") == []
    await made("DELETE", f"{slices}/kubernetes")
    await made.settle()
    assert await addresses_of(made, "b") == ["192.0.2.1"]
    more = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.96.1.0/24"]}}
    await made("POST", "/apis/networking.k8s.io/v1/servicecidrs", more)
    await made.settle()
    assert await addresses_of(made, "a") == [], "it is of a Service range now"
    assert (await made("GET", f"{POOLS}/default"))["status"]["addresses"] == "1"


async def test_a_pool_that_chooses_a_service_comes_before_those_for_all() -> None:
    made = await cluster("192.0.2.1")
    await pool(made, "front", "198.51.100.1", matchLabels={"name": "web"})
    await pool(made, "more", "198.51.100.9", matchLabels={"name": "web"})
    assert await balanced(made, "web") == ["198.51.100.1"]
    assert await balanced(made, "other") == ["192.0.2.1"]


class Counted:
    """How often a controller decides."""

    def __init__(self, made: Cluster, controller: Controller) -> None:
        self.decisions = 0
        self._decide = controller.decide
        made.manager._controllers[controller.name] = dataclasses.replace(controller, decide=self)

    def __call__(self, view: View, key: Key) -> Iterable[Action]:
        self.decisions += 1
        return self._decide(view, key)


async def test_who_comes_and_goes_concerns_nobody_who_has_an_address() -> None:
    made = await cluster("192.0.2.0/24")
    for number in range(20):
        await balanced(made, f"old{number}")
    counts = [Counted(made, one) for one in (load_balancer.CONTROLLER, load_balancer.POOL_CONTROLLER)]
    for number in range(10):
        assert await balanced(made, f"new{number}") != []
    for number in range(10):
        await made("DELETE", f"{SERVICES}/new{number}")
        await made.settle()
    assert all(10 <= counted.decisions <= 60 for counted in counts), "at most three for each change"
    assert (await made("GET", f"{POOLS}/default"))["status"]["inUse"] == 20


async def test_what_a_decision_costs_does_not_hang_on_the_number_of_services(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await cluster("192.0.2.0/24")
    await balanced(made, "a")
    monkeypatch.setattr(made.view, "all", lambda *_: pytest.fail("all of them are looked at"))
    assert list(load_balancer.CONTROLLER.decide(made.view, ("default", "a"))) == []
    assert list(load_balancer.POOL_CONTROLLER.decide(made.view, ("", "default"))) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["new", "gone", "inside", "pool", "node"]), st.integers(0, 5)), max_size=12))
def test_whatever_happens_a_pools_numbers_are_right_and_nobody_waits_in_vain(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        made = await cluster("192.0.2.0/30", "192.0.2.2-192.0.2.4")
        for number, (what, value) in enumerate(steps):
            path = f"{SERVICES}/s{value}"
            there = (await made.answer("GET", path)).status == 200
            if what == "new" and not there:
                await balanced(made, f"s{value}")
            elif what == "gone" and there:
                await made("DELETE", path)
            elif what == "inside" and there:
                await made("PATCH", path, {"spec": {"type": "ClusterIP" if number % 2 else "LoadBalancer"}})
            elif what == "pool":
                await made("PATCH", f"{POOLS}/default", {"spec": {"addresses": [f"192.0.2.{value}-192.0.2.5", "192.0.2.3"]}})
            elif what == "node":
                addresses = [{"type": "InternalIP", "address": f"192.0.2.{value}"}]
                await made("PATCH", "/api/v1/nodes/node1/status", {"status": {"addresses": addresses}})
            await made.settle()
            await check(made)

    async def check(made: Cluster) -> None:
        object_ = await made("GET", f"{POOLS}/default")
        addresses = set().union(*(set(_texts(text)) for text in object_["spec"]["addresses"]))
        services = (await made("GET", SERVICES))["items"]
        held = [ip for one in services for ip in await addresses_of(made, one["metadata"]["name"])]
        node = (await made("GET", "/api/v1/nodes/node1"))["status"].get("addresses", [])
        assert object_["status"] == {"addresses": str(len(addresses)), "inUse": len(held), "problems": []}
        usable = addresses - {one["address"] for one in node}
        assert len(held) == len(set(held)) and set(held) <= usable
        assert len(held) == min(len(usable), sum(one["spec"]["type"] == "LoadBalancer" for one in services))

    asyncio.run(play())


def _texts(text: str) -> Iterable[str]:
    range_ = ranges.parse(text)
    return (str(range_.first + n) for n in range(range_.size))


async def test_deciding_again_writes_nothing() -> None:
    made = await cluster("192.0.2.0/28")
    await balanced(made, "a")
    before = await made("GET", f"{SERVICES}/a")
    made.manager.begin()
    await made.settle()
    assert await made("GET", f"{SERVICES}/a") == before

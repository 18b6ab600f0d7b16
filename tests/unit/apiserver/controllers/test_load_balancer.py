"""Services of type LoadBalancer: addresses from pools, one for each family, nobody's twice, and a word when there is none."""

from __future__ import annotations

from typing import Any

from podplane.services import pools
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
    assert (await made("GET", f"{POOLS}/default"))["status"] == {"addresses": "2", "inUse": 2}
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


async def test_what_makes_no_sense_in_a_pool_is_said() -> None:
    made = await cluster("192.0.2.9-192.0.2.1", "192.0.2.7")
    assert await said(made, "default") == ["'192.0.2.9-192.0.2.1' has no first and last address of one family"]
    assert await balanced(made, "a") == ["192.0.2.7"]


async def test_deciding_again_writes_nothing() -> None:
    made = await cluster("192.0.2.0/28")
    await balanced(made, "a")
    before = await made("GET", f"{SERVICES}/a")
    made.manager.begin()
    await made.settle()
    assert await made("GET", f"{SERVICES}/a") == before

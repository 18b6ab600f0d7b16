"""A change of a Service's type: any type becomes any other by a patch of the type alone, and no field stays that the new one can't have."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.service_changes import keep_allocated
from tests.unit.apiserver.test_server import Api, Object

SERVICES = "/api/v1/namespaces/default/services"
WEB = f"{SERVICES}/web"
CIDRS = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}}
PORTS = [{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP"}]
FULL: dict[str, Object] = {
    "ClusterIP": {},
    "NodePort": {"externalTrafficPolicy": "Local"},
    "LoadBalancer": {"externalTrafficPolicy": "Local", "loadBalancerClass": "example.com/a", "loadBalancerIP": "192.0.2.1"},
    "ExternalName": {},
}
ONLY = {
    "clusterIP": {"ClusterIP", "NodePort", "LoadBalancer"},
    "clusterIPs": {"ClusterIP", "NodePort", "LoadBalancer"},
    "ipFamilies": {"ClusterIP", "NodePort", "LoadBalancer"},
    "ipFamilyPolicy": {"ClusterIP", "NodePort", "LoadBalancer"},
    "internalTrafficPolicy": {"ClusterIP", "NodePort", "LoadBalancer"},
    "externalTrafficPolicy": {"NodePort", "LoadBalancer"},
    "healthCheckNodePort": {"LoadBalancer"},
    "allocateLoadBalancerNodePorts": {"LoadBalancer"},
    "loadBalancerClass": {"LoadBalancer"},
}
"""Fields, and the types that may have them (core/v1 ServiceSpec)."""


async def dual() -> Api:
    api = Api()
    await api("POST", "/apis/networking.k8s.io/v1/servicecidrs", CIDRS)
    return api


async def made(kind: str, **spec: Any) -> tuple[Api, Object]:
    """An API of two families with a Service of a type that has all that its type can have."""
    api = await dual()
    body = {"type": kind, "ports": PORTS, "externalName": "a.example", "sessionAffinity": "ClientIP", **FULL[kind], **spec}
    if kind != "ExternalName":
        body.setdefault("ipFamilyPolicy", "RequireDualStack")
    return api, await api("POST", SERVICES, {"metadata": {"name": "web"}, "spec": body})


@pytest.mark.parametrize(("before", "after"), [*itertools.product(FULL, FULL)])
@pytest.mark.parametrize("how", ["PATCH", "PUT"])
async def test_a_type_becomes_another_and_takes_its_fields_with_it(before: str, after: str, how: str) -> None:
    api, old = await made(before)
    body = {"spec": {"type": after}} if how == "PATCH" else {**old, "spec": {**old["spec"], "type": after}}
    spec = (await api(how, WEB, body))["spec"]
    assert [field for field, types in ONLY.items() if field in spec and after not in types] == []
    assert [field for field in spec if field not in ONLY] == [field for field in old["spec"] if field not in ONLY]
    assert all(bool(port.get("nodePort")) is (after in ("NodePort", "LoadBalancer")) for port in spec["ports"])
    stays = [field for field, types in ONLY.items() if field in old["spec"] and {before, after} <= types]
    assert [spec[field] for field in stays] == [old["spec"][field] for field in stays]


@pytest.mark.parametrize("how", ["PATCH", "PUT"])
async def test_affinity_goes_off_and_takes_its_settings_with_it(how: str) -> None:
    api, old = await made("ClusterIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}})
    assert old["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 60}}
    body = (
        {"spec": {"sessionAffinity": "None"}} if how == "PATCH" else {**old, "spec": {**old["spec"], "sessionAffinity": "None"}}
    )
    assert "sessionAffinityConfig" not in (await api(how, WEB, body))["spec"]
    on = await api("PATCH", WEB, {"spec": {"sessionAffinity": "ClientIP"}})
    assert on["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"type": "ClusterIP", "externalTrafficPolicy": "Cluster"}, "spec.externalTrafficPolicy: Invalid value"),
        ({"type": "ClusterIP", "loadBalancerClass": "example.com/b"}, "spec.loadBalancerClass: Forbidden"),
        ({"type": "NodePort", "allocateLoadBalancerNodePorts": False}, "spec.allocateLoadBalancerNodePorts: Forbidden"),
        ({"type": "NodePort", "healthCheckNodePort": 31999}, "spec.healthCheckNodePort: Invalid value"),
        ({"type": "ClusterIP", "ports": [{"port": 80, "nodePort": 31999}]}, "spec.ports[0].nodePort: Forbidden"),
        ({"type": "ExternalName", "ipFamilyPolicy": "SingleStack"}, "spec.ipFamilyPolicy: Forbidden"),
        ({"type": "ExternalName", "clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}, "spec.clusterIPs: Forbidden"),
    ],
)
async def test_what_is_changed_with_the_type_is_not_dropped_but_refused(change: Object, why: str) -> None:
    api, _ = await made("LoadBalancer")
    assert why in await api.refused("Invalid", "PATCH", WEB, {"spec": change})


async def test_an_address_of_a_balancer_goes_with_the_type() -> None:
    api, _ = await made("LoadBalancer")
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    assert (await api("PATCH", f"{WEB}/status", status))["status"]["loadBalancer"]["ingress"]
    assert (await api("PATCH", WEB, {"spec": {"type": "NodePort"}}))["status"]["loadBalancer"] == {}


async def test_node_ports_follow_the_names_of_ports() -> None:
    api, old = await made("NodePort")
    numbers = {port["name"]: port["nodePort"] for port in old["spec"]["ports"]}
    renumbered = [{"name": "b", "port": 81, "protocol": "UDP"}, {"name": "a", "port": 90}]
    new = await api("PATCH", WEB, {"spec": {"ports": renumbered}})
    assert {port["name"]: port["nodePort"] for port in new["spec"]["ports"]} == numbers
    swapped = [{"name": "a", "port": 90, "nodePort": numbers["b"]}, {"name": "b", "port": 81}]
    new = await api("PATCH", WEB, {"spec": {"ports": swapped}})
    assert new["spec"]["ports"][0]["nodePort"] == numbers["b"]
    assert new["spec"]["ports"][1]["nodePort"] not in numbers.values()


async def test_a_second_address_is_given_back_by_the_policy_alone() -> None:
    api, old = await made("ClusterIP")
    one = {"clusterIPs": old["spec"]["clusterIPs"][:1], "ipFamilies": old["spec"]["ipFamilies"][:1]}
    why = await api.refused("Invalid", "PATCH", WEB, {"spec": one})
    assert "must be 'SingleStack' to release the secondary cluster IP" in why
    assert "must be 'SingleStack' to release the secondary IP family" in why
    new = (await api("PATCH", WEB, {"spec": {"ipFamilyPolicy": "SingleStack"}}))["spec"]
    assert (new["clusterIPs"], new["ipFamilies"]) == (one["clusterIPs"], one["ipFamilies"])
    two = {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}
    why = await api.refused("Invalid", "PATCH", WEB, {"spec": two})
    assert "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified" in why


@given(st.lists(st.sampled_from(list(FULL)), min_size=2, max_size=6))
def test_any_walk_over_types_is_possible(kinds: list[str]) -> None:
    async def walk() -> None:
        api, _ = await made(kinds[0])
        for kind in kinds[1:]:
            spec = (await api("PATCH", WEB, {"spec": {"type": kind}}))["spec"]
            assert [field for field, types in ONLY.items() if field in spec and kind not in types] == []

    asyncio.run(walk())


def test_a_change_that_says_all_stays_as_it_is() -> None:
    old = {"spec": {"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30100}], "clusterIP": "10.96.0.9"}}
    new = {"spec": {"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30200}], "clusterIP": "10.96.0.9"}}
    keep_allocated(new, old)
    assert new["spec"] == {
        "type": "NodePort",
        "ports": [{"name": "a", "port": 80, "nodePort": 30200}],
        "clusterIP": "10.96.0.9",
    }

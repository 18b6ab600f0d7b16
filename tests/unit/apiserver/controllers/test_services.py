"""Services: cluster IPs and node ports, EndpointSlices, Endpoints and mirrors, over the real API server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.apiserver.controllers.cluster import APPS, Cluster, workload
from tests.unit.apiserver.test_server import PODS, Object

SERVICES, ADDRESSES = "/api/v1/namespaces/default/services", "/apis/networking.k8s.io/v1/ipaddresses"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
ENDPOINTS = "/api/v1/namespaces/default/endpoints"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
PORT = {"port": 80, "targetPort": 8080}


async def cluster(*cidrs: str) -> Cluster:
    made = Cluster()
    body = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": list(cidrs or ("10.96.0.0/16", "fd00:10:96::/112"))}}
    await made("POST", RANGES, body)
    return await made.begin()


def service(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [PORT], **spec}}


# Addresses.


async def test_a_service_gets_an_address_and_gives_it_back() -> None:
    one = await cluster("10.96.0.0/29")
    seen = [(await one("POST", SERVICES, service(f"s{number}")))["spec"]["clusterIP"] for number in range(6)]
    assert sorted(seen) == [f"10.96.0.{n}" for n in range(1, 7)]
    assert "10.96.0.0/29 are in use" in await one.refused("Forbidden", "POST", SERVICES, service("more"))
    await one("DELETE", f"{SERVICES}/s3")
    assert (await one("POST", SERVICES, service("more")))["spec"]["clusterIP"] == seen[3]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"clusterIP": "1.2.3.4"}, "not in the valid range. The range of valid IPs is 10.96.0.0/16"),
        ({"clusterIP": "10.96.0.9"}, "provided IP is already allocated"),
        ({"type": "NodePort", "ports": [{**PORT, "nodePort": 80}]}, "The range of valid ports is 30000-32767"),
        ({"type": "NodePort", "ports": [{**PORT, "nodePort": 30500}]}, "provided port is already allocated"),
        ({"ipFamilies": ["IPv6"], "clusterIP": "10.96.0.77"}, "expected an IPv6 value"),
        ({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}, "PreferDualStack or RequireDualStack"),
    ],
)
async def test_what_cannot_be_had_is_refused(spec: Object, why: str) -> None:
    one = await cluster()
    await one("POST", SERVICES, service("first", clusterIP="10.96.0.9", type="NodePort", ports=[{**PORT, "nodePort": 30500}]))
    assert why in await one.refused("Invalid", "POST", SERVICES, service("second", **spec))


async def test_without_a_second_family_there_is_no_dual_stack() -> None:
    one = await cluster("10.96.0.0/16")
    assert "not configured for dual-stack" in await one.refused(
        "Invalid", "POST", SERVICES, service("a", ipFamilyPolicy="RequireDualStack")
    )
    assert (await one("POST", SERVICES, service("a", ipFamilyPolicy="PreferDualStack")))["spec"]["ipFamilies"] == ["IPv4"]


async def test_families_come_and_go_with_the_policy() -> None:
    one = await cluster()
    first = (await one("POST", SERVICES, service("a")))["spec"]
    assert (first["ipFamilies"], first["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    more = (await one("PATCH", f"{SERVICES}/a", {"spec": {"ipFamilyPolicy": "PreferDualStack"}}))["spec"]
    assert (more["clusterIPs"][0], len(more["clusterIPs"])) == (first["clusterIP"], 2)
    await one.settle()
    assert set(more["clusterIPs"]) <= set(await one.names(ADDRESSES))
    less = (await one("PATCH", f"{SERVICES}/a", {"spec": {"ipFamilyPolicy": "SingleStack"}}))["spec"]
    assert less["clusterIPs"] == [first["clusterIP"]]
    await one("DELETE", f"{SERVICES}/a")
    await one.settle()
    assert await one.names(ADDRESSES) == []


async def test_what_was_given_stays_when_it_is_not_said_again() -> None:
    one = await cluster()
    given = await one("POST", SERVICES, service("a", type="NodePort"))
    again = service("a", type="NodePort")
    assert (await one("PUT", f"{SERVICES}/a", again))["spec"]["ports"] == given["spec"]["ports"]
    inside = await one("PUT", f"{SERVICES}/a", service("a", type="ClusterIP", clusterIP=given["spec"]["clusterIP"]))
    assert "nodePort" not in inside["spec"]["ports"][0]
    outside = await one("PATCH", f"{SERVICES}/a", {"spec": {"type": "ExternalName", "externalName": "x.y"}})
    assert "clusterIP" not in outside["spec"]


async def test_nothing_is_taken_by_what_is_only_tried() -> None:
    one = await cluster("10.96.0.0/30")
    for _ in range(5):
        await one("POST", SERVICES, service("a"), dryRun="All")
        await one.refused("Invalid", "POST", SERVICES, service("a", ports=[{"port": 0}]))
    await one("POST", SERVICES, service("a"))
    await one("POST", SERVICES, service("b"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["new", "gone", "explicit"]), st.integers(0, 13)), max_size=30))
def test_no_two_services_share_an_address_or_a_port(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        one = await cluster("10.96.0.0/28")
        held: dict[str, tuple[str, int]] = {}
        for number, (what, value) in enumerate(steps):
            if what == "gone" and held:
                name = sorted(held)[value % len(held)]
                await one("DELETE", f"{SERVICES}/{name}")
                del held[name]
                continue
            more = {"clusterIP": f"10.96.0.{value + 1}"} if what == "explicit" else {}
            answer = await one.answer("POST", SERVICES, service(f"s{number}", type="NodePort", **more))
            expected = len(held) < 14 and more.get("clusterIP") not in [ip for ip, _ in held.values()]
            assert (answer.status == 201) is expected
            if expected:
                made = (await one("GET", f"{SERVICES}/s{number}"))["spec"]
                held[f"s{number}"] = (made["clusterIP"], made["ports"][0]["nodePort"])
        assert len({ip for ip, _ in held.values()}) == len({port for _, port in held.values()}) == len(held)

    asyncio.run(play())


# Endpoints.


async def endpoints(one: Cluster, name: str) -> dict[str, Object]:
    """The endpoints of a Service by the name of their pod."""
    found: dict[str, Object] = {}
    for slice_ in (await one("GET", SLICES, labelSelector=f"kubernetes.io/service-name={name}"))["items"]:
        for endpoint in slice_.get("endpoints", ()):
            assert endpoint["targetRef"]["name"] not in found
            found[endpoint["targetRef"]["name"]] = endpoint
    return found


async def test_endpoints_follow_the_pods() -> None:
    one = await cluster()
    await one("POST", SERVICES, service("web"))
    await one("POST", f"{APPS}/replicasets", workload("web", 3))
    await one.kubelet()
    pods = [pod["metadata"]["name"] for pod in await one.pods(app="web")]
    assert {n: e["conditions"] for n, e in (await endpoints(one, "web")).items()} == {
        name: {"ready": True, "serving": True, "terminating": False} for name in pods
    }
    await one.set_status(await one("GET", f"{PODS}/{pods[0]}"), "Running", False)
    await one("DELETE", f"{PODS}/{pods[1]}")
    await one.settle()
    found = await endpoints(one, "web")
    assert found[pods[0]]["conditions"] == {"ready": False, "serving": False, "terminating": False}
    assert found[pods[1]]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    old = (await one("GET", f"{ENDPOINTS}/web"))["subsets"]
    assert [a["targetRef"]["name"] for a in old[0]["addresses"]] == [pods[2]]
    assert pods[0] in [a["targetRef"]["name"] for a in old[0]["notReadyAddresses"]]
    await one("DELETE", f"{SERVICES}/web")
    await one.settle()
    assert (await one.names(SLICES), await one.names(ENDPOINTS)) == ([], [])


async def test_a_service_without_endpoints_has_an_empty_slice_of_each_family() -> None:
    one = await cluster()
    await one("POST", SERVICES, service("app", ipFamilyPolicy="RequireDualStack"))
    await one.settle()

    async def seen() -> list[tuple[str, int, int]]:
        slices = (await one("GET", SLICES))["items"]
        return sorted((s["addressType"], len(s.get("ports") or ()), len(s.get("endpoints") or ())) for s in slices)

    empty = [("IPv4", 0, 0), ("IPv6", 0, 0)]
    assert await seen() == empty
    await one("POST", f"{APPS}/replicasets", workload("app", 2))
    await one.kubelet()
    assert await seen() == [("IPv4", 1, 2), ("IPv6", 0, 0)]
    await one("PATCH", f"{APPS}/replicasets/app", {"spec": {"replicas": 0}})
    await one.kubelet()
    assert await seen() == empty


async def test_a_slice_has_at_most_a_hundred_and_a_change_touches_few() -> None:
    one = await cluster()
    await one("POST", SERVICES, service("web"))
    await one("POST", f"{APPS}/replicasets", workload("web", 230))
    await one.kubelet()
    slices = (await one("GET", SLICES))["items"]
    assert sorted(len(s["endpoints"]) for s in slices)[-1] <= 100
    assert len(await endpoints(one, "web")) == 230
    before = {s["metadata"]["name"]: s["metadata"]["resourceVersion"] for s in slices}
    await one.set_status((await one.pods(app="web"))[0], "Running", False)
    await one.settle()
    after = {s["metadata"]["name"]: s["metadata"]["resourceVersion"] for s in (await one("GET", SLICES))["items"]}
    assert before.keys() == after.keys()
    assert sum(before[name] != after[name] for name in before) == 1


async def test_named_ports_are_those_of_each_pod() -> None:
    one = await cluster()
    await one("POST", SERVICES, service("web", ports=[{"port": 80, "targetPort": "http"}]))
    for name, number in (("a", 8080), ("b", 9090), ("c", 0)):
        ports = [{"name": "http", "containerPort": number}] if number else []
        await one.pod(name, labels={"app": "web"}, containers=[{"name": "main", "image": "podplane/echo", "ports": ports}])
    await one.kubelet()
    found = (await one("GET", SLICES))["items"]
    assert sorted((s["ports"][0]["port"] if s.get("ports") else 0) for s in found) == [0, 8080, 9090]


async def test_what_users_write_as_endpoints_is_mirrored() -> None:
    one = await cluster()
    await one("POST", SERVICES, {"metadata": {"name": "db"}, "spec": {"ports": [PORT]}})
    subsets = [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432, "name": "sql"}]}]
    await one("POST", ENDPOINTS, {"metadata": {"name": "db"}, "subsets": subsets})
    await one.settle()
    found = (await one("GET", SLICES))["items"]
    assert [(s["endpoints"][0]["addresses"], s["ports"][0]["port"]) for s in found] == [(["192.0.2.7"], 5432)]
    await one("DELETE", f"{ENDPOINTS}/db")
    await one.settle()
    assert await one.names(SLICES) == []


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["scale", "unready", "end", "kubelet"]), st.integers(0, 12)), max_size=10))
def test_slices_are_what_the_pods_say_whatever_happened(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        one = await cluster()
        await one("POST", SERVICES, service("web"))
        await one("POST", f"{APPS}/replicasets", workload("web", 2))
        for what, value in steps:
            pods = await one.pods(app="web")
            if what == "scale":
                await one("PATCH", f"{APPS}/replicasets/web", {"spec": {"replicas": value}})
            elif what == "kubelet":
                await one.kubelet()
            elif pods:
                pod = pods[value % len(pods)]
                await one.set_status(pod, "Running" if what == "unready" else "Failed", False)
            await one.settle()
        expected = {
            pod["metadata"]["name"]
            for pod in await one.pods(app="web")
            if pod["status"].get("podIPs") and pod["status"]["phase"] not in ("Succeeded", "Failed")
        }
        assert (await endpoints(one, "web")).keys() == expected

    asyncio.run(play())

"""EndpointSlices: what they say of a pod, and how little is written when something changes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.controllers.test_services import SERVICES, SLICES, cluster, endpoints, service
from tests.unit.apiserver.test_server import CONTAINER, PODS, Object

ZONE = "topology.kubernetes.io/zone"
BOTH = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}


async def pod(one: Cluster, name: str, number: int, *, ready: bool = True, **spec: object) -> None:
    """A pod of the Service `web` with addresses of both families."""
    made = await one.pod(name, labels={"app": "web"}, **{"nodeName": "node1", **spec})
    await one.set_status(made, "Running", ready)
    ips = [f"10.244.{number // 250}.{number % 250 + 1}", f"fd00:10:244::{number + 1:x}"]
    status = {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    await one("PATCH", f"{PODS}/{name}/status", {"status": status})


async def slices(one: Cluster) -> list[Object]:
    found: list[Object] = (await one("GET", SLICES))["items"]
    return found


async def leave(one: Cluster, name: str) -> None:
    await one("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 30})


@pytest.mark.parametrize(
    ("ready", "leaving", "publish", "expected"),
    [
        (True, False, False, (True, True, False)),
        (False, False, False, (False, False, False)),
        (True, True, False, (False, True, True)),
        (False, True, False, (False, False, True)),
        (False, False, True, (True, False, False)),
        (True, True, True, (True, True, True)),
        (False, True, True, (True, False, True)),
    ],
)
async def test_conditions_are_those_of_the_pod(ready: bool, leaving: bool, publish: bool, expected: tuple[bool, ...]) -> None:
    """Not ready is published as ready only; whether it serves is told as it is (utils.go, podToEndpoint)."""
    one = await cluster()
    await one("POST", SERVICES, service("web", publishNotReadyAddresses=publish))
    await pod(one, "a", 1, ready=ready)
    if leaving:
        await leave(one, "a")
    await one.settle()
    found = (await endpoints(one, "web"))["a"]["conditions"]
    assert (found["ready"], found["serving"], found["terminating"]) == expected


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_ended_is_no_endpoint(phase: str) -> None:
    one = await cluster()
    await one("POST", SERVICES, service("web", publishNotReadyAddresses=True))
    await pod(one, "a", 1)
    await one.settle()
    assert (await endpoints(one, "web")).keys() == {"a"}
    await one.end("a", phase)
    assert (await endpoints(one, "web")).keys() == set()


async def test_each_family_has_slices_of_its_own() -> None:
    one = await cluster()
    await one("POST", SERVICES, service("web", **BOTH))
    for number in range(3):
        await pod(one, f"p{number}", number)
    await one.settle()
    found = {s["addressType"]: sorted(e["addresses"][0] for e in s["endpoints"]) for s in await slices(one)}
    assert found == {
        "IPv4": ["10.244.0.1", "10.244.0.2", "10.244.0.3"],
        "IPv6": ["fd00:10:244::1", "fd00:10:244::2", "fd00:10:244::3"],
    }
    await one("PATCH", f"{SERVICES}/web", {"spec": {"ipFamilyPolicy": "SingleStack"}})
    await one.settle()
    assert {s["addressType"] for s in await slices(one)} == {"IPv4"}


async def test_an_endpoint_tells_its_node_zone_and_host_name() -> None:
    one = await cluster()
    await one("PATCH", "/api/v1/nodes/node1", {"metadata": {"labels": {ZONE: "a"}}})
    await one("POST", SERVICES, service("web", clusterIP="None"))
    await pod(one, "db-0", 1, hostname="db-0", subdomain="web")
    await pod(one, "db-1", 2, hostname="db-1", subdomain="other")
    await pod(one, "far", 3, nodeName="node2")
    await one.settle()
    found = await endpoints(one, "web")
    told = {name: (e["nodeName"], e.get("zone"), e.get("hostname")) for name, e in found.items()}
    assert told == {"db-0": ("node1", "a", "db-0"), "db-1": ("node1", "a", None), "far": ("node2", None, None)}
    assert {s["metadata"]["labels"].get("service.kubernetes.io/headless") for s in await slices(one)} == {""}


@pytest.mark.parametrize(
    ("distribution", "hints"),
    [
        (None, None),
        ("PreferClose", {"forZones": [{"name": "a"}]}),
        ("PreferSameZone", {"forZones": [{"name": "a"}]}),
        ("PreferSameNode", {"forNodes": [{"name": "node1"}], "forZones": [{"name": "a"}]}),
    ],
)
async def test_hints_say_for_whom_an_endpoint_is_near(distribution: str | None, hints: Object | None) -> None:
    one = await cluster()
    await one("PATCH", "/api/v1/nodes/node1", {"metadata": {"labels": {ZONE: "a"}}})
    await one("POST", SERVICES, service("web", **({"trafficDistribution": distribution} if distribution else {})))
    await pod(one, "a", 1)
    await one.settle()
    assert (await endpoints(one, "web"))["a"].get("hints") == hints


async def test_a_named_port_may_be_a_sidecars_and_another_number_in_each_pod() -> None:
    one = await cluster()
    ports = [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "fixed", "port": 81, "targetPort": 9000}]
    await one("POST", SERVICES, service("web", ports=ports))
    port = {"name": "http", "containerPort": 8080}
    await pod(one, "main", 1, containers=[{**CONTAINER, "ports": [port]}])
    sidecar = {**CONTAINER, "name": "side", "restartPolicy": "Always", "ports": [{**port, "containerPort": 8081}]}
    await pod(one, "sidecar", 2, initContainers=[sidecar])
    await pod(one, "other", 3, containers=[{**CONTAINER, "ports": [{**port, "protocol": "UDP"}]}])
    await one.settle()
    found = {}
    for slice_ in await slices(one):
        for endpoint in slice_["endpoints"]:
            found[endpoint["targetRef"]["name"]] = {p["name"]: p["port"] for p in slice_["ports"]}
    assert found == {"main": {"http": 8080, "fixed": 9000}, "sidecar": {"http": 8081, "fixed": 9000}, "other": {"fixed": 9000}}


async def test_what_somebody_else_changed_is_put_right() -> None:
    one = await cluster()
    await one("POST", SERVICES, service("web"))
    await pod(one, "a", 1)
    await one.settle()
    (before,) = await slices(one)
    path = f"{SLICES}/{before['metadata']['name']}"
    await one("PATCH", path, {"endpoints": [{"addresses": ["10.244.9.9"]}]})
    await one.settle()
    assert (await one("GET", path))["endpoints"] == before["endpoints"]
    await one("DELETE", path)
    await one.settle()
    assert [s["endpoints"] for s in await slices(one)] == [before["endpoints"]]


async def test_slices_of_others_are_left_alone() -> None:
    one = await cluster()
    await one("POST", SERVICES, service("web"))
    labels = {"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "someone"}
    own = {"metadata": {"name": "mine", "labels": labels}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}]}
    made = await one("POST", SLICES, own)
    await pod(one, "a", 1)
    await one.settle()
    assert await one("GET", f"{SLICES}/mine") == made


STEPS = st.lists(
    st.tuples(st.sampled_from(["new", "new", "gone", "ready", "unready", "leave"]), st.integers(0, 400)), max_size=12
)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([0, 99, 100, 101, 205]), STEPS)
def test_a_change_is_written_to_one_slice_and_no_endpoint_moves(count: int, steps: list[tuple[str, int]]) -> None:
    """Each pod stands once, at most a hundred in a slice; a change of one pod changes at most one slice."""

    async def play() -> None:
        one = await cluster()
        await one("POST", SERVICES, service("web"))
        names = [f"p{number}" for number in range(count)]
        for number, name in enumerate(names):
            await pod(one, name, number)
        await one.settle()
        for number, (what, which) in enumerate(steps, count):
            before = {s["metadata"]["name"]: s for s in await slices(one)}
            if what == "new":
                names.append(f"p{number}")
                await pod(one, names[-1], number)
            elif names:
                name = names[which % len(names)]
                if what == "gone":
                    await one("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
                    names.remove(name)
                elif what == "leave":
                    await leave(one, name)
                else:
                    ready = {"type": "Ready", "status": "True" if what == "ready" else "False"}
                    await one("PATCH", f"{PODS}/{name}/status", {"status": {"conditions": [ready]}})
            await one.settle()
            after = {s["metadata"]["name"]: s for s in await slices(one)}
            changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
            assert len(changed) <= (2 if min(len(names), count) <= 1 else 1)  # the empty slice comes and goes
            assert all(len(s.get("endpoints", ())) <= 100 for s in after.values())
        assert (await endpoints(one, "web")).keys() == set(names)

    asyncio.run(play())

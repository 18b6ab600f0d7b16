"""The Service `kubernetes` and what pods reach the API by: names, labels and ports are kube-apiserver's, and stay so."""

from __future__ import annotations

import ipaddress

import pytest

from podplane.apiserver.controllers.kubernetes_service import Published
from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.test_server import Object

SERVICE, ENDPOINTS = "/api/v1/namespaces/default/services/kubernetes", "/api/v1/namespaces/default/endpoints/kubernetes"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
SLICE = f"{SLICES}/kubernetes"
FOUR = Published(ipaddress.ip_address("10.96.0.1"), ipaddress.ip_address("192.168.1.1"), 6443, ("10.96.0.0/16",))
SIX = Published(ipaddress.ip_address("fd00:10:96::1"), ipaddress.ip_address("fd00:1::1"), 6443, ("fd00:10:96::/112",))
PORTS = [{"name": "https", "port": 6443, "protocol": "TCP"}]


async def running(published: Published) -> Cluster:
    cluster = Cluster(1, published)
    cluster.server.ensure(RANGES, published.range())
    for path, (_, object_) in zip((SERVICE, ENDPOINTS, SLICE), published.objects(), strict=True):
        cluster.server.ensure(path.rpartition("/")[0], object_)
    return await cluster.begin()


def said(found: Object) -> Object:
    """An object without what the server gave it."""
    return {**found, "metadata": {field: found["metadata"].get(field) for field in ("name", "labels")}}


async def everything(cluster: Cluster) -> list[Object]:
    """The three objects, without what differs when they are made again."""
    service = said(await cluster("GET", SERVICE))
    return [service, said(await cluster("GET", ENDPOINTS)), said(await cluster("GET", SLICE))]


@pytest.mark.parametrize(("published", "family"), [(FOUR, "IPv4"), (SIX, "IPv6")])
async def test_they_are_as_kube_apiserver_writes_them(published: Published, family: str) -> None:
    cluster = await running(published)
    service, endpoints, slice_ = await everything(cluster)
    assert service["metadata"]["labels"] == {"component": "apiserver", "provider": "kubernetes"}
    assert service["spec"]["clusterIP"] == str(published.cluster_ip)
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
    assert endpoints["metadata"]["labels"] == {"endpointslice.kubernetes.io/skip-mirror": "true"}
    assert endpoints["subsets"] == [{"addresses": [{"ip": str(published.address)}], "ports": PORTS}]
    assert slice_["metadata"]["labels"] == {"kubernetes.io/service-name": "kubernetes"}
    assert (slice_["addressType"], slice_["ports"]) == (family, PORTS)
    assert slice_["endpoints"] == [{"addresses": [str(published.address)], "conditions": {"ready": True}}]
    assert await cluster.names(SLICES) == ["kubernetes"]


@pytest.mark.parametrize("path", [SERVICE, ENDPOINTS, SLICE])
async def test_what_is_deleted_is_made_again(path: str) -> None:
    cluster = await running(FOUR)
    before = await everything(cluster)
    await cluster("DELETE", path)
    await cluster.settle()
    assert await everything(cluster) == before


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (ENDPOINTS, {"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": PORTS}]}),
        (ENDPOINTS, {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": None, "more": "x"}}}),
        (SLICE, {"endpoints": []}),
        (SLICE, {"ports": [{"name": "https", "port": 1, "protocol": "TCP"}]}),
        (SLICE, {"endpoints": [{"addresses": ["192.168.1.1"], "conditions": {"ready": False}}]}),
        (SLICE, {"metadata": {"labels": {"kubernetes.io/service-name": "web"}}}),
    ],
)
async def test_what_is_changed_is_repaired(path: str, change: Object) -> None:
    cluster = await running(FOUR)
    before = await everything(cluster)
    await cluster("PATCH", path, change)
    await cluster.settle()
    assert await everything(cluster) == before


async def test_a_slice_of_the_other_family_is_replaced() -> None:
    cluster = await running(FOUR)
    before = await everything(cluster)
    await cluster("DELETE", SLICE)
    wrong = {"metadata": {"name": "kubernetes"}, "addressType": "IPv6", "endpoints": [], "ports": []}
    await cluster("POST", SLICES, wrong)
    await cluster.settle()
    assert await everything(cluster) == before


async def test_slices_of_former_versions_go_and_those_of_others_stay() -> None:
    cluster = await running(FOUR)
    slice_ = FOUR.slice()
    for name, labels in (("kubernetes-ipv4", {}), ("kubernetes-ipv6", {"mine": "x"}), ("other", {})):
        metadata = {"name": name, "labels": {**slice_["metadata"]["labels"], **labels}}
        await cluster("POST", SLICES, {**slice_, "metadata": metadata})
    await cluster.settle()
    assert await cluster.names(SLICES) == ["kubernetes", "kubernetes-ipv6", "other"]


@pytest.mark.parametrize(("path", "warned"), [(ENDPOINTS, 1), (ENDPOINTS.rpartition("/")[0], 1), (SLICE, 0)])
async def test_endpoints_warn_that_they_are_deprecated(path: str, warned: int) -> None:
    """Since 1.33, at each request."""
    answer = await (await running(FOUR)).answer("GET", path)
    texts = [value for name, value in answer.headers if name == "warning"]
    assert texts == ['299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'] * warned


async def test_the_cluster_has_its_range() -> None:
    """It stays while the Service has an address of it, and is made again when a wider one lets it go."""
    cluster = await running(FOUR)
    await cluster("DELETE", f"{RANGES}/kubernetes")
    await cluster.settle()
    first = await cluster("GET", f"{RANGES}/kubernetes")
    assert first["metadata"]["deletionTimestamp"]
    await cluster("POST", RANGES, {"metadata": {"name": "wider"}, "spec": {"cidrs": ["10.0.0.0/8"]}})
    await cluster.settle()
    again = await cluster("GET", f"{RANGES}/kubernetes")
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    assert again["spec"] == {"cidrs": ["10.96.0.0/16"]}


async def test_what_a_user_changes_in_the_service_stays() -> None:
    cluster = await running(FOUR)
    await cluster("PATCH", SERVICE, {"metadata": {"labels": {"mine": "x"}}})
    await cluster.settle()
    assert (await cluster("GET", SERVICE))["metadata"]["labels"]["mine"] == "x"

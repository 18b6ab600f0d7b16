"""Endpoints in the Service range are told of, once each; those that controllers made are not looked at."""

from __future__ import annotations

from typing import Any

from tests.unit.apiserver.controllers.cluster import Cluster

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


async def said(*addresses: str, **labels: str) -> list[str]:
    """What is said of a Service with a slice of these addresses."""
    cluster = await Cluster().begin()
    range_ = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}
    await cluster("POST", "/apis/networking.k8s.io/v1/servicecidrs", range_)
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    await cluster("POST", "/api/v1/namespaces/default/services", service)
    metadata = {"name": "web-1", "labels": {"kubernetes.io/service-name": "web", **labels}}
    endpoints: list[dict[str, Any]] = [{"addresses": [address]} for address in addresses]
    await cluster("POST", SLICES, {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": []})
    await cluster.settle()
    events = (await cluster("GET", "/api/v1/namespaces/default/events"))["items"]
    return [event["message"] for event in events if event["reason"] == "EndpointNotUsed"]


async def test_an_endpoint_in_the_service_range_is_told() -> None:
    assert await said("10.244.0.1", "10.96.0.7") == [
        "endpoint 10.96.0.7 of EndpointSlice web-1 lies in the Service range 10.96.0.0/16: it is not used"
    ]


async def test_others_are_not() -> None:
    assert await said("10.244.0.1", "192.0.2.1") == []
    assert await said("10.96.0.7", **{"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}) == []

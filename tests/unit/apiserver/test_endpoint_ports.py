"""Ports of EndpointSlices: clients follow the pointers to their names."""

from __future__ import annotations

from tests.unit.apiserver.test_server import Api

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


async def test_a_port_without_a_name_has_an_empty_one() -> None:
    """`kubectl describe service` ends in a panic where there is none (discovery/v1/defaults.go sets it)."""
    api = Api()
    body = {
        "metadata": {"name": "x"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.1.1"]}],
        "ports": [{"port": 80}],
    }
    made = await api("POST", SLICES, body)
    assert made["ports"] == [{"name": "", "port": 80, "protocol": "TCP"}]
    assert (await api("PATCH", f"{SLICES}/x", {"ports": [{"port": 81}]}))["ports"][0]["name"] == ""
    del body["ports"]
    assert "ports" not in await api("POST", SLICES, {**body, "metadata": {"name": "y"}})

"""Ports of EndpointSlices: clients follow the pointers to their names; and host names of endpoints."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("hostname", ["a.b", "UPPER", "a" * 64, "x\0", "-", "_tcp", "*"])
async def test_host_names_of_endpoints_are_labels(hostname: str) -> None:
    """ValidateEndpointSlice and ValidateEndpoints: they are labels of names."""
    api = Api()
    endpoint = {"addresses": ["10.1.1.1"], "hostname": hostname}
    refused = await api("POST", SLICES, {"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": [endpoint]}, 422)
    assert "endpoints[0].hostname: Invalid value" in refused["message"]
    subsets = [{"addresses": [{"ip": "10.1.1.1", "hostname": hostname}], "ports": [{"port": 80}]}]
    refused = await api("POST", "/api/v1/namespaces/default/endpoints", {"metadata": {"name": "x"}, "subsets": subsets}, 422)
    assert "subsets[0].addresses[0].hostname: Invalid value" in refused["message"]
    endpoint["hostname"] = "web-0"
    await api("POST", SLICES, {"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": [endpoint]})

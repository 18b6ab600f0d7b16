"""What is kept of Services, slices and pods."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.dns import Identity, NamedEndpoint, NamedPod, NamedPort, NamedService, NamedSlice, canonical
from podplane.model.pod import DnsConfig, DnsOption

META = {
    "name": "web-a",
    "namespace": "shop",
    "uid": "u",
    "annotations": {"a": "b"},
    "labels": {"kubernetes.io/service-name": "web"},
}


def slice_of(**fields: Any) -> NamedSlice:
    return NamedSlice.from_json(msgspec.json.encode({"metadata": META, **fields}))


def pod(**fields: Any) -> NamedPod:
    return NamedPod.from_json(msgspec.json.encode({"metadata": META, **fields}))


@given(st.ip_addresses())
def test_an_address_has_one_form(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert canonical(str(ip)) == canonical(ip.exploded) == canonical(str(ip).upper()) == str(ip)


@given(st.text("0123456789abcdef.:%", max_size=20))
def test_only_an_address_has_a_form(text: str) -> None:
    try:
        expected = "" if "%" in text else str(ipaddress.ip_address(text))
    except ValueError:
        expected = ""
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["::", "1::", "::1", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:0:0:2::3", "1:2:3:4:5:6::8"])
def test_zeros_are_left_out_where_that_is_shortest(text: str) -> None:
    assert canonical(text) == str(ipaddress.ip_address(text))


def test_a_slice_is_kept_by_address() -> None:
    found = slice_of(
        addressType="IPv6",
        endpoints=[
            {
                "addresses": ["FD00::0:2", "fd00::3"],
                "hostname": "DB-0",
                "conditions": {"ready": False},
                "nodeName": "n",
                "zone": "z",
            },
            {"addresses": ["fd00::4"], "hostname": None, "conditions": {"ready": None, "serving": True}},
            {"addresses": ["example.com"]},
        ],
        ports=[{"name": "http", "port": 80}, {"port": None, "protocol": "UDP"}],
    )
    assert found.metadata == Identity("web-a", "shop", "u") and found.metadata.path == "shop/web-a"
    assert found.service == "shop/web"
    assert found.endpoints == (
        NamedEndpoint("fd00::2", "db-0", False),
        NamedEndpoint("fd00::3", "db-0", False),
        NamedEndpoint("fd00::4"),
    )
    assert found.ports == (NamedPort("http", "TCP", 80), NamedPort("", "UDP"))


def test_a_change_that_nobody_reads_is_none() -> None:
    other = {**META, "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "now"}, "resourceVersion": "9"}
    assert slice_of(metadata=other) == slice_of()
    assert slice_of(endpoints=None, ports=None) == slice_of(endpoints=[], ports=[])


def test_a_slice_of_no_service() -> None:
    assert NamedSlice.from_json(b'{"metadata": {"name": "x", "namespace": "y"}}').service == ""


@pytest.mark.parametrize(
    ("spec", "ips", "headless"),
    [
        ({"clusterIP": "10.0.0.1"}, ("10.0.0.1",), False),
        ({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "FD00::1"]}, ("10.0.0.1", "fd00::1"), False),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, (), True),
        ({"clusterIP": ""}, (), False),
        ({}, (), False),
        ({"type": "ExternalName", "clusterIP": "10.0.0.1", "externalName": "x"}, (), False),
        ({"type": "ExternalName", "clusterIP": "None"}, (), False),
    ],
)
def test_the_addresses_of_a_service(spec: dict[str, Any], ips: tuple[str, ...], headless: bool) -> None:
    service = msgspec.convert({"metadata": META, "spec": spec}, NamedService)
    assert (service.ips, service.is_headless) == (ips, headless)


def test_a_pod_is_kept_with_what_its_names_and_its_questions_depend_on() -> None:
    config = {"searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}]}
    found = pod(
        metadata={**META, "deletionTimestamp": "2026-01-01T00:00:00Z"},
        spec={"nodeName": "node1", "hostNetwork": True, "dnsPolicy": "None", "dnsConfig": config},
        status={"phase": "Failed", "podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::0:2"}]},
    )
    assert (found.ips, found.node, found.is_ended, found.is_ending, found.is_on_host) == (
        ("10.244.1.2", "fd00::2"),
        "node1",
        True,
        True,
        True,
    )
    assert (found.dns_policy, found.dns_config) == ("None", DnsConfig(searches=("a.b",), options=(DnsOption("ndots", "2"),)))


def test_a_pod_that_has_just_been_created() -> None:
    found = pod(spec={"dnsConfig": None}, status={"podIPs": None})
    assert found == NamedPod(Identity("web-a", "shop", "u")) and not found.is_ended
    assert pod(status={"podIP": "10.244.1.2"}).ips == ("10.244.1.2",)

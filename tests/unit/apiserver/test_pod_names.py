"""Which host names and dnsConfigs of pods are refused, with the place of what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.apiserver.kinds.pod_names import check_names

IPS = [f"192.0.2.{n}" for n in range(4)]


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"dnsPolicy": "None"}, ["nameservers"]),
        ({"dnsPolicy": "None", "dnsConfig": {"searches": ["x"]}}, ["nameservers"]),
        ({"dnsConfig": {"nameservers": IPS}}, ["nameservers"]),
        ({"dnsConfig": {"nameservers": ["192.0.2.1", "dns.example"]}}, ["nameservers[1]"]),
        ({"dnsConfig": {"searches": [f"d{n}" for n in range(33)]}}, ["searches"]),
        ({"dnsConfig": {"searches": [f"d{n}.{'x' * 60}.{'x' * 60}" for n in range(20)]}}, ["searches"]),
        (
            {"dnsConfig": {"searches": ["ok.example", "a b", "x\nnameserver 192.0.2.1", "", "..", "A.example"]}},
            [f"searches[{n}]" for n in range(1, 6)],
        ),
        ({"dnsConfig": {"searches": [".".join(["x" * 49] * 6)]}}, ["searches[0]"]),
        ({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"value": "x"}]}}, ["options[1]"]),
    ],
)
def test_wrong_ones(spec: dict[str, Any], fields: list[str]) -> None:
    assert [cause.field for cause in check_names(spec, "spec")] == [f"spec.dnsConfig.{field}" for field in fields]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"hostname": "a.b"}, "hostname"),
        ({"subdomain": "A"}, "subdomain"),
        ({"hostnameOverride": "a_b"}, "hostnameOverride"),
        ({"hostnameOverride": ""}, "hostnameOverride"),
        ({"hostnameOverride": "x" * 65}, "hostnameOverride"),
        ({"hostnameOverride": "a.b", "hostNetwork": True}, "hostnameOverride"),
        ({"hostnameOverride": "a.b", "setHostnameAsFQDN": True}, "hostnameOverride"),
    ],
)
def test_wrong_host_names(spec: dict[str, Any], field: str) -> None:
    assert [cause.field for cause in check_names(spec, "spec")] == [f"spec.{field}"]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"hostname": "web", "subdomain": "db", "hostnameOverride": "any.name.example"},
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": IPS[:3]}},
        {"dnsConfig": {"searches": [".", "_tcp.example", "example.", "x-y.z_1.example"], "options": [{"name": "rotate"}]}},
        {"dnsConfig": {"searches": [f"d{n}" for n in range(32)]}},
    ],
)
def test_right_ones(spec: dict[str, Any]) -> None:
    assert list(check_names(spec, "spec")) == []

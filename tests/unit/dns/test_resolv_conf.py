"""The resolv.conf of a pod by its policy, and what libraries read of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podplane.dns.resolv_conf import NodeDns, ResolvConf, omitted, read, within_limits
from podplane.model.pod import PodSpec

MACHINE = ResolvConf(("192.0.2.1",), ("example.org",), ("timeout:1",))
DNS = ("10.96.0.10",)
CLUSTER = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org")


def of_pod(node: NodeDns, **given: Any) -> ResolvConf:
    spec = msgspec.convert(given, PodSpec)
    return node.of_pod("shop", spec.dns_policy, spec.dns_config, on_host=spec.host_network)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, ResolvConf(DNS, CLUSTER, ("ndots:5",))),
        ({"dnsPolicy": "Default"}, MACHINE),
        ({"hostNetwork": True}, MACHINE),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, ResolvConf(DNS, CLUSTER, ("ndots:5",))),
        ({"dnsPolicy": "ClusterFirstWithHostNet"}, ResolvConf(DNS, CLUSTER, ("ndots:5",))),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"]}}, ResolvConf(("9.9.9.9",))),
        (
            {"dnsPolicy": "Default", "dnsConfig": {"nameservers": ["9.9.9.9", "192.0.2.1"], "searches": ["x"]}},
            ResolvConf(("192.0.2.1", "9.9.9.9"), ("example.org", "x"), ("timeout:1",)),
        ),
        (
            {
                "dnsConfig": {
                    "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
                    "searches": ["svc.cluster.local", "x"],
                }
            },
            ResolvConf(DNS, (*CLUSTER, "x"), ("ndots:2", "rotate")),
        ),
    ],
)
def test_it_is_what_the_policy_says(spec: dict[str, Any], wanted: ResolvConf) -> None:
    assert of_pod(NodeDns(DNS, machine=MACHINE), **spec) == wanted


def test_its_domains_are_those_of_the_cluster() -> None:
    searches = of_pod(NodeDns(DNS, "lab.example", MACHINE)).searches
    assert searches == ("shop.svc.lab.example", "svc.lab.example", "lab.example", "example.org")


def test_it_is_read_as_it_is_written() -> None:
    written = ResolvConf(("192.0.2.1", "2001:db8::1"), ("a.example", "b.example", "."), ("ndots:5", "edns0"))
    assert read(written.text()) == written
    assert read("; nothing\ndomain x # y\nsearch z. .\nnameserver\n") == ResolvConf((), ("z", "."))


def test_what_libraries_would_not_read_is_left_out_and_said() -> None:
    long = "x" * 254
    whole = ResolvConf(tuple(f"10.0.0.{n}" for n in range(5)), (long, *(f"d{n}.{'x' * 60}" for n in range(40))))
    taken = within_limits(whole)
    assert taken.nameservers == ("10.0.0.0", "10.0.0.1", "10.0.0.2")
    assert len(" ".join(taken.searches)) <= 2048
    assert long not in taken.searches
    assert len(taken.searches) == 31
    assert list(omitted(whole)) == [
        "Nameserver limits were exceeded, the applied nameservers are: 10.0.0.0 10.0.0.1 10.0.0.2",
        f"Search line limits were exceeded, the applied search line is: {' '.join(taken.searches)}",
    ]
    assert list(omitted(taken)) == []
    assert len(" ".join(within_limits(ResolvConf((), tuple("x" * 200 + str(n) for n in range(20)))).searches)) <= 2048


@pytest.mark.parametrize(
    ("options", "wanted"),
    [((), 1), (("ndots:5",), 5), (("ndots:2", "ndots:3"), 3), (("ndots:99999",), 15), (("ndots:x",), 1), (("ndots",), 1)],
)
def test_ndots_are_as_libraries_read_them(options: tuple[str, ...], wanted: int) -> None:
    assert ResolvConf(options=options).ndots == wanted

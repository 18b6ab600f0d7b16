"""Why a name has no records."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns.directory import Directory
from podplane.dns.message import AAAA, PTR, SRV, TXT, A, Question, name_of
from podplane.dns.reasons import address_of, reason, reverse_name
from podplane.model.dns import NamedService, NamedSlice

DOMAIN = name_of("cluster.local")
HOST = "the host name or address"


def service(path: str, **spec: object) -> NamedService:
    namespace, name = path.split("/")
    return msgspec.convert({"metadata": {"namespace": namespace, "name": name}, "spec": spec}, NamedService)


def slice_of(*ready: bool, service: str = "db") -> dict[str, NamedSlice]:
    endpoints = [{"addresses": [f"10.244.1.{n}"], "conditions": {"ready": one}} for n, one in enumerate(ready, 2)]
    metadata = {"namespace": "default", "labels": {"kubernetes.io/service-name": service}}
    return {"s": NamedSlice.from_json(msgspec.json.encode({"metadata": metadata, "endpoints": endpoints}))}


SERVICES = [
    service("shop/api", clusterIP="10.96.0.20", ports=[{"name": "http", "port": 80}]),
    service("default/web", clusterIP="10.96.0.21", ports=[{"port": 80}]),
    service("default/db", clusterIP="None"),
    service("default/none", clusterIP="None"),
    service("default/ready", clusterIP="None", publishNotReadyAddresses=True),
    service("default/out", type="ExternalName", externalName="example.test"),
    service("default/address", type="ExternalName", externalName="10.0.0.1"),
    service("default/wrong", type="ExternalName", externalName="a..b"),
    service("default/new"),
    *(service(f"n{n}/many", clusterIP="None") for n in range(5)),
]
READY = slice_of(False, service="ready")
DIRECTORY = Directory(
    namespaces={"default", "shop"},
    services={one.metadata.path: one for one in SERVICES},
    services_by_ip={"10.96.0.20": {"shop/api": SERVICES[0]}},
    slices_by_service={"default/db": slice_of(False, False), "default/ready": READY},
    slices_by_ip={"10.244.1.2": READY},
)


@pytest.mark.parametrize(
    ("name", "type_", "why"),
    [
        ("api.default.svc", A, "there is no Service api in namespace default; there is one in namespace shop"),
        ("many.default.svc", A, "there is no Service many in namespace default; there is one in namespaces n0, n1, n2 and others"),
        ("foo.default.svc", A, "there is no Service foo in namespace default"),
        ("api.nowhere.svc", A, "there is no namespace nowhere"),
        ("api.svc", A, "there is no namespace api"),
        ("default.svc", A, "no object has this name: it only has names below it"),
        ("", A, "no object has this name: it only has names below it"),
        ("1-2-3-4.default.pod", A, "no pod in namespace default has the address 1.2.3.4"),
        ("1-2-3-4.default.pod", AAAA, "the name of an IPv4 address has an A record only"),
        ("fd00--1.default.pod", TXT, "the name of an IPv6 address has an AAAA record only"),
        ("web-0.default.pod", A, "the name of a pod is its address with dashes (10-244-1-2): this is none"),
        ("x.1-2-3-4.default.pod", A, "there are no names below that of a pod"),
        ("1-2-3-4.nowhere.pod", A, "there is no namespace nowhere"),
        ("default.pod", A, "no object has this name: it only has names below it"),
        ("dns", A, "no object has this name: it only has names below it"),
        ("ns.dns", A, "it has the addresses of Service kube-system/kube-dns only"),
        ("dns-version", A, "it has a TXT record only"),
        ("example.com", A, "names below cluster.local. are those of Services (svc) and pods (pod)"),
        ("api.shop.svc", AAAA, "Service shop/api has no IPv6 address"),
        ("api.shop.svc", TXT, "Service shop/api has addresses (A, AAAA) and ports (SRV) only"),
        ("new.default.svc", A, "Service default/new has no address yet"),
        ("new.default.svc", SRV, "Service default/new has no ports"),
        ("_https._tcp.api.shop.svc", SRV, "Service shop/api has no port https/tcp: its ports are http/tcp"),
        ("_http._tcp.web.default.svc", SRV, "Service default/web has no port http/tcp: its ports have no names"),
        ("_http._tcp.api.shop.svc", AAAA, "_http._tcp of Service shop/api has no IPv6 address"),
        ("_tcp.api.shop.svc", A, "no object has this name: it only has names below it"),
        ("_udp.api.shop.svc", A, "Service shop/api has no port with a name and the protocol udp"),
        ("db-0.db.default.svc", A, f"no ready endpoint of Service default/db has {HOST} db-0, and none of its 2 endpoints is ready"),
        ("db.default.svc", A, "Service default/db is headless, and none of its 2 endpoints is ready"),
        ("none.default.svc", A, "Service default/none is headless, and it has no endpoints"),
        ("x.ready.default.svc", A, f"no ready endpoint of Service default/ready has {HOST} x"),
        ("10-244-1-2.ready.default.svc", AAAA, "10-244-1-2 of Service default/ready has no IPv6 address"),
        ("x.web.default.svc", A, f"no ready endpoint of Service default/web has {HOST} x, and it has no endpoints"),
        ("x.out.default.svc", A, "Service default/out is another name for example.test: nothing is below it"),
        ("address.default.svc", A, "Service default/address is another name for 10.0.0.1: addresses are no names"),
        ("wrong.default.svc", A, "Service default/wrong is another name for a..b: that is no name"),
        ("a.b.c.web.default.svc", A, "Service default/web has no names so far below it"),
        ("http.tcp.api.shop.svc", SRV, "Service shop/api has no names so far below it"),
    ],
)  # fmt: skip
def test_each_name_has_its_reason(name: str, type_: int, why: str) -> None:
    whole = name_of(f"{name}.cluster.local" if name else "cluster.local")
    assert reason(Question(whole, type_), DIRECTORY, DOMAIN) == why


def test_addresses_without_names_and_names_of_others() -> None:
    asked = Question(name_of("9.0.96.10.in-addr.arpa"), PTR)
    assert reason(asked, DIRECTORY, DOMAIN) == "no Service and no ready endpoint has the address 10.96.0.9"
    asked = Question(name_of("20.0.96.10.in-addr.arpa"), TXT)
    assert reason(asked, DIRECTORY, DOMAIN) == "an address has PTR records only"
    assert reason(Question(name_of("www.example.com"), A), DIRECTORY, DOMAIN) == ""


@given(st.ip_addresses())
def test_an_address_is_read_from_its_reverse_name(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert ipaddress.ip_address(address_of(name_of(reverse_name(str(ip))))) == ip


@pytest.mark.parametrize(
    "name", ["", "arpa", "in-addr.arpa", "1.in-addr.arpa", "300.1.1.1.in-addr.arpa", "g." * 32 + "ip6.arpa", "x.y"]
)
def test_other_names_are_no_addresses(name: str) -> None:
    assert address_of(name_of(name)) == ""

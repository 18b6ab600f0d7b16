"""Names of addresses: which are answered here, and which are left to others."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns import message as m
from tests.unit.dns.world import World, endpoint

SOA = "5 SOA ns.dns.cluster.local. hostmaster.cluster.local. # 7200 1800 86400 5"


def reverse(ip: str) -> str:
    return f"{ipaddress.ip_address(ip).reverse_pointer}."


def ptr(ip: str, *names: str) -> list[str]:
    return [f"{reverse(ip)} 5 PTR {name}.cluster.local." for name in names]


@pytest.fixture
def world() -> World:
    return World()


def test_cluster_ips_are_names_of_services(world: World) -> None:
    world.service("default/web", "10.96.0.5", "FD00:10:96::0:5")
    assert world.ask(reverse("10.96.0.5"), "PTR") == ptr("10.96.0.5", "web.default.svc")
    assert world.ask(reverse("fd00:10:96::5").upper(), "PTR") == ptr("fd00:10:96::5", "web.default.svc")


def test_addresses_of_endpoints_are_their_names(world: World) -> None:
    world.service("default/db")
    world.service("default/web", "10.96.0.5")
    world.service("shop/db")
    world.slice("default/db-a", "db", endpoint("10.244.1.2", "fd00:10:244:1:0::2", hostname="db-0"), endpoint("10.244.1.3"))
    world.slice("default/db-b", "db", endpoint("10.244.1.2", hostname="db-0"))
    world.slice("shop/a", "db", endpoint("10.244.1.2"))
    world.slice("default/web-a", "web", endpoint("10.244.1.2"))
    names = ("db-0.db.default.svc", "10-244-1-2.web.default.svc", "10-244-1-2.db.shop.svc")
    assert world.ask(reverse("10.244.1.2"), "PTR") == ptr("10.244.1.2", *names)
    assert world.ask(reverse("fd00:10:244:1::2"), "PTR") == ptr("fd00:10:244:1::2", "db-0.db.default.svc")
    assert world.ask(reverse("10.244.1.3"), "PTR") == ptr("10.244.1.3", "10-244-1-3.db.default.svc")


def test_an_endpoint_without_its_service_has_no_name(world: World) -> None:
    world.slice("default/db-a", "db", endpoint("10.244.1.2"))
    assert world.ask(reverse("10.244.1.2"), "PTR") == ["NXDOMAIN", f"-- 244.10.in-addr.arpa. {SOA}"]
    world.put("service", "default/db", spec={"type": "ExternalName", "externalName": "example.com"})
    assert world.ask(reverse("10.244.1.2"), "PTR")[0] == "NXDOMAIN"


def test_the_clusters_networks_are_answered_whole(world: World) -> None:
    world.service("default/web", "10.96.0.5")
    apex = "96.10.in-addr.arpa."
    soa = f"{apex} {SOA}"
    assert world.ask(apex, "SOA") == [soa]
    assert world.ask(apex, "NS") == [f"{apex} 5 NS ns.dns.cluster.local."]
    assert world.ask(reverse("10.96.0.5"), "A") == [f"-- {soa}"]
    for name in (apex, f"0.{apex}", f"255.{apex}"):
        assert world.ask(name, "PTR") == [f"-- {soa}"], "there are names below it"
    for name in ("9.0", "x", "256", "00", "x.5.0", "5.0.5.0"):
        assert world.ask(f"{name}.{apex}", "PTR") == ["NXDOMAIN", f"-- {soa}"], name


OTHERS = ("in-addr", "10.in-addr", "97.10.in-addr", "5.0.97.10.in-addr", "x.in-addr", "1.2.0.192.in-addr", "ip6", "0.0.d.f.ip6")


@pytest.mark.parametrize("name", ["arpa.", "96.10.in-addr.arpa.example.", *(f"{name}.arpa." for name in OTHERS)])
def test_all_other_networks_are_left_to_others(world: World, name: str) -> None:
    assert world.answer(name, "PTR") is None


def test_a_network_that_begins_with_zeros_is_not_those_around_it() -> None:
    world = World(networks=("10.0.0.0/16", "fd00::/112"))
    for name in ("10.in-addr.arpa.", "in-addr.arpa.", "0.0.d.f.ip6.arpa.", "d.f.ip6.arpa.", "x.10.in-addr.arpa."):
        assert world.answer(name, "PTR") is None, name
    assert world.ask("0.10.in-addr.arpa.", "SOA") == [f"0.10.in-addr.arpa. {SOA}"]


def test_an_endpoint_elsewhere_has_its_name_and_nothing_else_is_said(world: World) -> None:
    world.service("default/db")
    world.slice("default/db-a", "db", endpoint("203.0.113.7", hostname="old"))
    assert world.ask(reverse("203.0.113.7"), "PTR") == ptr("203.0.113.7", "old.db.default.svc")
    assert world.answer(reverse("203.0.113.7"), "A") is None
    world.remove("endpointslice", "default/db-a")
    assert world.answer(reverse("203.0.113.7"), "PTR") is None


@given(st.ip_addresses(), st.integers(0, 128), st.booleans(), st.ip_addresses())
def test_an_address_is_answered_here_when_it_is_in_a_network(
    base: ipaddress.IPv4Address | ipaddress.IPv6Address,
    length: int,
    inside: bool,
    other: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    network = ipaddress.ip_network((base, min(length, base.max_prefixlen)), strict=False)
    world = World(networks=(str(network),))
    ip = base if inside else other
    found = world.answer(reverse(str(ip)), "PTR")
    assert (found is not None) == (ip in network)
    if found is not None:
        assert found.depends == (f"ip/{ip}",)
        bits, apex = (8, 2) if ip.version == 4 else (4, 2)
        is_apex = network.prefixlen > ip.max_prefixlen - bits
        assert found.rcode == (m.NOERROR if is_apex else m.NXDOMAIN)
        (soa,) = found.authority
        assert len(soa.name) == apex + -(-network.prefixlen // bits)
        at_apex = world.answer(m.text_of(soa.name), "SOA")
        assert at_apex is not None and at_apex.records == (soa,)

"""Routes, addresses, neighbours: as the kernel finds them."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podplane.state.network import Address, Link, Neighbour, Proxy, Route, Rule
from podplane.state.value import IPAddress, IPNetwork, Value
from podplane.trace.routing import Routing
from tests.unit.kernel.generated import addresses, networks

LINKS = {name: Link(name=name) for name in ("lo", "a", "b")} | {"down": Link(name="down", up=False)}


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def route(text: str, link: str = "a", **more: Any) -> Route:
    return Route(destination=ipaddress.ip_network(text), link=link, protocol=4, **more)


def routing(*values: Value) -> Routing:
    return Routing(LINKS, values)


def leads(own: Routing, to: str, **more: Any) -> tuple[str, str] | None:
    found = own.find(ip(to), **more)
    return (found.kind, found.link) if found is not None else None


@given(st.sets(networks(4, 20), max_size=20), st.lists(addresses(4), max_size=5))
def test_the_longest_prefix_wins(found: set[IPNetwork], asked: list[IPAddress]) -> None:
    own = routing(*(Route(destination=network, link="a", metric=number, protocol=4) for number, network in enumerate(found)))
    for address in [*asked, *(network.network_address for network in found)]:
        if address.is_loopback:
            continue
        best = max((network for network in found if address in network), key=lambda n: n.prefixlen, default=None)
        hop = own.find(address)
        assert (hop.value.destination if hop is not None else None) == best  # type: ignore[union-attr]  # a route


def test_the_lowest_metric_wins_and_links_that_are_down_do_not_count() -> None:
    own = routing(route("10.0.0.0/8", "b", metric=20), route("10.0.0.0/8", "a", metric=10), route("10.1.0.0/16", "down"))
    assert leads(own, "10.1.0.1") == ("unicast", "a")
    assert leads(own, "10.1.0.1", link="b") == ("unicast", "b")
    assert leads(own, "11.0.0.1") is None


def test_addresses_are_local_and_their_subnets_connected() -> None:
    own = routing(Address(link="a", ip=ip("10.0.0.1"), prefix_length=24), Address(link="b", ip=ip("fd00::1"), prefix_length=64))
    assert leads(own, "10.0.0.1") == ("local", "a")
    assert leads(own, "10.0.0.2") == ("unicast", "a")
    assert leads(own, "10.0.0.255") == ("broadcast", "a")
    assert leads(own, "fd00::1") == ("local", "b")
    assert leads(own, "fd00::ffff") == ("unicast", "b")
    assert leads(own, "127.0.0.5") == ("local", "lo") and leads(own, "::1") == ("local", "lo")
    assert own.is_local(ip("10.0.0.1")) and not own.is_local(ip("10.0.0.2"))


def test_a_whole_address_brings_no_subnet() -> None:
    own = routing(Address(link="a", ip=ip("10.0.0.1"), prefix_length=32))
    assert leads(own, "10.0.0.1") == ("local", "a") and leads(own, "10.0.0.2") is None


def test_rules_choose_tables_by_source_destination_and_mark() -> None:
    values: list[Value] = [route("0.0.0.0/0", "a"), route("0.0.0.0/0", "b", table=77), route("10.9.0.0/16", "b", table=78)]
    rules = [
        Rule(priority=100, family=4, table=77, source=ipaddress.ip_network("10.0.0.0/8")),
        Rule(priority=101, family=4, table=77, mark=0x10, mark_mask=0xF0),
        Rule(priority=102, family=4, table=78),
        Rule(priority=103, family=6, table=77),
    ]
    own = routing(*values, *rules)
    assert leads(own, "192.0.2.1") == ("unicast", "a")
    assert leads(own, "192.0.2.1", source=ip("10.1.1.1")) == ("unicast", "b")
    assert leads(own, "192.0.2.1", mark=0x1F) == ("unicast", "b") and leads(own, "192.0.2.1", mark=0x20) == ("unicast", "a")
    assert leads(own, "10.9.0.1") == ("unicast", "b"), "a table without a route leaves it to the next rule"


def test_a_gateway_tells_the_link_of_a_route_that_names_none() -> None:
    own = routing(Address(link="b", ip=ip("10.0.0.1"), prefix_length=24), route("10.7.0.0/16", "", gateway=ip("10.0.0.9")))
    assert leads(own, "10.7.0.1") == ("unicast", "b")


def test_the_address_for_what_leaves_is_of_the_next_hops_subnet() -> None:
    own = routing(
        *(Address(link="a", ip=ip(text), prefix_length=24) for text in ("10.0.0.1", "10.0.1.1")),
        *(Address(link="a", ip=ip(text), prefix_length=64) for text in ("fd00:1::1", "fd00:2::1")),
    )
    assert own.own_address("a", ip("10.0.1.9"), 4) == ip("10.0.1.1")
    assert own.own_address("a", ip("192.0.2.1"), 4) == ip("10.0.0.1")
    assert own.own_address("a", ip("fd00:2::9"), 6) == ip("fd00:2::1")
    assert own.own_address("b", None, 4) == ip("10.0.0.1"), "a link without addresses lends another one's"
    assert own.own_address("lo", ip("fd00:2::1"), 6) == ip("fd00:2::1"), "who speaks to itself does so from the same address"
    assert routing().own_address("a", None, 4) is None


def test_the_source_is_the_routes_own_before_the_links() -> None:
    own = routing(
        Address(link="a", ip=ip("10.0.0.1"), prefix_length=24),
        route("10.7.0.0/16", "a", source=ip("10.0.0.77")),
        route("10.8.0.0/16", "a", gateway=ip("10.0.0.9")),
    )
    assert own.source_for(ip("10.7.0.1")) == ip("10.0.0.77")
    assert own.source_for(ip("10.8.0.1")) == ip("10.0.0.1")
    assert own.source_for(ip("10.0.0.1")) == ip("10.0.0.1") and own.source_for(ip("127.0.0.9")) == ip("127.0.0.1")
    assert own.source_for(ip("192.0.2.1")) is None


def test_neighbours_and_proxies_are_of_a_link() -> None:
    known = Neighbour(link="a", ip=ip("10.0.0.9"), mac="0a:58:00:00:00:09")
    proxy = Proxy(link="a", ip=ip("10.0.0.8"), protocol=80)
    own = routing(known, proxy)
    assert own.neighbour("a", ip("10.0.0.9")) == known and own.neighbour("b", ip("10.0.0.9")) is None
    assert own.proxy("a", ip("10.0.0.8")) == proxy and own.proxy("b", ip("10.0.0.8")) is None

"""Which nodes' packets a strict filter of reverse paths drops at the uplink."""

from __future__ import annotations

import ipaddress

import pytest

from podplane.machine import reverse_path
from podplane.model.config import ROUTE_PROTOCOL
from podplane.state.network import Address, Route
from podplane.state.value import Value, address_of

ALL, OWN = reverse_path.sysctls("eth1")
PEERS = [("node2", "192.168.1.11"), ("node3", "10.9.0.5"), ("node3", "fd00::5"), ("node4", "10.9.0.6")]


def route(to: str, link: str, protocol: int = 3) -> Route:
    return Route(destination=ipaddress.ip_network(to), link=link, protocol=protocol)


HERE: list[Value] = [
    Address(link="eth0", ip=address_of("10.1.0.10"), prefix_length=24),
    Address(link="eth1", ip=address_of("192.168.1.10"), prefix_length=24),
    route("0.0.0.0/0", "eth0"),
]


def test_peers_to_which_the_way_back_leads_by_another_link_are_named() -> None:
    assert reverse_path.dropped(HERE, {ALL: "1", OWN: "0"}, "eth1", PEERS) == [
        "rp_filter is 1 on eth1, so the kernel drops what node3 (10.9.0.5) and 1 other node send there: the way back leads by eth0; "
        "set net.ipv4.conf.eth1.rp_filter to 2, or a route by eth1"
    ]


@pytest.mark.parametrize(
    ("more", "filters", "peers"),
    [
        ([], {ALL: "0", OWN: "0"}, PEERS),
        ([], {ALL: "1", OWN: "2"}, PEERS),
        ([], {}, PEERS),
        ([], {ALL: "0", OWN: "1"}, PEERS[:1]),
        ([route("10.9.0.0/16", "eth1")], {ALL: "1", OWN: "1"}, PEERS),
        ([route("0.0.0.0/0", "eth1")], {ALL: "1", OWN: "1"}, PEERS),
    ],
    ids=["no filter", "loose", "not known", "on the link", "a route", "several ways"],
)
def test_nothing_is_said_where_nothing_is_dropped_or_that_is_not_known(
    more: list[Value], filters: dict[str, str], peers: list[tuple[str, str]]
) -> None:
    assert reverse_path.dropped([*HERE, *more], filters, "eth1", peers) == []


def test_podplanes_own_routes_are_no_ways_to_nodes() -> None:
    ours = route("10.9.0.0/16", "eth1", ROUTE_PROTOCOL)
    assert reverse_path.dropped([*HERE, ours], {ALL: "1"}, "eth1", PEERS)

"""The underlay's values: every address lies in the network that its prefix length says, whatever order the families come in."""

from __future__ import annotations

import ipaddress
from itertools import product

import pytest

from podplane.lab import underlay
from podplane.lab.spec import LabSpec
from podplane.state.network import Address, Neighbour, Route, Sysctl

CLUSTERS = ("10.244.0.0/16", "fd00:10:244::/48", "10.244.0.0/16,fd00:10:244::/48", "fd00:10:244::/48,10.244.0.0/16")
NODES = ("192.168.1.0/24,fd00:192:168:1::/64", "fd00:192:168:1::/64,192.168.1.0/24")


@pytest.mark.parametrize(("cluster", "node"), list(product(CLUSTERS, NODES)))
def test_addresses_and_gateways_are_of_one_network(cluster: str, node: str) -> None:
    plan = LabSpec(cluster_cidr=cluster, node_cidr=node).plan()
    networks = [*plan.node, *plan.outside]
    values = [*underlay.switch(plan), *underlay.uplink(plan, underlay.usual_place(plan, 2))]
    addresses = [v for v in values if isinstance(v, Address)]
    assert {a.ip.version for a in addresses} == set(plan.versions)
    for address in addresses:
        assert ipaddress.ip_interface(f"{address.ip}/{address.prefix_length}").network in networks
    for route in (v for v in values if isinstance(v, Route)):
        assert route.gateway is not None
        assert route.gateway.version == route.destination.version
    for neighbour in (v for v in values if isinstance(v, Neighbour)):
        assert any(neighbour.ip in network for network in networks)
    assert [ip.version for ip in underlay.outside_ips(plan)] == list(plan.versions)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_only_the_gateway_asks_for_neighbours_and_for_none_but_load_balancers(cluster: str) -> None:
    """RFC 6583: a pod that sends to many addresses of a /64 would fill the machine's table of neighbours."""
    plan = LabSpec(cluster_cidr=cluster).plan()
    for values, links in (
        (underlay.switch(plan), {("", underlay.OUT), (underlay.OUTSIDE, underlay.UPLINK)}),
        (underlay.uplink(plan, underlay.usual_place(plan, 2)), {("", underlay.UPLINK)}),
    ):
        on_link = {(v.netns, v.link, v.ip.version) for v in values if isinstance(v, Address)}
        asks_nobody = {(v.netns, v.name) for v in values if isinstance(v, Sysctl) and v.value == "0"}
        quiet = {one for one in on_link if (one[0], f"net.ipv{one[2]}.neigh.{one[1]}.mcast_solicit") in asks_nobody}
        assert {one[:2] for one in quiet} == links and {one[:2] for one in on_link - quiet} <= {("", underlay.switch_name(0))}

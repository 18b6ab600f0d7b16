"""The underlay's values: every address lies in the network that its prefix length says, whatever order the families come in."""

from __future__ import annotations

import ipaddress
from itertools import product

import pytest

from podplane.cli.labs import SECOND_NIC
from podplane.lab import second_nic, underlay
from podplane.lab.spec import LabSpec
from podplane.state.network import Address, Link, Neighbour, Route, Sysctl

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


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("subnets", [1, 2])
def test_with_a_second_interface_the_default_route_is_there_and_eth0_leads_to_nodes_alone(cluster: str, subnets: int) -> None:
    plan = LabSpec(cluster_cidr=cluster, second_nic=SECOND_NIC, subnets=subnets).plan()
    first, second = underlay.uplink(plan, underlay.usual_place(plan, 2)), second_nic.machine(plan, 2)
    routes = {(v.link, v.destination.version, v.destination.prefixlen == 0) for v in (*first, *second) if isinstance(v, Route)}
    apart = {("eth0", version, False) for version in plan.versions if subnets > 1}
    assert routes == {("eth1", version, True) for version in plan.versions} | apart
    assert [v.ip for v in second if isinstance(v, Address)] == list(plan.second_ips(2))
    assert {v.ip for v in second if isinstance(v, Neighbour)} == set(plan.second_gateways()), "nobody else is asked for"
    quiet = {v.name for v in (*second, *second_nic.switch(plan)) if isinstance(v, Sysctl) and v.name.endswith("mcast_solicit")}
    assert quiet == {f"net.ipv{v}.neigh.{link}.mcast_solicit" for v in plan.versions for link in ("eth1", second_nic.SWITCH)}


def test_a_machine_has_no_mac_twice_and_no_second_interface_unless_it_is_asked_for() -> None:
    plan = LabSpec(cluster_cidr=CLUSTERS[1], second_nic=SECOND_NIC).plan()
    values = [*underlay.port(plan, underlay.usual_place(plan, 2), "node2"), *second_nic.port(plan, 2, "node2")]
    macs = [v.peer.mac for v in values if isinstance(v, Link) and v.peer]
    assert len(macs) == len(set(macs)) == 2, "their IPv6 addresses end alike"
    plain = LabSpec().plan()
    assert not (second_nic.switch(plain) or second_nic.port(plain, 2, "node2") or second_nic.machine(plain, 2))

"""Nodes with a router between them: which are on a link, what each backend makes of it, and why some are not reached."""

from __future__ import annotations

import msgspec
import pytest

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node, NodeAddress, NodeStatus
from podplane.routes import cross_subnet, host_gw, underlay, vxlan, ways
from podplane.services.announce import is_on_its_link
from podplane.state.network import Fdb, Neighbour, Route
from podplane.state.value import Fragment
from tests.plans import config, node
from tests.unit.services.test_announce import EVERYWHERE

SUBNETS = ("192.168.1.0/25", "fd00:192:168:1::/65", "192.168.1.128/25", "fd00:192:168:1:8000::/65")
DUAL = (4, 6)


def at(number: int, *ips: str) -> Node:
    """A node with these addresses."""
    addresses = tuple(NodeAddress("InternalIP", ip) for ip in ips)
    return msgspec.structs.replace(node(number, DUAL), status=NodeStatus(addresses=addresses))


HERE, NEAR = at(1, "192.168.1.10", "fd00:192:168:1::a"), at(2, "192.168.1.11", "fd00:192:168:1::b")
FAR = at(3, "192.168.1.138", "fd00:192:168:1:8000::a")
HALF = at(4, "192.168.1.12", "fd00:192:168:1:8000::c")
"""On a link with the first by IPv4 alone."""


def settings(*subnets: str, backend: str = "host-gw") -> NetworkConfig:
    """Of a cluster whose nodes are in these subnets."""
    return msgspec.structs.replace(config(DUAL), subnets=subnets, backend=backend)


def links(planned: Fragment) -> dict[str, str]:
    """Destination → the link by which it is reached."""
    return {str(one.destination): one.link for one in planned.values() if isinstance(one, Route)}


def test_nodes_of_a_subnet_are_on_a_link_and_without_subnets_all_are() -> None:
    parted = settings(*SUBNETS)
    assert set(underlay.on_link(NEAR, HERE, parted)) == {4, 6} and not underlay.on_link(FAR, HERE, parted)
    assert set(underlay.on_link(HALF, HERE, parted)) == {4} and set(underlay.on_link(HALF, FAR, parted)) == {6}
    assert set(underlay.on_link(FAR, HERE, settings())) == {4, 6}
    own = settings("192.168.1.0/25")  # what an agent on a machine knows: the networks of its own uplink
    assert set(underlay.on_link(NEAR, HERE, own)) == {4} and not underlay.on_link(FAR, HERE, own)


@pytest.mark.parametrize("backend", ["host-gw", "auto"])
def test_a_node_without_an_address_of_an_ip_version_that_its_uplink_has_is_on_the_link_by_the_other(backend: str) -> None:
    dual, here, peer = settings(*SUBNETS, backend=backend), at(1, "192.168.1.10"), at(2, "192.168.1.11")
    for one, other in ((here, peer), (HERE, peer), (here, NEAR)):
        assert set(underlay.on_link(other, one, dual)) == {4}
        assert set(links(ways.towards(other, dual).plan_peer(other, one, dual)).values()) == {"eth0"}  # type: ignore[union-attr]
    assert underlay.place(here, dual) == underlay.place(peer, dual) != underlay.place(HERE, dual)
    nowhere = at(6)
    assert not underlay.on_link(nowhere, here, dual) and not underlay.on_link(here, nowhere, dual)
    assert not links(ways.towards(nowhere, dual).plan_peer(nowhere, here, dual))  # type: ignore[union-attr]


def test_nodes_of_the_same_subnets_share_plans() -> None:
    parted = settings(*SUBNETS)
    places = [underlay.place(one, parted) for one in (HERE, NEAR, FAR, HALF)]
    assert places[0] == places[1] and len(set(places)) == 3
    assert len({underlay.place(one, settings()) for one in (HERE, NEAR, FAR, HALF)}) == 1


def test_host_gw_reaches_those_on_a_link_and_says_why_it_does_not_reach_the_others() -> None:
    parted = settings(*SUBNETS)
    assert set(links(host_gw.BACKEND.plan_peer(NEAR, HERE, parted)).values()) == {"eth0"}
    assert not ways.why_not(NEAR, HERE, parted) and host_gw.BACKEND.is_direct(NEAR, HERE, parted)
    assert host_gw.BACKEND.plan_peer(FAR, HERE, parted) == {} and not host_gw.BACKEND.is_direct(FAR, HERE, parted)
    why = ways.why_not(FAR, HERE, parted)
    assert "node1 (192.168.1.10) and node3 (192.168.1.138)" in why and "auto, or vxlan" in why
    assert list(links(host_gw.BACKEND.plan_peer(HALF, HERE, parted))) == ["10.244.4.0/24"]
    assert "fd00:192:168:1:8000::c" in ways.why_not(HALF, HERE, parted), "of IPv6"


@pytest.mark.parametrize(("peer", "link"), [(NEAR, "eth0"), (FAR, "podplane-vxlan4"), (HALF, "podplane-vxlan4")])
def test_auto_takes_the_link_where_there_is_one_and_the_tunnel_elsewhere(peer: Node, link: str) -> None:
    parted = settings(*SUBNETS, backend="auto")
    planned = cross_subnet.AUTO.plan_peer(peer, HERE, parted)
    assert set(links(planned).values()) == {link} and len(links(planned)) == 2
    assert cross_subnet.AUTO.is_direct(peer, HERE, parted) is (link == "eth0")
    assert any(isinstance(one, Fdb) for one in planned.values()) is (link != "eth0")
    assert not ways.why_not(peer, HERE, parted)


def test_auto_without_subnets_is_host_gw_with_the_mtu_of_a_tunnel() -> None:
    one = settings(backend="auto")
    assert cross_subnet.AUTO.plan_peer(FAR, HERE, one) == host_gw.BACKEND.plan_peer(FAR, HERE, one)
    assert cross_subnet.AUTO.pod_mtu(HERE, one) == vxlan.BACKEND.pod_mtu(HERE, one) == 1450


def test_only_peers_on_a_link_are_permanent_neighbours_of_the_uplink() -> None:
    parted = settings(*SUBNETS, backend="vxlan")
    for peer, count in ((NEAR, 2), (FAR, 0), (HALF, 1)):
        planned = vxlan.BACKEND.plan_peer(peer, HERE, parted)
        assert len([one for one in planned.values() if isinstance(one, Neighbour) and one.link == "eth0"]) == count


def test_nodes_answer_for_load_balancers_of_their_own_subnets() -> None:
    (ip,) = EVERYWHERE.load_balancer_ips
    assert is_on_its_link(EVERYWHERE, HERE, ())
    theirs, there = f"{ip}/32", at(5, ip)
    assert is_on_its_link(EVERYWHERE, there, (theirs, *SUBNETS)) and not is_on_its_link(EVERYWHERE, HERE, (theirs, *SUBNETS))
    assert is_on_its_link(EVERYWHERE, HERE, SUBNETS), "of a pool that is in no subnet: a router may lead it here"

"""The backend vxlan: a device for each IP version of the underlay, and what leads to each peer."""

from __future__ import annotations

import ipaddress
from typing import TypeVar

import msgspec
import pytest

from podplane.agent.agent import Agent, ownership
from podplane.agent.peer_plans import PeerPlans
from podplane.kernel.door import Kernel
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node, NodeAddress, NodeStatus
from podplane.nodes.plan import node_elements
from podplane.nodes.settings import NodeSettings
from podplane.routes import vxlan
from podplane.state.mac import link_local_of
from podplane.state.network import Address, Fdb, Link, Neighbour, Route
from podplane.state.value import Fragment, Value
from tests.plans import FAMILIES, UNDERLAY, agent_settings, config, node
from tests.unit.agent.rig import DUAL, Rig, caches_of, cluster
from tests.unit.agent.test_node import until

SYSCTLS = ("sysctl net.ipv4.conf.podplane-vxlan", "sysctl net.ipv6.conf.podplane-vxlan")
"""The fake keeps them when their links go."""
V = TypeVar("V", bound=Value)


def of(kind: type[V], planned: Fragment) -> list[V]:
    """The values of a kind."""
    return [value for value in planned.values() if isinstance(value, kind)]


def only(one: Node, *versions: int) -> Node:
    """The node with addresses of these IP versions, in this order."""
    by_version: dict[int, NodeAddress] = {
        ipaddress.ip_address(address.address).version: address for address in one.status.addresses
    }
    return msgspec.structs.replace(one, status=NodeStatus(addresses=tuple(by_version[version] for version in versions)))


def settings(versions: tuple[int, ...] = DUAL, **fields: object) -> NetworkConfig:
    """Those of a cluster whose backend is vxlan."""
    return msgspec.structs.replace(config(versions), backend="vxlan", **fields)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_node_has_a_device_for_each_of_its_addresses_with_its_gateways_on_it(name: str) -> None:
    versions = FAMILIES[name]
    own = node(1, versions)
    planned = vxlan.BACKEND.plan_node(own, settings(versions, mtu=1400, vxlan_vni=7, vxlan_port=8472))
    links = {link.name: link for link in of(Link, planned)}
    assert sorted(links) == sorted(vxlan.DEVICES[version] for version in versions)
    for version in versions:
        link = links[vxlan.DEVICES[version]]
        assert link.vxlan is not None and link.mtu == 1400 - {4: 50, 6: 70}[version]
        assert link.vxlan.vni == 7 and link.vxlan.port == 8472 and link.vxlan.device == "eth0" and not link.vxlan.learning
        assert str(link.vxlan.local) == UNDERLAY[version].format(10)
        gateways = {str(a.ip) for a in of(Address, planned) if a.link == link.name}
        assert gateways == {str(ipaddress.ip_network(block)[1]) for block in own.spec.pod_cidrs}
    assert set(links) <= vxlan.BACKEND.owns(settings()).links


def test_a_node_without_blocks_or_addresses_has_no_device() -> None:
    own = node(1, DUAL)
    assert vxlan.BACKEND.plan_node(msgspec.structs.replace(own, spec=type(own.spec)()), settings()) == {}
    assert vxlan.BACKEND.plan_node(msgspec.structs.replace(own, status=NodeStatus()), settings()) == {}


@pytest.mark.parametrize("name", FAMILIES)
def test_each_block_of_a_peer_is_behind_its_gateway_its_mac_and_its_address(name: str) -> None:
    versions = FAMILIES[name]
    own, peer = node(1, versions), node(2, versions)
    planned = vxlan.BACKEND.plan_peer(peer, own, settings(versions, permanent_neighbours=False))
    device = vxlan.DEVICES[versions[0]]
    (entry,) = of(Fdb, planned)
    assert (entry.link, str(entry.remote)) == (device, peer.internal_ips[0])
    routes = of(Route, planned)
    assert [str(route.destination) for route in routes] == list(peer.spec.pod_cidrs)
    gateways = {4: ipaddress.ip_address("10.244.2.1"), 6: link_local_of(entry.mac)}
    assert all(route.link == device and route.gateway == gateways[route.destination.version] for route in routes)
    neighbours = {neighbour.ip: neighbour.mac for neighbour in of(Neighbour, planned)}
    assert neighbours == {route.gateway: entry.mac for route in routes}
    assert entry.mac == next(link.mac for link in of(Link, vxlan.BACKEND.plan_node(peer, settings(versions))))


def test_two_blocks_of_a_family_share_the_first_ones_gateway() -> None:
    peer = node(2, (4,))
    more = msgspec.structs.replace(peer.spec, pod_cidrs=("10.244.2.0/24", "10.244.9.0/24"))
    planned = vxlan.BACKEND.plan_peer(msgspec.structs.replace(peer, spec=more), node(1, (4,)), settings((4,)))
    assert {str(route.gateway) for route in of(Route, planned)} == {"10.244.2.1"}
    assert len([n for n in of(Neighbour, planned) if n.link != "eth0"]) == 1


def test_a_peer_is_reached_by_an_ip_version_that_both_nodes_have() -> None:
    own, peer = node(1, DUAL), node(2, DUAL)
    reached = {
        (mine, theirs): [
            str(entry.remote) for entry in of(Fdb, vxlan.BACKEND.plan_peer(only(peer, *theirs), only(own, *mine), settings()))
        ]
        for mine in ((4,), (6,), (4, 6))
        for theirs in ((4,), (6,), (6, 4))
    }
    v4, v6 = UNDERLAY[4].format(11), UNDERLAY[6].format(11)
    assert reached == {
        ((4,), (4,)): [v4],
        ((4,), (6,)): [],
        ((4,), (6, 4)): [v4],
        ((6,), (4,)): [],
        ((6,), (6,)): [v6],
        ((6,), (6, 4)): [v6],
        ((4, 6), (4,)): [v4],
        ((4, 6), (6,)): [v6],
        ((4, 6), (6, 4)): [v6],
    }


def test_the_mac_of_a_device_is_the_nodes_alone() -> None:
    macs = {vxlan.device_mac(f"node{number}") for number in range(1000)}
    assert len(macs) == 1000
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs), "locally administered, unicast"
    assert vxlan.device_mac("node1") == vxlan.device_mac("node1")


def test_pods_reach_a_peers_own_address_by_that_of_their_node() -> None:
    own, peer, plans = node(1, DUAL), node(2, DUAL), PeerPlans()
    exempt = set(node_elements(peer, DUAL))
    direct = plans.plan(peer, own, DUAL, config(DUAL), NodeSettings())
    assert exempt <= set(direct.values())
    tunnelled = plans.plan(peer, own, DUAL, settings(), NodeSettings())
    assert exempt.isdisjoint(tunnelled.values())


async def test_an_agent_takes_over_from_another_backend_both_ways() -> None:
    rig, caches = Rig(), caches_of(*cluster(1, 2))
    dumps = []
    for backend in ("host-gw", "vxlan", "host-gw"):
        agent = Agent("node1", agent_settings(DUAL, backend=backend), Kernel(rig.host, rig.opener), caches)
        await agent.start()
        assert not agent.ledger.refused
        await until(lambda: not agent.ledger.deviations)  # noqa: B023 — links are removed after an agent's start, in a thread
        dumps.append([line for line in rig.host.objects.dump().splitlines() if not line.startswith(SYSCTLS)])
    assert dumps[0] == dumps[2]
    assert any("10.244.2.0/24 via 10.244.2.1 dev podplane-vxlan4" in line for line in dumps[1])
    assert ownership(config(DUAL)).owns_link("podplane-vxlan6", "podplane")

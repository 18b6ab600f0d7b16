"""Backends: the one of the settings plans the ways between nodes, and says what is left for pods' packets."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from podplane.agent.agent import Agent, ownership
from podplane.agent.keys import PeerKey
from podplane.agent.peer_plans import PeerPlans
from podplane.kernel.door import Kernel
from podplane.model.config import ROUTE_PROTOCOL, UNDERLAY_MTU, NetworkConfig
from podplane.model.objects import Node, NodeStatus
from podplane.nodes.settings import NodeSettings
from podplane.routes import cross_subnet, host_gw, table, vxlan, ways
from podplane.routes.backend import Backend
from podplane.state.network import Address, Link, Neighbour, Route, Sysctl, Vxlan
from podplane.state.ownership import Ownership
from podplane.state.value import Fragment, fragment
from tests.plans import FAMILIES, agent_settings, config, node
from tests.unit.agent.rig import DUAL, Rig, caches_of, cluster


def tunnel_node(node: Node, settings: NetworkConfig) -> Fragment:
    """A device."""
    return fragment([Link(name="tunnel0", kind="vxlan", vxlan=Vxlan(vni=1), alias="podplane")])


def tunnel_peer(peer: Node, node: Node, settings: NetworkConfig) -> Fragment:
    """Routes whose metric says between which nodes they are."""
    metric = int(node.metadata.name[4:]) * 100 + int(peer.metadata.name[4:])
    blocks = map(ipaddress.ip_network, peer.spec.pod_cidrs)
    return fragment(Route(destination=b, link="tunnel0", metric=metric, protocol=ROUTE_PROTOCOL) for b in blocks)


TUNNEL = Backend(
    name="tunnel",
    overhead={4: 50, 6: 70},
    devices=("tunnel0",),
    plan_node=tunnel_node,
    plan_peer=tunnel_peer,
    depends_on=lambda node, settings: node.metadata.name,
    owns=lambda settings: Ownership(links=frozenset({"tunnel0"}), route_protocol=ROUTE_PROTOCOL),
)


def test_the_names_of_all_backends_differ_and_each_is_found_by_its_own() -> None:
    assert len(table.BY_NAME) == len(table.BACKENDS)
    assert all(table.backend(one.name) is one for one in table.BACKENDS)
    assert table.backend(config((4,)).backend) is host_gw.BACKEND


def test_other_nodes_are_asked_for_their_macs_where_permanent_neighbours_are_not_wanted() -> None:
    peer = node(2, DUAL)
    always, never = config(DUAL), msgspec.structs.replace(config(DUAL), permanent_neighbours=False)
    planned = [host_gw.BACKEND.plan_peer(peer, node(1, DUAL), settings) for settings in (always, never)]
    neighbours = {i: v for i, v in planned[0].items() if isinstance(v, Neighbour)}
    assert len(neighbours) == 2
    assert planned[1] == {i: v for i, v in planned[0].items() if i not in neighbours}


def test_a_backend_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="no backend 'vxlam': choose one of host-gw, vxlan, gre, auto"):
        table.backend("vxlam")
    rig = Rig()
    wrong = agent_settings(DUAL, backend="vxlam")
    with pytest.raises(ValueError, match="vxlam"):
        Agent("node1", wrong, Kernel(rig.host, rig.opener), rig.caches)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mtu_of_pods_is_the_uplinks_without_the_overhead_on_it(name: str) -> None:
    versions = FAMILIES[name]
    own, settings = node(1, versions), msgspec.structs.replace(config(versions), mtu=9000)
    assert host_gw.BACKEND.pod_mtu(own, settings) == 9000
    assert TUNNEL.pod_mtu(own, settings) == (8950 if versions[0] == 4 else 8930)
    without = msgspec.structs.replace(own, status=NodeStatus())
    assert TUNNEL.pod_mtu(without, settings) == 8930, "it may turn out to be IPv6"


@pytest.mark.parametrize("name", FAMILIES)
def test_host_gw_routes_a_block_to_its_node_and_asks_for_no_device(name: str) -> None:
    versions = FAMILIES[name]
    own, peer, settings = node(1, versions), node(2, versions), config(versions)
    planned = host_gw.BACKEND.plan_peer(peer, own, settings)
    routes = {str(v.destination): str(v.gateway) for v in planned.values() if isinstance(v, Route)}
    assert routes == dict(zip(peer.spec.pod_cidrs, peer.internal_ips, strict=True))
    assert host_gw.BACKEND.plan_node(own, settings) == {} and host_gw.BACKEND.devices == ()
    assert host_gw.BACKEND.depends_on(own, settings) == host_gw.BACKEND.depends_on(peer, settings)
    assert planned == host_gw.BACKEND.plan_peer(peer, node(3, versions), settings)
    marks = host_gw.BACKEND.owns(settings)
    assert marks == Ownership(route_protocol=ROUTE_PROTOCOL)


def test_a_family_that_a_peer_has_no_address_of_is_left_out() -> None:
    peer = node(2, DUAL)
    only_v6 = msgspec.structs.replace(peer, status=NodeStatus(addresses=peer.status.addresses[1:]))
    planned = host_gw.BACKEND.plan_peer(only_v6, node(1, DUAL), config(DUAL))
    assert {v.destination.version for v in planned.values() if isinstance(v, Route)} == {6}


async def test_an_agent_uses_the_backend_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.BY_NAME, "tunnel", TUNNEL)
    rig, shared = Rig(), PeerPlans()
    settings = agent_settings(DUAL, backend="tunnel")
    agent = Agent("node1", settings, Kernel(rig.host, rig.opener), caches_of(*cluster(1, 2)), peers=shared)
    await agent.start()
    await agent.network.add(rig.attachment("a"))
    assert not agent.ledger.refused
    dump = rig.host.objects.dump()
    assert "ip link add cbr0 up mtu 1450" in dump and dump.count("mtu 1450") == 2
    assert "10.244.2.0/24 dev tunnel0 proto 80 scope link metric 102" in dump
    other = Rig()
    theirs = Agent("node3", settings, Kernel(other.host, other.opener), caches_of(*cluster(2, 3)), peers=shared)
    await theirs.start()
    assert "10.244.2.0/24 dev tunnel0 proto 80 scope link metric 302" in other.host.objects.dump()
    found = Kernel(rig.host, rig.opener).read(agent.watcher.ownership).values()
    assert "tunnel0" in {value.name for value in found if isinstance(value, Link)}
    assert "tunnel0" in ownership(rig.settings.network).links, "an agent with another backend removes what this one made"


async def test_agents_of_a_process_hold_the_same_values_of_a_peer() -> None:
    shared, caches, held = PeerPlans(), caches_of(*cluster(1, 2, 3)), []
    for number in (1, 3):
        rig = Rig()
        agent = Agent(f"node{number}", rig.settings, Kernel(rig.host, rig.opener), caches, peers=shared)
        await agent.start()
        held.append(agent.ledger.desired.fragment(PeerKey("node2")))
    assert len(shared) == 3
    assert held[0] and all(held[1][identity] is value for identity, value in held[0].items())


def test_one_plan_of_a_peer_is_shared_by_all_nodes_for_which_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.BY_NAME, "tunnel", TUNNEL)
    plans, settings = PeerPlans(), config(DUAL)
    equal = msgspec.structs.replace(settings)
    peer, first, second = (node(number, DUAL) for number in (1, 2, 3))
    assert plans.plan(peer, first, DUAL, settings, NodeSettings()) is plans.plan(peer, second, DUAL, equal, NodeSettings())
    assert plans.plan(peer, first, (4,), settings, NodeSettings()) != plans.plan(peer, first, DUAL, settings, NodeSettings())
    tunnelled = msgspec.structs.replace(settings, backend="tunnel")
    metrics = {
        route.metric for route in plans.plan(peer, first, DUAL, tunnelled, NodeSettings()).values() if isinstance(route, Route)
    }
    others = {
        route.metric for route in plans.plan(peer, second, DUAL, tunnelled, NodeSettings()).values() if isinstance(route, Route)
    }
    assert (metrics, others) == ({201}, {301})
    assert len(plans) == 1, "one of each peer, whoever asks"
    plans.remove("node1")
    assert len(plans) == 0


def taking(mtu: str, number: int = 2, versions: tuple[int, ...] = DUAL) -> Node:
    """A node that says which packets it takes."""
    one = node(number, versions)
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, annotations={UNDERLAY_MTU: mtu}))


def mtus(peer: Node, settings: NetworkConfig, way: Backend) -> dict[int, int]:
    """IP version → the MTU of the route to the peer, of those that are planned."""
    planned = way.plan_peer(peer, node(1, DUAL), settings)
    return {v.destination.version: v.mtu for v in planned.values() if isinstance(v, Route) and v.kind == "unicast"}


def closed(peer: Node, settings: NetworkConfig, way: Backend) -> set[int]:
    """IP versions in which what is sent to the peer's pods is refused at once."""
    planned = way.plan_peer(peer, node(1, DUAL), settings)
    return {v.destination.version for v in planned.values() if isinstance(v, Route) and v.kind == "unreachable"}


@pytest.mark.parametrize(("way", "overhead"), [(host_gw.BACKEND, 0), (vxlan.BACKEND, 50), (cross_subnet.AUTO, 0)])
def test_routes_to_a_peer_that_takes_less_say_so(way: Backend, overhead: int) -> None:
    settings = config(DUAL)
    assert mtus(taking("1400"), settings, way) == {4: 1400 - overhead, 6: 1400 - overhead}
    assert mtus(taking("1500"), settings, way) == mtus(taking("9000"), settings, way) == {4: 0, 6: 0}, "that of the link"
    assert way.path_mtu(taking("1400"), node(1, DUAL), settings) == 1400 - overhead
    assert way.path_mtu(taking("9000"), node(1, DUAL), settings) == 1500 - overhead


@pytest.mark.parametrize("said", ["", "x", "-1", "67", "1e3", "٣٣٣٣", "9" * 5000])
def test_what_is_no_size_is_not_taken_for_one(said: str) -> None:
    assert mtus(taking(said), config(DUAL), host_gw.BACKEND) == {4: 0, 6: 0}


@pytest.mark.parametrize(("way", "overhead"), [(host_gw.BACKEND, 0), (vxlan.BACKEND, 50)])
def test_ipv6_is_not_sent_where_it_does_not_fit_and_all_else_goes_on(way: Backend, overhead: int) -> None:
    least = 1280 + overhead
    own = node(1, DUAL)
    for size, versions in ((least, {4, 6}), (least - 1, {4})):
        settings = msgspec.structs.replace(config(DUAL), mtu=size, backend=way.name)
        assert mtus(node(2, DUAL), settings, way).keys() == versions
        assert mtus(taking(str(size)), config(DUAL), way).keys() == versions
        assert closed(node(2, DUAL), settings, way) == closed(taking(str(size)), config(DUAL), way) == {4, 6} - versions
        assert way.pod_mtu(own, settings) == 1280, "or the kernel takes the addresses of IPv6 away"
        assert bool(ways.too_narrow(own, settings)) == (6 not in versions)
    only_ipv4 = msgspec.structs.replace(config((4,)), mtu=least - 1, backend=way.name)
    assert way.pod_mtu(node(1, (4,)), only_ipv4) == 1279
    assert not ways.too_narrow(node(1, (4,)), only_ipv4)


def test_a_tunnel_without_room_for_ipv6_has_no_address_of_it() -> None:
    planned = vxlan.BACKEND.plan_node(node(1, DUAL), msgspec.structs.replace(config(DUAL), mtu=1329))
    assert {v.ip.version for v in planned.values() if isinstance(v, Address)} == {4}
    assert not any("net.ipv6" in v.name for v in planned.values() if isinstance(v, Sysctl))

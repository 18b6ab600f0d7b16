"""The backend gre: an external device for each IP version of the underlay, and one route for each block of a peer."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.kernel.door import Kernel
from podplane.model.config import NetworkConfig
from podplane.model.objects import NodeStatus
from podplane.routes import gre
from podplane.state.mac import link_local_of
from podplane.state.network import Address, Encap, Fdb, Gre, Link, Neighbour, Route
from podplane.state.value import Value
from podplane.trace.evaluator import evaluate, reply
from podplane.trace.packet import Packet
from podplane.trace.trace import Delivered, Dropped, Forwarded, Unknown
from podplane.trace.world import join
from tests.fake_cluster import uplink
from tests.plans import FAMILIES, UNDERLAY, agent_settings, config, node
from tests.unit.agent.rig import DUAL, Rig, caches_of, cluster
from tests.unit.agent.test_node import until
from tests.unit.routes import test_vxlan
from tests.unit.routes.test_vxlan import only

ip, network = ipaddress.ip_address, ipaddress.ip_network


def settings(versions: tuple[int, ...] = DUAL, **fields: object) -> NetworkConfig:
    """Those of a cluster whose backend is gre."""
    return msgspec.structs.replace(config(versions), backend="gre", **fields)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_node_has_an_external_device_for_each_of_its_addresses_with_its_gateways_on_it(name: str) -> None:
    versions = FAMILIES[name]
    own = node(1, versions)
    planned = gre.BACKEND.plan_node(own, settings(versions, mtu=1400))
    links = {link.name: link for link in test_vxlan.of(Link, planned)}
    assert {link.name: (link.kind, link.mtu) for link in links.values()} == {
        gre.DEVICES[version]: ({4: "gre", 6: "ip6gre"}[version], 1400 - {4: 24, 6: 44}[version]) for version in versions
    }
    assert all(link.gre == Gre(external=True) and link.alias == "podplane" for link in links.values())
    for link in links:
        gateways = {str(a.ip) for a in test_vxlan.of(Address, planned) if a.link == link}
        assert gateways == {str(ipaddress.ip_network(block)[1]) for block in own.spec.pod_cidrs}
    assert set(links) <= gre.BACKEND.owns(settings()).links


def test_a_node_without_blocks_or_addresses_has_no_device() -> None:
    own = node(1, DUAL)
    assert gre.BACKEND.plan_node(msgspec.structs.replace(own, spec=type(own.spec)()), settings()) == {}
    assert gre.BACKEND.plan_node(msgspec.structs.replace(own, status=NodeStatus()), settings()) == {}


@pytest.mark.parametrize("name", FAMILIES)
def test_each_block_of_a_peer_is_a_route_to_its_address_by_a_gateway_of_its_own(name: str) -> None:
    versions = FAMILIES[name]
    own, peer = node(1, versions), node(2, versions)
    planned = gre.BACKEND.plan_peer(peer, own, settings(versions, permanent_neighbours=False))
    device = gre.DEVICES[versions[0]]
    gateways = {4: ip("10.244.2.1"), 6: link_local_of(gre.device_mac("node2"))}
    blocks = {block.version: block for block in map(network, peer.spec.pod_cidrs)}
    encap = Encap(remote=ip(peer.internal_ips[0]), hops=64)
    assert set(planned.values()) == {
        *(
            Route(destination=block, gateway=gateways[version], link=device, onlink=version == 4, encap=encap, protocol=80)
            for version, block in blocks.items()
        ),
        *(Neighbour(link=device, ip=gateways[version], mac="", protocol=80) for version in blocks),
    }


def test_a_peer_is_reached_by_an_ip_version_that_both_nodes_have() -> None:
    own, peer = node(1, DUAL), node(2, DUAL)
    assert gre.BACKEND.plan_peer(only(peer, 6), only(own, 4), settings()) == {}
    routes = test_vxlan.of(Route, gre.BACKEND.plan_peer(only(peer, 6, 4), own, settings()))
    assert {(route.link, str(route.encap.remote)) for route in routes if route.encap} == {
        ("podplane-gre6", UNDERLAY[6].format(11))
    }


async def dumps_of(*backends: str) -> list[list[str]]:
    """What the kernel of node1 holds with an agent of each of these backends in turn."""
    rig, caches, dumps = Rig(), caches_of(*cluster(1, 2)), []
    for backend in backends:
        agent = Agent("node1", agent_settings(DUAL, backend=backend), Kernel(rig.host, rig.opener), caches)
        await agent.start()
        assert not agent.ledger.refused
        await until(lambda: not agent.ledger.deviations)  # noqa: B023 — links are removed after an agent's start, in a thread
        sysctls = tuple(f"sysctl net.ipv{version}.conf.podplane-" for version in DUAL)
        dumps.append([line for line in rig.host.objects.dump().splitlines() if not line.startswith(sysctls)])
    return dumps


async def test_an_agent_takes_over_from_each_other_backend_both_ways() -> None:
    dumps = await dumps_of("gre", "host-gw", "gre", "vxlan", "gre")
    assert dumps[0] == dumps[2] == dumps[4]
    assert 'ip link add podplane-gre4 up mtu 1476 alias "podplane" type gre external' in dumps[0]
    assert 'ip link add podplane-gre6 up mtu 1456 alias "podplane" type ip6gre external' in dumps[0]
    encap = "encap ip id 0 src 0.0.0.0 dst 192.168.1.11 ttl 64 tos 0 via"
    gateway = link_local_of(gre.device_mac("node2"))
    assert f"10.244.2.0/24 {encap} 10.244.2.1 dev podplane-gre4 proto 80 onlink" in dumps[0]
    assert f"fd00:10:244:2::/64 {encap} {gateway} dev podplane-gre4 proto 80 metric 1024 pref medium" in dumps[0]
    assert "10.244.2.1 dev podplane-gre4 PERMANENT proto 80" in dumps[0]
    assert not any("podplane-gre" in line for line in dumps[1] + dumps[3])


async def planned_of(number: int) -> list[Value]:
    """All that node1 or node2 has, as its fake kernel has it."""
    rig = Rig()
    kernel = Kernel(rig.host, rig.opener)
    agent = Agent(f"node{number}", agent_settings(DUAL, backend="gre"), kernel, caches_of(*cluster(1, 2)))
    await agent.start()
    others = [value for value in uplink(number) if not isinstance(value, Link)]
    mine = [value for value in kernel.read(agent.watcher.ownership).values() if value.netns == ""]
    return [Link(name="lo"), Link(name="eth0", kind="bridge"), *others, *mine]


@pytest.mark.parametrize("version", DUAL)
async def test_a_packet_is_followed_through_the_tunnel_and_back(version: int) -> None:
    world = join({"node1": await planned_of(1), "node2": await planned_of(2)})
    mine, theirs = (ip({4: "10.244.{}.1", 6: "fd00:10:244:{}::1"}[version].format(number)) for number in (1, 2))
    trace = evaluate(world, Packet(source=mine, destination=theirs), "node1")
    assert isinstance(trace.end, Delivered) and trace.end.netns == "node2", trace
    assert "node1 transmit: by podplane-gre4, in GRE to 192.168.1.11 (podplane)" in str(trace)
    assert "node2 receive: by podplane-gre4 (podplane)" in str(trace)
    answer = reply(world, trace)
    assert isinstance(answer.end, Delivered) and answer.end.netns == "node1", answer


def tunnelled(link: Link, encap: Encap | None, *there: Value) -> object:
    """What becomes of a packet that a route sends into a tunnel."""
    here: list[Value] = [Link(name="eth0"), Address(link="eth0", ip=ip("192.0.2.1"), prefix_length=24), link]
    here += [Route(destination=network("10.9.0.0/16"), link=link.name, encap=encap, protocol=80)]
    other: list[Value] = [Link(name="eth0"), Address(link="eth0", ip=ip("192.0.2.2"), prefix_length=24), *there]
    world = join({"one": here, "two": other})
    return evaluate(world, Packet(source=ip("192.0.2.1"), destination=ip("10.9.0.1")), "one").end


def test_a_packet_that_the_tunnel_does_not_take_is_dropped_and_one_that_nobody_takes_leaves() -> None:
    device = Link(name="gre4", kind="gre", gre=Gre())
    away, near = Encap(remote=ip("192.0.2.9")), Encap(remote=ip("192.0.2.2"))
    assert tunnelled(device, away) == Forwarded("one", "gre4")
    nobody, nowhere = tunnelled(device, near), tunnelled(device, None, device)
    assert isinstance(nobody, Dropped) and nobody.by.text == "two takes no GRE"
    assert isinstance(tunnelled(device, near, msgspec.structs.replace(device, kind="ip6gre")), Dropped)
    assert isinstance(nowhere, Dropped) and nowhere.by.text == "no route says to whom gre4 sends it"
    theirs = tunnelled(Link(name="gre1", kind="gre", gre=Gre(external=False)), None)
    assert isinstance(theirs, Unknown) and theirs.why == "where the tunnel gre1 leads is not known"


def test_there_is_no_forwarding_entry() -> None:
    assert not test_vxlan.of(Fdb, gre.BACKEND.plan_peer(node(2, DUAL), node(1, DUAL), settings()))

"""Where probes of a peer go, and what a peer has whose routes are withdrawn."""

from __future__ import annotations

import msgspec
import pytest

from podplane.model.config import UNDERLAY_MTU
from podplane.model.paths import OVERLAY, UNDERLAY, Path
from podplane.routes import ways
from podplane.routes.targets import carried_in, paths
from podplane.routes.withdrawal import found_withdrawn, withdrawn
from podplane.state.network import Fdb, Neighbour, Route
from podplane.state.value import network_of
from tests.plans import config, node
from tests.unit.routes.test_subnets import FAR, HALF, HERE, NEAR, SUBNETS, settings

DUAL = (4, 6)


def test_host_gw_is_probed_over_each_ip_version_of_the_pods_and_the_address_that_carries_it() -> None:
    assert paths(NEAR, HERE, settings()) == (
        Path("node2", OVERLAY, "10.244.2.1", "host-gw", "192.168.1.11"),
        Path("node2", OVERLAY, "fd00:10:244:2::1", "host-gw", "fd00:192:168:1::b"),
        Path("node2", UNDERLAY, "192.168.1.11"),
        Path("node2", UNDERLAY, "fd00:192:168:1::b"),
    )


def test_a_tunnel_carries_both_ip_versions_over_one_address() -> None:
    assert paths(NEAR, HERE, settings(backend="vxlan")) == (
        Path("node2", OVERLAY, "10.244.2.1", "vxlan", "192.168.1.11"),
        Path("node2", OVERLAY, "fd00:10:244:2::1", "vxlan", "192.168.1.11"),
        Path("node2", UNDERLAY, "192.168.1.11"),
    )


def test_where_there_is_no_route_nothing_is_probed() -> None:
    parted = settings(*SUBNETS)
    assert paths(FAR, HERE, parted) == ()
    assert {path.version for path in paths(HALF, HERE, parted)} == {4}
    alien = msgspec.structs.replace(
        NEAR, metadata=msgspec.structs.replace(NEAR.metadata, annotations={"podplane.dev/backends": "bgp"})
    )
    assert paths(alien, HERE, parted) == ()
    assert paths(node(2, (6,)), node(1, (4,)), config((4,))) == ()


def test_auto_says_by_which_of_its_ways_a_peer_is_reached() -> None:
    parted = settings(*SUBNETS, backend="auto")
    assert {path.backend for path in paths(NEAR, HERE, parted)} == {"host-gw", ""}
    assert {path.backend for path in paths(FAR, HERE, parted)} == {"vxlan", ""}


def test_what_a_firewall_sees_of_a_backend() -> None:
    assert carried_in("vxlan", msgspec.structs.replace(settings(), vxlan_port=8472)) == "UDP port 8472"
    assert carried_in("gre", settings()) == "IP protocol 47 (GRE)"
    assert carried_in("host-gw", settings()) == carried_in("nobody's", settings()) == ""


@pytest.mark.parametrize("backend", ["host-gw", "vxlan", "gre"])
def test_withdrawn_routes_refuse_and_only_the_gateway_is_reached_as_before(backend: str) -> None:
    used = settings(backend=backend)
    way = ways.towards(NEAR, used)
    assert way is not None
    planned = way.plan_peer(NEAR, HERE, used)
    gone = withdrawn(planned, NEAR)
    routes = {str(one.destination): one for one in gone.values() if isinstance(one, Route)}
    before = {str(one.destination): one for one in planned.values() if isinstance(one, Route)}
    assert routes.keys() == before.keys() | {"10.244.2.1/32", "fd00:10:244:2::1/128"}
    for block, gateway in (("10.244.2.0/24", "10.244.2.1/32"), ("fd00:10:244:2::/64", "fd00:10:244:2::1/128")):
        assert (routes[block].kind, routes[block].link, routes[block].gateway) == ("unreachable", "", None)
        assert routes[block].identity == before[block].identity and routes[block].protocol == before[block].protocol
        assert msgspec.structs.replace(routes[gateway], destination=before[block].destination) == before[block]
    others = {identity: value for identity, value in planned.items() if isinstance(value, Neighbour | Fdb)}
    assert others.items() <= gone.items()


def test_an_agent_finds_what_one_before_it_withdrew() -> None:
    way = ways.towards(NEAR, settings())
    assert way is not None
    gone = withdrawn(way.plan_peer(NEAR, HERE, settings()), NEAR)
    own = Route(destination=next(iter(gone.values())).destination, kind="unreachable", protocol=80, netns="pod")  # type: ignore[union-attr,call-arg]
    assert found_withdrawn(gone.values(), [NEAR, FAR]) == {"node2"}
    assert found_withdrawn(way.plan_peer(NEAR, HERE, settings()).values(), [NEAR, FAR]) == frozenset()
    odd = msgspec.structs.replace(FAR, spec=msgspec.structs.replace(FAR.spec, pod_cidrs=("nonsense",)))
    assert found_withdrawn(gone.values(), [odd, NEAR]) == {"node2"}
    assert found_withdrawn([own], [NEAR]) == frozenset() and found_withdrawn(gone.values(), []) == frozenset()


@pytest.mark.parametrize("backend", ["host-gw", "vxlan", "gre"])
def test_a_block_that_is_closed_for_the_size_of_packets_is_not_taken_for_withdrawn(backend: str) -> None:
    used = settings(backend=backend)
    annotations = {**NEAR.metadata.annotations, UNDERLAY_MTU: "1270"}
    narrow = msgspec.structs.replace(NEAR, metadata=msgspec.structs.replace(NEAR.metadata, annotations=annotations))
    way = ways.towards(narrow, used)
    assert way is not None
    planned = way.plan_peer(narrow, HERE, used)
    assert {one.kind for one in planned.values() if isinstance(one, Route)} == {"unicast", "unreachable"}
    assert found_withdrawn(planned.values(), [narrow, FAR]) == frozenset()
    assert found_withdrawn(withdrawn(planned, narrow).values(), [narrow, FAR]) == {"node2"}


def test_a_peer_within_a_refused_prefix_of_another_is_not_taken_for_withdrawn() -> None:
    wide = Route(destination=network_of("10.244.0.0/16"), kind="unreachable", protocol=80)
    host = Route(destination=network_of("10.244.2.9/32"), link="eth0", protocol=80)
    assert found_withdrawn([wide, host], [NEAR, FAR]) == frozenset()


def test_blocks_that_are_routed_as_one_are_withdrawn_as_one() -> None:
    spec = msgspec.structs.replace(NEAR.spec, pod_cidrs=("10.244.3.0/24", "10.244.2.0/24"))
    large = msgspec.structs.replace(NEAR, spec=spec)
    way = ways.towards(large, settings())
    assert way is not None
    gone = withdrawn(way.plan_peer(large, HERE, settings()), large)
    routes = {str(one.destination): one.kind for one in gone.values() if isinstance(one, Route)}
    assert routes == {"10.244.2.0/23": "unreachable", "10.244.3.1/32": "unicast"}
    assert [path.ip for path in paths(large, HERE, settings()) if path.backend] == ["10.244.3.1"]
    assert found_withdrawn(gone.values(), [large]) == {"node2"}

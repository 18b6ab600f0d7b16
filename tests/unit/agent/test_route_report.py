"""What a node says of its routes."""

from __future__ import annotations

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.agent.route_report import routes
from podplane.kernel.door import Kernel
from podplane.model.answers import RouteStatus
from podplane.model.config import ROUTE_PROTOCOL, UNDERLAY_MTU
from podplane.state.network import Route
from podplane.state.operations import Operation
from podplane.state.value import network_of
from tests.plans import agent_settings
from tests.unit.agent.rig import DUAL, Rig, caches_of, cluster


async def described(backend: str, rig: Rig) -> list[RouteStatus]:
    """Of node1, in a cluster with another node."""
    agent = Agent("node1", agent_settings(DUAL, backend=backend), Kernel(rig.host, rig.opener), caches_of(*cluster(1, 2)))
    await agent.start()
    await agent.network.add(rig.attachment("a"))
    return await routes(agent.ledger)


async def test_routes_are_in_the_order_of_their_destinations_each_with_who_asked_for_it() -> None:
    found = await described("host-gw", Rig())
    assert [(one.destination, one.via, one.link, one.kind, one.wanted_by) for one in found] == [
        ("10.244.1.0/24", "", "", "unreachable", ["node/node1"]),
        ("10.244.1.2/32", "", "cbr0", "unicast", ["pod/default/a"]),
        ("10.244.2.0/24", "192.168.1.11", "eth0", "unicast", ["node/node2"]),
        ("fd00:10:244:1::/64", "", "", "unreachable", ["node/node1"]),
        ("fd00:10:244:1::2/128", "", "cbr0", "unicast", ["pod/default/a"]),
        ("fd00:10:244:2::/64", "fd00:192:168:1::11", "eth0", "unicast", ["node/node2"]),
    ]
    assert {(one.through, one.state) for one in found} == {("", "done")}


@pytest.mark.parametrize("backend", ["vxlan", "gre"])
async def test_a_route_through_a_tunnel_names_the_node_at_its_other_end(backend: str) -> None:
    found = {one.destination: one for one in await described(backend, Rig())}
    assert found["10.244.2.0/24"].through == found["fd00:10:244:2::/64"].through == "192.168.1.11"
    assert found["10.244.1.2/32"].through == ""


async def test_a_route_in_whose_place_there_is_somebody_elses_is_refused() -> None:
    rig = Rig()
    foreign = Route(destination=network_of("10.244.2.0/24"), link="eth0", protocol=ROUTE_PROTOCOL + 1)
    assert not Kernel(rig.host, rig.opener).apply([Operation(None, foreign)]).failed
    found = {one.destination: one.state for one in await described("host-gw", rig)}
    assert found["10.244.2.0/24"] == "refused" and found["fd00:10:244:2::/64"] == "done"


async def test_a_route_that_refuses_says_whether_it_is_withdrawn_or_closed_to_what_the_network_carries() -> None:
    rig, (own, narrow, dead) = Rig(), cluster(1, 2, 3)
    annotations = {**narrow.metadata.annotations, UNDERLAY_MTU: "1270"}
    narrow = msgspec.structs.replace(narrow, metadata=msgspec.structs.replace(narrow.metadata, annotations=annotations))
    agent = Agent("node1", agent_settings(DUAL), Kernel(rig.host, rig.opener), caches_of(own, narrow, dead))
    await agent.start()
    agent.withdraw_routes(frozenset({"node3"}))
    await agent.reconcile()
    found = {one.destination: (one.kind, one.withdrawn) for one in await routes(agent.ledger, agent.view.withdrawn)}
    assert found["10.244.2.0/24"] == ("unicast", []) and found["fd00:10:244:2::/64"] == ("unreachable", [])
    assert found["10.244.3.0/24"] == found["fd00:10:244:3::/64"] == ("unreachable", ["node3"])
    assert found["10.244.3.1/32"] == ("unicast", [])

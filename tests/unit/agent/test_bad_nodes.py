"""Nodes that say what can't be, or what others have: it is left out and told, and all else is planned, by each backend."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
import pytest

from podplane.agent.keys import NodeKey, PeerKey
from podplane.model.config import UNDERLAY_MAC
from podplane.model.objects import Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus
from podplane.routes.table import NAMES
from podplane.state.network import Neighbour, Route
from tests.plans import agent_settings, node
from tests.unit.agent.rig import DUAL, Rig

ALL = pytest.mark.parametrize("backend", NAMES)


def rig_of(backend: str = "host-gw") -> Rig:
    rig = Rig()
    rig.settings = agent_settings(DUAL, backend=backend, service_cidrs=("10.96.0.0/12",))
    rig.new_agent()
    return rig


def saying(
    number: int, blocks: Sequence[str] = (), ips: Sequence[str] = (), since: str = "", *, is_ready: bool = False
) -> Node:
    """Node `number` with other blocks or addresses than it has."""
    one = node(number, DUAL)
    metadata = msgspec.structs.replace(one.metadata, creation_timestamp=since or f"2026-01-0{number}T00:00:00Z")
    spec = NodeSpec(pod_cidrs=tuple(blocks)) if blocks else one.spec
    addresses = tuple(NodeAddress("InternalIP", ip) for ip in ips) if ips else one.status.addresses
    return Node(metadata, spec, NodeStatus(addresses, (NodeCondition("Ready", "True" if is_ready else "False"),)))


def routes(rig: Rig, number: int) -> set[str]:
    """Destinations of what leads to the pods of a peer."""
    wanted = rig.agent.ledger.desired.fragment(PeerKey(f"node{number}")).values()
    return {str(one.destination) for one in wanted if isinstance(one, Route)}


def told(rig: Rig) -> list[str]:
    return rig.agent.planner.unmet_of((NodeKey, PeerKey))


@ALL
async def test_of_two_nodes_with_one_address_the_elder_is_reached_until_it_goes(backend: str) -> None:
    rig, elder, younger = rig_of(backend), saying(2, ips=["192.168.1.50"]), saying(3, ips=["192.168.1.50"])
    await rig.start(saying(1), younger, elder, saying(4))
    why = "node3: the address 192.168.1.50 is that of node2, too: left out"
    assert routes(rig, 2) and routes(rig, 4) == set(node(4, DUAL).spec.pod_cidrs) and not routes(rig, 3)
    assert told(rig) == [why] and [event[::2] for event in rig.events] == [("node/node3", why)]
    assert not rig.agent.ledger.refused and not rig.agent.planner.blocked
    rig.remove(elder)
    await rig.settle()
    assert routes(rig, 3) and not told(rig)


@ALL
async def test_of_two_nodes_with_one_block_one_has_it_and_the_others_pods_are_told_of(backend: str) -> None:
    rig = rig_of(backend)
    await rig.start(saying(1), saying(2, ["10.244.8.0/24"]), saying(3, ["10.244.8.0/24"]), saying(4, ["10.244.8.0/23"]))
    assert [routes(rig, number) for number in (2, 3, 4)] == [{"10.244.8.0/24"}, set(), set()]
    assert told(rig) == [
        "node3: the block 10.244.8.0/24 is that of node2, too: left out",
        "node4: the block 10.244.8.0/23 overlaps node2's block 10.244.8.0/24: left out",
    ]


async def test_a_block_that_the_settings_leave_out_is_not_routed_and_its_node_is_told() -> None:
    rig, why = rig_of(), "the block 172.20.5.0/24 is of another network"
    rig.settings = agent_settings(DUAL, left_out=(("172.20.5.0/24", why),))
    rig.new_agent()
    await rig.start(saying(1), saying(2), saying(3, ["172.20.5.0/24", "fd00:10:244:3::/64"]))
    assert routes(rig, 3) == {"fd00:10:244:3::/64"} and routes(rig, 2) == set(node(2, DUAL).spec.pod_cidrs)
    assert told(rig) == [f"node3: {why}: left out"]
    assert [event[::2] for event in rig.events] == [("node/node3", f"node3: {why}: left out")]


@ALL
async def test_a_node_that_lies_about_further_addresses_takes_no_routes_of_others(backend: str) -> None:
    rig, theirs = rig_of(backend), [one.address for number in (5, 6) for one in node(number, DUAL).status.addresses]
    own = [one.address for one in node(2, DUAL).status.addresses]
    await rig.start(
        saying(1), saying(5), saying(6), saying(2, ips=[*own, *theirs, "10.244.5.7", "fd00:10:244:5::7"], is_ready=True)
    )
    assert [routes(rig, number) for number in (2, 5, 6)] == [set(node(number, DUAL).spec.pod_cidrs) for number in (2, 5, 6)]
    rig.put(saying(2, ips=["10.244.5.7"], is_ready=True))
    await rig.settle()
    assert routes(rig, 5) == set(node(5, DUAL).spec.pod_cidrs) and not routes(rig, 2)
    assert told(rig) == ["node2: the address 10.244.5.7 is in node5's block 10.244.5.0/24: left out"]


async def test_a_block_of_the_whole_cluster_takes_no_routes_of_others() -> None:
    rig, nodes = rig_of(), [saying(number) for number in range(3, 8)]
    await rig.start(saying(1), *nodes, saying(2, ["10.244.0.0/16"], is_ready=True))
    assert all(len(routes(rig, number)) == 2 for number in range(3, 8)) and not routes(rig, 2)
    assert told(rig) == ["node2: the block 10.244.0.0/16 overlaps node1's block 10.244.1.0/24: left out"]


async def test_a_machine_that_was_replaced_is_reached_though_its_former_node_is_there() -> None:
    rig, former, now = rig_of(), saying(2, ips=["192.168.1.50"], is_ready=True), saying(3, ips=["192.168.1.50"], is_ready=True)
    await rig.start(saying(1), former, now)
    assert routes(rig, 2) and not routes(rig, 3)
    rig.put(saying(2, ips=["192.168.1.50"]))
    await rig.settle()
    assert not routes(rig, 2) and routes(rig, 3)


@ALL
@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("0.0.0.0/0", "holds every address"),
        ("192.168.0.0/16", "holds its own address 192.168.1.11"),
        ("127.0.0.0/24", "holds loopback addresses"),
        ("224.0.0.0/24", "holds multicast addresses"),
        ("169.254.7.0/24", "holds link-local addresses"),
        ("10.97.0.0/24", "overlaps 10.96.0.0/12, which is for Services"),
        ("10.244.9.1/24", "has bits behind its prefix"),
        ("nonsense", "is no network"),
    ],
)
async def test_a_block_that_can_not_be_one_is_left_out_and_the_others_of_the_node_are_not(
    backend: str, block: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = rig_of(backend)
    with caplog.at_level(logging.ERROR):
        await rig.start(saying(1), saying(2, [block, "fd00:10:244:2::/64"]), saying(3))
    assert routes(rig, 2) == {"fd00:10:244:2::/64"} and len(routes(rig, 3)) == 2
    assert told(rig) == [f"node2: the block {block} {why}: left out"]
    assert not caplog.records, "no traceback"


@ALL
@pytest.mark.parametrize("ip", ["", "node2.example", "127.0.0.1", "224.0.0.5", "169.254.1.1", "::1", "ff02::1", "fe80::1%eth0"])
async def test_an_address_that_can_not_be_one_is_left_out(backend: str, ip: str, caplog: pytest.LogCaptureFixture) -> None:
    rig = rig_of(backend)
    with caplog.at_level(logging.ERROR):
        await rig.start(saying(1), saying(2, ips=[ip, "192.168.1.11"]), saying(3, ips=[ip]))
    assert "10.244.2.0/24" in routes(rig, 2) and not routes(rig, 3)
    assert [why.partition(":")[0] for why in told(rig)] == ["node2", "node3"] and all(repr(ip) in why for why in told(rig))
    assert not caplog.records, "no traceback"


@pytest.mark.parametrize(
    ("mac", "why"),
    [
        ("ff:ff:ff:ff:ff:ff", "is that of a group, not of one interface"),
        ("01:00:5e:00:00:01", "is that of a group, not of one interface"),
        ("00:00:00:00:00:00", "is that of no interface"),
        ("eth0", "is no MAC address, as in 0a:58:0a:f4:01:02"),
    ],
)
@pytest.mark.parametrize("backend", ["host-gw", "vxlan"])
async def test_a_mac_that_no_interface_can_have_is_left_out_and_the_node_is_asked_for_it(
    backend: str, mac: str, why: str
) -> None:
    rig, bad = rig_of(backend), saying(2)
    metadata = msgspec.structs.replace(bad.metadata, annotations={UNDERLAY_MAC: mac})
    await rig.start(saying(1), msgspec.structs.replace(bad, metadata=metadata), saying(3))
    permanent = {
        number: [one for one in rig.agent.ledger.desired.fragment(PeerKey(f"node{number}")).values() if _is_of_uplink(one)]
        for number in (2, 3)
    }
    assert len(routes(rig, 2)) == 2 and not permanent[2] and len(permanent[3]) == 2
    assert told(rig) == [f"node2: the MAC {mac!r} {why}: left out"]


def _is_of_uplink(value: object) -> bool:
    return isinstance(value, Neighbour) and value.link == "eth0"


async def test_a_node_with_nothing_but_nonsense_of_its_own_harms_no_host(caplog: pytest.LogCaptureFixture) -> None:
    rig = rig_of()
    before = rig.host.objects.dump()
    with caplog.at_level(logging.ERROR):
        await rig.start(saying(1, ["0.0.0.0/0", "10.96.0.0/16", "192.168.1.0/24"]), saying(2))
    assert "0.0.0.0/0" not in rig.host.objects.dump().replace(before, "") and "unreachable" not in rig.host.objects.dump()
    assert len(told(rig)) == 1 and told(rig)[0].startswith("node1: the block 0.0.0.0/0 holds every address; ")
    assert "no pod block of node node1 can be one" in rig.agent.view.why_no_pods
    assert not caplog.records


async def test_its_own_block_is_a_nodes_own_whoever_else_says_so() -> None:
    rig, own = rig_of(), saying(1, since="2026-02-01")
    await rig.start(own, saying(2, own.spec.pod_cidrs), saying(3, ips=["10.244.1.9"]))
    assert rig.agent.view.node == own and not routes(rig, 2) and not routes(rig, 3)
    assert told(rig)[1:] == ["node3: the address 10.244.1.9 is in node1's block 10.244.1.0/24: left out"]


async def test_in_a_large_cluster_few_nodes_write_the_event() -> None:
    rig = rig_of()
    rig.agent.view.node_name = "node9"
    rig.agent._own_node._view.node_name = "node9"
    await rig.start(*map(saying, (2, 4, 5, 6, 9)), saying(3, ips=["192.168.1.11"]))
    assert told(rig) and not rig.events

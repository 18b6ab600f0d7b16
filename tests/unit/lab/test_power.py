"""A machine that boots: where it is in the network then."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from podplane.ipam.plan import Plan
from podplane.lab.faults.arguments import Boot, FaultError
from podplane.lab.power import Power
from podplane.lab.underlay import Place, usual_place

CLUSTER, SERVICE = ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_network("10.96.0.0/16")


class Network:
    """A fabric of three nodes, whose kernel is not asked."""

    def __init__(self, node: str, subnets: int) -> None:
        self.plan = Plan((CLUSTER,), (SERVICE,), (ipaddress.ip_network(node),), subnets=subnets)
        self.places = {f"node{number}": usual_place(self.plan, number) for number in (1, 2, 3)}

    def plug(self, name: str, namespace: object, place: Place) -> str:
        self.places[name] = place
        return f"machine of {name}"


def boot(network: Network, name: str, **wanted: bool) -> Place:
    """Boot a machine, for which that was chosen; where it is."""
    log: list[object] = []
    sandboxes: dict[str, Any] = {}

    async def make() -> Any:
        return SimpleNamespace(namespace="netns")

    async def register(place: Place) -> Mapping[str, Any]:
        log.append(place)
        return {"of": place}

    async def begin(*words: object) -> None:
        log.append(words)

    fabric: Any = network
    nobody: Any = None
    node: Any = SimpleNamespace(name=name)
    power = Power(network.plan, fabric, nobody, sandboxes, make, register, begin)
    power.choose(name, Boot(**wanted))
    place = asyncio.run(power.boot(node))
    assert not power.chosen
    assert log == [place, (name, f"machine of {name}", {"of": place})] and network.places[name] == place
    assert sandboxes[name].namespace == "netns"
    return place


def test_it_is_where_it_was_unless_something_else_is_asked_for() -> None:
    network = Network("192.168.1.0/24", 1)
    was = network.places["node2"]
    assert boot(network, "node2") == was
    with_mac = boot(network, "node2", new_mac=True)
    assert with_mac.ips == was.ips and with_mac.mac != was.mac
    assert int(with_mac.mac[:2], 16) & 3 == 2, "given by no maker, and of one station"
    moved = boot(network, "node2", new_ip=True)
    assert (moved.mac, moved.number) == (with_mac.mac, 2)
    assert moved.ips == network.plan.node_ips(4), "the first that no node has"
    assert boot(network, "node2") == moved
    assert boot(network, "node2", new_ip=True).ips == network.plan.node_ips(5)
    assert boot(network, "node1", new_ip=True).ips == network.plan.node_ips(4)


def test_another_address_is_of_the_same_subnet() -> None:
    network = Network("192.168.1.0/24", 2)
    moved = boot(network, "node2", new_ip=True)
    assert moved.ips[0] in network.plan.subnet(1)[0] and moved.ips not in [network.plan.node_ips(n) for n in (1, 2, 3)]


def test_where_no_address_is_free_it_is_said() -> None:
    network = Network("192.168.1.0/28", 1)
    moved = {boot(network, name, new_ip=True).ips for name in ("node1", "node2")}
    assert len(moved) == 2
    with pytest.raises(FaultError, match="no other address is free in the network of the nodes"):
        boot(network, "node3", new_ip=True)
    assert boot(network, "node3") == usual_place(network.plan, 3)


def test_two_without_power_are_not_to_have_one_address() -> None:
    network: Any = Network("192.168.1.0/28", 1)
    nothing: Any = None
    power = Power(network.plan, network, nothing, {}, nothing, nothing, nothing)
    for name in ("node1", "node2"):
        power.choose(name, Boot(new_ip=True))
    assert power.chosen["node1"].ips != power.chosen["node2"].ips
    with pytest.raises(FaultError, match="no other address is free"):
        power.choose("node3", Boot(new_ip=True))
    power.choose("node2", Boot())
    power.choose("node3", Boot(new_ip=True))

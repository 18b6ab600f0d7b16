"""What is wrong with the ways to peers, and how a node tells it."""

from __future__ import annotations

import random

import msgspec

from podplane.probes.problems import problems, sentence
from tests.unit.probes.test_table import BELOW, PODS, PODS6, Net


def told(net: Net, *, not_ready: tuple[str, ...] = (), withdrawn: tuple[str, ...] = (), takes: int = 0) -> list[str]:
    """The sentences."""
    carried = {"vxlan": "UDP port 4789"}
    found = problems(net.table, lambda backend: carried.get(backend, ""), not_ready, withdrawn, net.now, lambda peer: takes)
    assert all(one.peer == "node2" and one.is_not_ready == bool(not_ready) for one in found)
    return [sentence(one) for one in found]


def test_all_is_well_while_ways_are_reached_or_not_tried_yet() -> None:
    net = Net(PODS, PODS6, BELOW)
    assert told(net) == []
    net.run(10)
    assert told(net) == []


def test_a_tunnel_that_something_drops_is_told_with_its_port() -> None:
    net = Net(PODS, PODS6, BELOW)
    net.run(10)
    net.answers = lambda path, now: path == BELOW
    net.run(9)
    assert told(net) == ["node2 is not reached over vxlan, but over the underlay: is UDP port 4789 filtered?"]


def test_of_one_ip_version_that_is_told() -> None:
    net = Net(PODS, PODS6, BELOW)
    net.answers = lambda path, now: path != PODS6
    net.run(10)
    assert told(net) == ["node2 is not reached over vxlan by IPv6, but over the underlay: is UDP port 4789 filtered?"]


def test_a_node_that_is_not_reached_at_all() -> None:
    net = Net(PODS, BELOW)
    net.answers = lambda path, now: False
    net.run(10)
    assert told(net) == ["node2 is not reached over vxlan, nor over the underlay"]
    assert told(net, not_ready=("node2",), withdrawn=("node2",)) == [
        "node2 is not reached over vxlan, and is not ready: its routes are withdrawn"
    ]


def test_loss_is_told_when_it_is_certain() -> None:
    net = Net(PODS, BELOW)
    chance = random.Random(1)
    net.answers = lambda path, now: chance.random() > 0.2
    net.run(20)
    assert told(net) == []
    net.run(200)
    (line,) = told(net)
    assert line.endswith("% of the probes to node2 are lost over vxlan")


def test_what_was_lost_once_is_not_told_for_minutes() -> None:
    net = Net(PODS, BELOW)
    net.run(70)
    for seconds in (1.5, 20.0):  # a few probes; and until the way is lost
        net.answers = lambda path, now: False
        net.run(seconds)
        net.answers = lambda path, now: True
        net.run(5)
        assert told(net) == []
        net.run(100)
        assert told(net) == []


def test_without_a_tunnel_packets_of_pods_may_be_dropped() -> None:
    direct = msgspec.structs.replace(PODS, backend="host-gw")
    net = Net(direct, BELOW)
    net.answers = lambda path, now: path == BELOW
    net.run(9)
    assert told(net) == [
        "node2 is not reached over host-gw, but over the underlay: are packets with addresses of pods dropped on the way?"
    ]


def test_of_a_peer_that_says_that_it_takes_small_packets_only_that_is_told() -> None:
    net = Net(PODS, BELOW)
    net.answers = lambda path, now: path == BELOW
    net.run(10)
    assert told(net, takes=68) == [
        "node2 is not reached over vxlan: its Node says that it takes packets of at most 68 bytes (podplane.dev/underlay-mtu)"
    ]

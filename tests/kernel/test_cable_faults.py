"""What goes wrong on the cable of a node, by packets between machines of a lab's network, which has two subnets."""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import socket
import time
from collections.abc import Iterable

import pytest

from podplane.ipam.plan import Plan
from podplane.kernel.namespace import Namespace, NetworkNamespace, Workers
from podplane.lab import underlay
from podplane.lab.fabric import Fabric
from podplane.lab.faults import cable, foreign
from podplane.lab.faults.arguments import Loss, loss_of, port_of
from podplane.lab.underlay import UPLINK
from podplane.state.mac import mac_of
from podplane.state.network import Neighbour
from podplane.state.operations import Operation
from podplane.state.value import IPAddress

pytestmark = pytest.mark.kernel
NODES = 5
"""node1, node3 and node5 are in one subnet, node2 and node4 in the other."""
GRE, IP_MTU_DISCOVER, DON_T_FRAGMENT = 47, 10, 2
"""IPPROTO_GRE; of ip(7), IP_PMTUDISC_DO."""
LATE_SECONDS, PATIENT_SECONDS = 0.2, 5.0
"""A packet that is not there after that does not come: it takes some microseconds; and on a machine that is busy, when it should come."""
Sort = tuple[int, str]
"""Port, kind of packet."""
UDP = 9, "udp"
Way = tuple[str, str, int, str, int]
"""Source, target, port, kind of packet, IP version."""
KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM, "gre": socket.SOCK_RAW}


class Network:
    """The machines of a lab without anything of Kubernetes."""

    def __init__(self) -> None:
        networks = [ipaddress.ip_network(text) for text in ("10.244.0.0/16", "fd00:244::/56", "10.96.0.0/16", "fd00:96::/112")]
        nodes = ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("fd00:1::/64")
        outside = ipaddress.ip_network("203.0.113.0/24"), ipaddress.ip_network("2001:db8::/64")
        self.plan = Plan((networks[0], networks[1]), (networks[2], networks[3]), nodes, outside, subnets=2)
        workers = Workers(1)
        self.outside, *machines = (NetworkNamespace.create(workers) for _ in range(1 + NODES))
        self.fabric = Fabric(self.plan, workers, self.outside, machines)
        for number in range(1, NODES + 1):
            self.meet(number)
            self.wait_for_carrier(number)

    def wait_for_carrier(self, number: int) -> None:
        """A link that came up just now sends nothing until the kernel has looked at its carrier, a second later at most (linkwatch)."""
        for way in (("gateway", f"node{number}"), (f"node{number}", "gateway")):
            assert any(self.passes_whole(*way, 100, LATE_SECONDS) for _ in range(50)), way

    def meet(self, number: int) -> None:
        """Have a node know the others of its subnet, as its agent would."""
        plan = self.plan
        others = [n for n in range(1, NODES + 1) if n != number and plan.subnet_of(n) == plan.subnet_of(number)]
        found = [(ip, mac_of(plan.node_ips(n)[0])) for n in others for ip in plan.node_ips(n)]
        values = [Neighbour(link=UPLINK, ip=ip, mac=mac) for ip, mac in found]
        report = self.fabric.nodes[f"node{number}"].kernel.apply([Operation(None, value) for value in values])
        assert not report.failed

    def place(self, name: str) -> tuple[Namespace, tuple[IPAddress, ...]]:
        """Namespace and addresses of a machine: of `node1`, `gateway` or `outside`."""
        if name == "gateway":
            return self.fabric.underlay.namespace, self.plan.underlay_gateways()
        if name == "outside":
            return self.outside, underlay.outside_ips(self.plan)
        return self.fabric.nodes[name].namespace, self.plan.node_ips(int(name.removeprefix("node")))

    def arrived(self, ways: Iterable[Way], packets: int, patience: float) -> list[int]:
        """How many of so many packets arrive by each of these ways, none later than so many seconds after the one before; of TCP, whether
        there is a connection."""
        with contextlib.ExitStack() as opened:
            listening = []
            for source, target, port, kind, version in ways:
                (here, _), (there, ips) = self.place(source), self.place(target)
                to = next(str(one) for one in ips if one.version == version), 0 if kind == "gre" else port
                family = socket.AF_INET if version == 4 else socket.AF_INET6
                make = functools.partial(socket.socket, family, KINDS[kind], GRE if kind == "gre" else 0)
                listener, sender = (opened.enter_context(place.run(make)) for place in (there, here))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(to)
                if kind == "tcp":
                    listener.listen()
                    sender.setblocking(False)
                    sender.connect_ex(to)
                else:
                    for _ in range(packets):
                        sender.sendto(b"x" * 8, to)
                listening.append(listener)
            time.sleep(LATE_SECONDS if patience == LATE_SECONDS else 0)
            return [_received(one, packets, 0.001 if patience == LATE_SECONDS else patience) for one in listening]

    def reach(self, one: str, other: str, *sorts: Sort, packets: int = 1) -> bool:
        """Do all packets arrive, in both directions, of both IP versions?"""
        found = self.arrived(_ways(one, other, sorts), packets, PATIENT_SECONDS)
        return all(count == packets for count in found)

    def are_parted(self, one: str, other: str, *sorts: Sort) -> bool:
        """Does none of them arrive?"""
        return not any(self.arrived(_ways(one, other, sorts), 1, LATE_SECONDS))

    def count(self, source: str, target: str, packets: int) -> int:
        """How many of so many packets of one machine arrive at another one."""
        return sum(self.arrived([(source, target, 9, "udp", 4)], packets, LATE_SECONDS))

    def passes_whole(self, source: str, target: str, size: int, patience: float = PATIENT_SECONDS) -> bool:
        """Does an IPv4 packet of so many bytes arrive, which nobody may fragment? OSError when it is not even sent."""
        (here, _), (there, ips) = self.place(source), self.place(target)
        make = functools.partial(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        with here.run(make) as sender, there.run(make) as listener:
            listener.bind((str(ips[0]), 9))
            sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DON_T_FRAGMENT)
            sender.sendto(bytes(size - 28), listener.getsockname())
            return _received(listener, 1, patience) == 1


def _ways(one: str, other: str, sorts: Iterable[Sort]) -> list[Way]:
    both = (one, other), (other, one)
    return [(a, b, *sort, version) for sort in sorts or (UDP,) for a, b in both for version in (4, 6)]


def _received(listener: socket.socket, most: int, patience: float) -> int:
    listener.settimeout(patience)
    for count in range(most):
        try:
            _ = listener.accept() if listener.type == socket.SOCK_STREAM else listener.recv(2000)
        except TimeoutError:
            return count
    return most


def test_an_isolated_node_reaches_no_other_node_but_the_gateway_and_the_world() -> None:
    """Whether the others are in its subnet or behind the router, and whether they reach each other."""
    network = Network()
    of = network.fabric.cable("node1")
    cable.set_up(of, "isolate", cable.isolated(of))
    assert network.are_parted("node1", "node3") and network.are_parted("node1", "node2")
    for one, other in (("node3", "node5"), ("node2", "node4"), ("node2", "node3"), ("node1", "gateway"), ("node1", "outside")):
        assert network.reach(one, other), (one, other)
    network.fabric.remake_uplink("node1")
    network.meet(1)
    network.wait_for_carrier(1)
    assert network.are_parted("node1", "node3") and network.reach("node1", "gateway")
    cable.lift(of, "isolate")
    assert network.reach("node1", "node3") and network.reach("node1", "node2")


@pytest.mark.parametrize(
    ("argument", "dropped", "passed"),
    [
        ("4789", [(4789, "udp"), (4789, "tcp")], [(4790, "udp"), (4790, "tcp"), (0, "gre")]),
        ("4789/udp", [(4789, "udp")], [(4789, "tcp"), (4790, "udp")]),
        ("gre", [(0, "gre")], [(4789, "udp"), (47, "udp")]),
    ],
)
def test_a_port_or_protocol_is_blocked_in_both_directions(argument: str, dropped: list[Sort], passed: list[Sort]) -> None:
    network = Network()
    of = network.fabric.cable("node1")
    cable.set_up(of, "block-port", cable.blocked_port(of, port_of(argument)))
    assert all(network.are_parted("node1", other, *dropped) for other in ("node3", "node2", "outside"))
    assert all(network.reach("node1", other, *passed) for other in ("node3", "node2"))
    assert network.reach("node3", "node2", *dropped)
    cable.lift(of, "block-port")
    assert network.reach("node1", "node3", *dropped)


def test_a_share_of_packets_is_lost_of_both_directions_or_of_one() -> None:
    """Of 400 packets, half are lost but for a hundred at most: that is ten standard deviations."""
    network = Network()
    of = network.fabric.cable("node1")

    def lost(source: str, target: str) -> int:
        return 400 - sum(network.count(source, target, packets=100) for _ in range(4))

    cable.set_up(of, "loss", cable.loss(of, loss_of("50%")))
    assert 100 < lost("node1", "node3") < 300 and 100 < lost("node3", "node1") < 300
    assert network.reach("node3", "node5", packets=100)
    cable.set_up(of, "loss", cable.loss(of, loss_of("50% --one-way")))
    assert 100 < lost("node1", "node3") < 300
    to_node = [("node3", "node1", 9, "udp", version) for version in (4, 6)]
    assert network.arrived(to_node, 100, PATIENT_SECONDS) == [100, 100]
    cable.set_up(of, "loss", cable.loss(of, Loss(1.0, one_way=True)))
    assert network.arrived(to_node, 100, PATIENT_SECONDS) == [100, 100]
    assert not network.count("node1", "node3", 100)
    cable.set_up(of, "loss", cable.loss(of, Loss(1.0)))
    assert network.are_parted("node1", "node3") and network.are_parted("node1", "gateway")
    cable.lift(of, "loss")
    assert network.reach("node1", "node3", packets=100)


def test_faults_of_several_sorts_and_nodes_are_in_force_at_once_and_lifted_one_by_one() -> None:
    network = Network()
    first, second = network.fabric.cable("node1"), network.fabric.cable("node3")
    cable.set_up(first, "loss", cable.loss(first, Loss(1.0)))
    cable.set_up(first, "block-port", cable.blocked_port(first, port_of("9/udp")))
    cable.set_up(second, "isolate", cable.isolated(second))
    cable.lift(first, "loss")
    assert network.are_parted("node1", "node5") and network.reach("node1", "node5", (10, "udp"))
    cable.lift(first, "block-port")
    assert network.reach("node1", "node5")
    assert network.are_parted("node3", "node5") and network.are_parted("node3", "node1")
    cable.lift(second, "isolate")
    cable.lift(second, "isolate")  # which is over
    assert network.reach("node3", "node5")


def test_an_mtu_is_that_of_the_node_or_of_the_network_behind_it() -> None:
    """What is too large for its own interface is refused on the node; what is too large for the network is lost, and nobody tells."""
    network = Network()
    of, own = network.fabric.cable("node1"), network.fabric.nodes["node1"].namespace
    ways = ("node1", "node3"), ("node3", "node1"), ("gateway", "node1")
    cable.set_mtu(of, 1400)
    for way in ways:
        assert network.passes_whole(*way, 1400), way
        assert not any(network.passes_whole(*way, size, LATE_SECONDS) for size in (1405, 1500)), way
    foreign.set_mtu(own, UPLINK, 1400)
    with pytest.raises(OSError, match=r"Message too long") as refused:
        network.passes_whole("node1", "node3", 1401)
    assert refused.value.errno == errno.EMSGSIZE
    cable.set_mtu(of, underlay.MTU)
    foreign.set_mtu(own, UPLINK, underlay.MTU)
    assert all(network.passes_whole(*way, 1500) for way in ways)


def test_an_mtu_too_small_for_ipv6_leaves_the_gateway_its_ipv6() -> None:
    """As the first that a port of its switch is given, too: the other nodes still reach it."""
    network = Network()
    cable.set_mtu(network.fabric.cable("node1"), 1200)
    assert network.reach("node3", "gateway")

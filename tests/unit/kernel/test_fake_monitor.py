"""A foreign hand in a fake namespace, and what the fake monitor says of it."""

from __future__ import annotations

import ipaddress
import select

import msgspec
import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeNamespace, FakeOpener
from podplane.kernel.parts import Monitor
from podplane.state.network import Address, Link, Neighbour, Peer, Proxy, Route, Rule
from podplane.state.operations import Changes, LinkEvent, Observation, Operation
from podplane.state.ownership import link_alias
from podplane.state.value import Value
from tests.plans import OWNER

ip, network = ipaddress.ip_address, ipaddress.ip_network
BRIDGE = Link(name="cbr0", kind="bridge", alias=link_alias())
PORT = Link(name="pp1", kind="veth", master="cbr0", alias=link_alias("pod/a/b"), peer=Peer(netns="pod/1", name="eth0"))
ADDRESS4 = Address(link="cbr0", ip=ip("10.1.0.1"), prefix_length=24)
ADDRESS6 = Address(link="cbr0", ip=ip("fd00::1"), prefix_length=64)
ROUTE4 = Route(destination=network("10.2.0.0/16"), link="cbr0", protocol=80)
ROUTE6 = Route(destination=network("fd02::/64"), link="cbr0", protocol=80)
NEIGHBOUR = Neighbour(link="cbr0", ip=ip("10.1.0.2"), mac="02:00:00:00:00:01", protocol=80)
RULE = Rule(priority=1, family=4, table=7, protocol=80)
PROXY = Proxy(link="cbr0", ip=ip("10.1.0.9"), protocol=80)
THINGS: list[Value] = [BRIDGE, PORT, ADDRESS4, ADDRESS6, ROUTE4, ROUTE6, NEIGHBOUR, RULE, PROXY]
NOTHING = Changes([], {}, False)


@pytest.fixture
def machine() -> tuple[FakeNamespace, Kernel, Monitor]:
    """A fake node with a thing of each kind, and nothing announced yet."""
    opener = FakeOpener()
    host = opener.namespace()
    kernel = Kernel(host, opener)
    kernel.attach("pod/1", opener.namespace())
    report = kernel.apply([Operation(None, value) for value in THINGS])
    assert not report.failed, [str(f) for f in report.failed]
    monitor = kernel.monitor(OWNER)
    return host, kernel, monitor


Machine = tuple[FakeNamespace, Kernel, Monitor]


def is_readable(monitor: Monitor) -> bool:
    return bool(select.select([monitor.fileno()], [], [], 0)[0])


@pytest.mark.parametrize("value", [ADDRESS6, ROUTE4, ROUTE6, NEIGHBOUR, RULE], ids=lambda value: str(value.identity))
def test_a_deletion_is_observed_once_and_what_we_put_back_is_not(machine: Machine, value: Value) -> None:
    host, kernel, monitor = machine
    assert not is_readable(monitor)
    host.delete(value)
    assert is_readable(monitor)
    assert monitor.changes() == Changes([Observation(value.identity, None)], {}, False)
    assert not kernel.apply([Operation(None, value)]).failed
    assert not is_readable(monitor) and monitor.changes() == NOTHING


def test_the_last_ipv4_address_of_a_link_takes_its_routes_silently(machine: Machine) -> None:
    host, kernel, monitor = machine
    host.delete(ADDRESS4)
    gone = [Observation(ADDRESS4.identity, None), Observation(NEIGHBOUR.identity, None)]
    assert monitor.changes() == Changes(gone, {"cbr0": LinkEvent(True, True, may_have_lost=True)}, False)
    left = kernel.read(OWNER)
    assert ROUTE4.identity not in left and ROUTE6.identity in left


def test_what_the_kernel_does_not_announce_is_not_observed(machine: Machine) -> None:
    host, _, monitor = machine
    host.delete(PROXY)
    host.put(Address(link="lo", ip=ip("fd09::1"), prefix_length=128))
    host.delete(Address(link="lo", ip=ip("fd09::1"), prefix_length=128))
    assert monitor.changes() == NOTHING


def test_a_replacement_is_observed_as_what_stands_there_now(machine: Machine) -> None:
    host, _, monitor = machine
    theirs = msgspec.structs.replace(ROUTE4, protocol=3)
    host.put(theirs)
    assert monitor.changes().observations == [Observation(ROUTE4.identity, theirs)]


def test_a_link_that_goes_down_is_named_and_its_ipv4_routes_vanish_silently(machine: Machine) -> None:
    host, kernel, monitor = machine
    host.set_link("cbr0", up=False)
    seen = monitor.changes()
    assert seen.links.keys() == {"cbr0"}
    gone = {one.identity for one in seen.observations if one.value is None}
    assert gone == {ROUTE6.identity, NEIGHBOUR.identity, ADDRESS6.identity}
    left = kernel.read(OWNER)
    assert ROUTE4.identity not in left and ADDRESS4.identity in left
    assert [f.operation.value for f in kernel.apply([Operation(None, ROUTE4)]).failed] == [ROUTE4]


def test_a_link_that_goes_takes_its_peer_and_frees_its_ports(machine: Machine) -> None:
    host, kernel, monitor = machine
    host.delete(BRIDGE)
    seen = monitor.changes()
    assert "cbr0" in seen.links
    observed = {one.identity: one.value for one in seen.observations}
    assert observed[BRIDGE.identity] is None and observed[ADDRESS4.identity] is None
    port = observed[PORT.identity]
    assert isinstance(port, Link) and port.master == ""
    assert "eth0" in str(kernel.read_namespace("pod/1").keys())
    host.delete(PORT)
    assert "eth0" not in str(kernel.read_namespace("pod/1").keys())


def test_a_peer_that_goes_down_takes_the_carrier(machine: Machine) -> None:
    _, kernel, monitor = machine
    kernel.apply([Operation(None, Link(netns="pod/1", name="eth0"))])
    monitor.changes()
    kernel.apply([Operation(None, Link(netns="pod/1", name="eth0", up=False))])
    assert monitor.changes().links.keys() == {"pp1"}


def test_our_own_links_are_announced(machine: Machine) -> None:
    _, kernel, monitor = machine
    changed = msgspec.structs.replace(BRIDGE, mtu=1300)
    kernel.apply([Operation(BRIDGE, changed)])
    assert monitor.changes() == Changes([Observation(BRIDGE.identity, changed)], {}, False)


def test_an_overflow_is_said_once(machine: Machine) -> None:
    host, _, monitor = machine
    host.delete(RULE)
    host.lose_changes()
    assert is_readable(monitor)
    assert monitor.changes() == Changes([], {}, True)
    assert monitor.changes() == NOTHING
    monitor.close()
    monitor.close()


def test_the_sysctl_watch_says_what_differs_and_what_is_not_there(machine: Machine) -> None:
    host, kernel, _ = machine
    expected = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.cbr0.disable_ipv6": "0", "net.ipv4.none": "1"}
    host.set_sysctl("net.ipv4.ip_forward", "1")
    watch = kernel.sysctl_watch(expected)
    assert watch.changed(expected) == {} and watch.unwatched == {"net.ipv4.none"}
    host.set_sysctl("net.ipv4.ip_forward", "0")
    assert watch.changed(expected) == {"net.ipv4.ip_forward": "0"}
    host.delete(BRIDGE)
    assert watch.changed(expected) == {"net.ipv4.ip_forward": "0"}
    assert watch.unwatched == {"net.ipv4.none", "net.ipv6.conf.cbr0.disable_ipv6"}

"""What the kernel announces of others' changes, as observations; and that our own changes are not announced to us."""

from __future__ import annotations

import ipaddress
import select
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.kernel.parts import Monitor
from podplane.model.config import ROUTE_PROTOCOL
from podplane.state.network import Address, Fdb, Link, Neighbour, Peer, Proxy, Route, Rule, Vxlan
from podplane.state.operations import Changes, LinkEvent, Observation, Operation
from podplane.state.ownership import link_alias
from podplane.state.value import Identity, Value
from tests.plans import OWNER

pytestmark = pytest.mark.kernel
MAC = "02:00:00:00:00:01"
ip, network = ipaddress.ip_address, ipaddress.ip_network

ROUTE4 = Route(destination=network("10.244.2.0/24"), gateway=ip("192.168.1.11"), link="eth0", protocol=ROUTE_PROTOCOL)
ROUTE6 = Route(destination=network("fd00:2::/64"), gateway=ip("fd00::11"), link="eth0", protocol=ROUTE_PROTOCOL)
NEIGHBOUR4 = Neighbour(link="eth0", ip=ip("192.168.1.11"), mac=MAC, protocol=ROUTE_PROTOCOL)
NEIGHBOUR6 = Neighbour(link="eth0", ip=ip("fd00::11"), mac=MAC, protocol=ROUTE_PROTOCOL)
ADDRESS4 = Address(link="cbr0", ip=ip("10.244.1.1"), prefix_length=24)
ADDRESS6 = Address(link="cbr0", ip=ip("fd00:1::1"), prefix_length=64)
RULE = Rule(priority=100, family=4, table=77, protocol=ROUTE_PROTOCOL)
FDB = Fdb(link="ppvx", mac=MAC, remote=ip("192.168.1.12"))
BRIDGE = Link(name="cbr0", kind="bridge", alias=link_alias(), mtu=1400)
PORT = Link(
    name="pp1",
    kind="veth",
    master="cbr0",
    hairpin=True,
    alias=link_alias("pod/default/web"),
    peer=Peer(name="far1"),
)
IPV6_ADDRESSES = 0x100  # RTMGRP_IPV6_IFADDR of linux/rtnetlink.h
TUNNEL = Link(name="ppvx", kind="vxlan", alias=link_alias(), vxlan=Vxlan(vni=7))
UNSIGNED = (ADDRESS6, FDB)
"""Notifications of these don't say who asked for the change (inet6_ifa_notify, vxlan_fdb_notify)."""
THINGS: list[Value] = [BRIDGE, PORT, TUNNEL, ADDRESS4, ADDRESS6, NEIGHBOUR4, NEIGHBOUR6, ROUTE4, ROUTE6, RULE, FDB]


def run(script: str) -> None:
    """Commands, a line each."""
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def put(kernel: Kernel, values: Iterable[Value]) -> None:
    """All these are there."""
    report = kernel.apply([Operation(None, value) for value in values])
    assert not report.failed, [str(f) for f in report.failed]


def machine() -> tuple[Kernel, Monitor]:
    """A node with a thing of each kind, and nothing announced yet.

    A worker of the kernel announces an IPv6 address (addrconf_dad_work), some time after it was added.
    """
    run("""
ip link set lo up
ip link add eth0 type bridge
ip address add 192.168.1.10/24 dev eth0
ip address add fd00::10/64 dev eth0 nodad
ip link set eth0 up
""")
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as announced:
        announced.bind((0, IPV6_ADDRESSES))
        announced.settimeout(10)
        put(kernel, THINGS)
        while ADDRESS6.ip.packed not in announced.recv(4096):
            pass
    monitor = kernel.monitor(OWNER)
    changes(monitor)
    return kernel, monitor


def changes(monitor: Monitor, first: float = 0.05) -> Changes:
    """All that is announced until nothing more comes; the first within so many seconds."""
    select.select([monitor.fileno()], [], [], first)
    observed: dict[Identity, Value | None] = {}
    links: dict[str, LinkEvent] = {}
    lost = settings = False
    while select.select([monitor.fileno()], [], [], 0.05)[0]:
        some = monitor.changes()
        observed |= {one.identity: one.value for one in some.observations}
        links |= {name: event.after(links.get(name)) for name, event in some.links.items()}
        lost |= some.lost
        settings |= some.settings
    return Changes([Observation(identity, value) for identity, value in observed.items()], links, lost, settings)


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("ip route delete 10.244.2.0/24", ROUTE4),
        ("ip -6 route delete fd00:2::/64", ROUTE6),
        ("ip neigh delete 192.168.1.11 dev eth0", NEIGHBOUR4),
        ("ip neigh delete fd00::11 dev eth0", NEIGHBOUR6),
        ("ip neigh change 192.168.1.11 dev eth0 nud reachable", NEIGHBOUR4),
        ("ip address delete 10.244.1.1/24 dev cbr0", ADDRESS4),
        ("ip address delete fd00:1::1/64 dev cbr0", ADDRESS6),
        ("ip rule delete priority 100", RULE),
        (f"bridge fdb delete {MAC} dev ppvx dst 192.168.1.12", FDB),
    ],
)
def test_what_somebody_deletes_is_observed_as_gone_and_what_we_put_back_is_not(command: str, value: Value) -> None:
    kernel, monitor = machine()
    run(command)
    assert changes(monitor).observations == [Observation(value.identity, None)]
    put(kernel, [value])
    expected = [Observation(value.identity, value)] if value in UNSIGNED else []
    assert changes(monitor, first=10 if expected else 0.05).observations == expected


@pytest.mark.parametrize(
    ("command", "value", "fields"),
    [
        ("ip route replace 10.244.2.0/24 via 192.168.1.12", ROUTE4, {"gateway": ip("192.168.1.12"), "protocol": 3}),
        ("ip -6 route replace fd00:2::/64 via fd00::12", ROUTE6, {"gateway": ip("fd00::12"), "protocol": 3}),
        ("ip neigh replace 192.168.1.11 lladdr 02:00:00:00:00:09 dev eth0 nud permanent", NEIGHBOUR4, {"mac": MAC[:-1] + "9"}),
    ],
)
def test_what_somebody_puts_in_our_place_is_observed(command: str, value: Value, fields: dict[str, object]) -> None:
    _, monitor = machine()
    run(command)
    theirs = msgspec.structs.replace(value, **fields)
    assert changes(monitor).observations == [Observation(value.identity, theirs)]


def test_changes_of_our_links_are_observed() -> None:
    kernel, monitor = machine()
    run("ip link set cbr0 mtu 1300\nbridge link set dev pp1 hairpin off\n")
    observed = {one.identity: one.value for one in changes(monitor).observations}
    bridge, port = observed[BRIDGE.identity], observed[PORT.identity]
    assert isinstance(bridge, Link) and (bridge.mtu, bridge.alias) == (1300, BRIDGE.alias)
    assert isinstance(port, Link) and (port.hairpin, port.alias) == (False, PORT.alias)
    run("ip link delete pp1\nip link add pp1 type bridge\n")
    observed = {one.identity: one.value for one in changes(monitor).observations}
    theirs = observed[PORT.identity]
    assert isinstance(theirs, Link) and (theirs.kind, theirs.alias) == ("bridge", "")
    assert PORT.identity not in kernel.read(OWNER)


def test_the_mtu_of_a_link_of_others_is_known_and_that_it_carries_more_is_news() -> None:
    _, monitor = machine()
    assert (monitor.mtu_of("eth0"), monitor.mtu_of("none")) == (1500, 0)
    run("ip link set eth0 mtu 1400")
    assert not any(event.came for event in changes(monitor).links.values())
    assert monitor.mtu_of("eth0") == 1400
    run("ip link set eth0 mtu 1500\nip link set cbr0 mtu 1500\n")
    assert {name for name, event in changes(monitor).links.items() if event.came} == {"eth0"}
    run("ip link delete eth0")
    changes(monitor)
    assert monitor.mtu_of("eth0") == 0


def test_links_that_go_down_lose_carrier_come_and_go_are_named() -> None:
    _, monitor = machine()
    run("ip link set far1 up")
    assert {"far1", "pp1"} <= changes(monitor).links.keys()
    run("ip link set far1 down")
    assert {"far1", "pp1"} <= changes(monitor).links.keys()
    run("ip link set eth0 down")
    down = changes(monitor)
    assert "eth0" in down.links
    gone = {one.identity for one in down.observations if one.value is None}
    assert {NEIGHBOUR4.identity, NEIGHBOUR6.identity, ROUTE6.identity} <= gone
    assert ROUTE4.identity not in gone  # the kernel announces nothing of it: so the link is named
    run("ip link delete eth0\nip link add eth0 type bridge\n")
    assert "eth0" in changes(monitor).links
    run("ip link set eth0 name eth9")
    assert {"eth0", "eth9"} <= changes(monitor).links.keys()


def test_a_link_that_loses_its_ipv4_address_is_named_since_its_routes_vanish_silently() -> None:
    kernel, monitor = machine()
    run("ip address delete 192.168.1.10/24 dev eth0")
    seen = changes(monitor)
    assert "eth0" in seen.links
    assert ROUTE4.identity not in {one.identity for one in seen.observations}
    assert ROUTE4.identity not in kernel.read(OWNER)


def test_a_link_of_others_is_named_when_it_has_an_address_that_can_be_used() -> None:
    """A tentative one is announced when nobody else has it."""
    _, monitor = machine()
    run("ip address add 192.168.1.70/24 dev eth0")
    assert changes(monitor).links["eth0"].has_address
    run("ip address add fd00::70/64 dev eth0 nodad")
    assert changes(monitor, first=10).links["eth0"].has_address


@pytest.mark.parametrize("network", ["192.168.2.0/24", "fd00:99::/64"])
def test_a_link_of_others_is_named_when_a_route_to_what_is_on_it_comes(network: str) -> None:
    """And the route is nothing that podplane has a say in."""
    _, monitor = machine()
    run(f"ip route add {network} dev eth0 proto kernel")
    seen = changes(monitor)
    assert seen.links["eth0"] == LinkEvent(True, True, has_network=True) and seen.observations == []
    gateway = "fd00::99" if ":" in network else "192.168.1.99"
    run(f"ip route delete {network}; ip route add {network} via {gateway}")
    assert "eth0" not in changes(monitor).links


def test_a_link_of_ours_that_is_renamed_or_loses_its_mark_is_ours_no_more() -> None:
    _, monitor = machine()
    run("ip link set far1 down\nip link set pp1 down\nip link set pp1 name other1\n")
    assert Observation(PORT.identity, None) in changes(monitor).observations
    run("ip link set ppvx alias theirs")
    changes(monitor)
    run("ip address add 10.50.0.1/24 dev ppvx")
    assert changes(monitor).observations == []


def test_a_route_that_somebody_replaced_by_one_of_another_type_is_observed_as_it_is() -> None:
    _, monitor = machine()
    run("ip route replace blackhole 10.244.2.0/24 proto 80")
    seen = msgspec.structs.replace(ROUTE4, kind="blackhole", gateway=None, link="")
    assert changes(monitor).observations == [Observation(ROUTE4.identity, seen)]


def test_a_static_entry_of_a_bridge_is_observed_as_it_comes_and_goes() -> None:
    _, monitor = machine()
    entry = Fdb(link="pp1", mac=MAC, master=True)
    run(f"bridge fdb add {MAC} dev pp1 master static")
    assert changes(monitor).observations == [Observation(entry.identity, entry)]
    run(f"bridge fdb delete {MAC} dev pp1 master")
    assert changes(monitor).observations == [Observation(entry.identity, None)]


@pytest.mark.parametrize("mode", ["learning", "flood", "hairpin", "isolated", "locked", "mcast_flood", "bcast_flood"])
def test_the_modes_of_a_port_that_somebody_changed_are_observed(mode: str) -> None:
    kernel, monitor = machine()
    field = {"mcast_flood": "multicast_flood", "bcast_flood": "broadcast_flood"}.get(mode, mode)
    before = kernel.read(OWNER)[Link(name="pp1").identity]
    for word, value in (("off", False), ("on", True)):
        run(f"bridge link set dev pp1 {mode} {word}")
        expected = msgspec.structs.replace(before, **{field: value})
        observed = changes(monitor).observations
        assert [one for one in observed if one.value != expected] == []
        before = expected
    run(f"bridge link set dev pp1 {mode} off")
    assert getattr(changes(monitor).observations[-1].value, field) is False


def test_of_many_notifications_of_a_port_at_once_the_last_ones_count() -> None:
    _, monitor = machine()
    run(f"""
bridge link set dev pp1 hairpin off
bridge link set dev pp1 learning off
ip link set pp1 mtu 1280
bridge link set dev pp1 isolated on
bridge fdb add {MAC} dev pp1 master static
bridge link set dev pp1 learning on
""")
    observed = {one.identity: one.value for one in changes(monitor).observations}
    port = observed[PORT.identity]
    assert isinstance(port, Link)
    assert (port.hairpin, port.learning, port.isolated, port.mtu) == (False, True, True, 1280)
    assert any(isinstance(value, Fdb) and value.link == "pp1" for value in observed.values())
    run("bridge link set dev pp1 isolated off\nip link delete pp1\nip link add pp1 type bridge\n")
    theirs = {one.identity: one.value for one in changes(monitor).observations}[PORT.identity]
    assert isinstance(theirs, Link) and theirs.kind == "bridge"


def test_nothing_comes_of_dynamic_neighbours_foreign_routes_and_learned_forwarding_entries() -> None:
    _, monitor = machine()
    run(
        "ip link set far1 up; for i in $(seq 500); do bridge link show dev pp1 | grep -q forwarding && exit; sleep 0.01; done; exit 1"
    )
    changes(monitor)
    run("""
ip neigh add 192.168.1.70 lladdr 02:00:00:00:00:70 dev eth0 nud reachable
ip neigh change 192.168.1.70 lladdr 02:00:00:00:00:71 dev eth0 nud stale
ip neigh delete 192.168.1.70 dev eth0
ip route add 10.70.0.0/16 via 192.168.1.1
ip route delete 10.70.0.0/16
bridge fdb add 02:00:00:00:00:72 dev pp1 master dynamic
bridge fdb delete 02:00:00:00:00:72 dev pp1 master
ip address add 192.168.1.70/24 dev eth0
""")
    assert changes(monitor).observations == []


def test_our_own_changes_are_announced_of_links_only() -> None:
    kernel, monitor = machine()
    others = [value for value in THINGS if not isinstance(value, Link) and value not in UNSIGNED]
    assert not kernel.apply([Operation(value, None) for value in others]).failed
    put(kernel, others)
    tentative = [
        one for one in others if isinstance(one, Address) and one.ip.version == 6
    ]  # the kernel tells when they no longer are
    assert [one for one in changes(monitor).observations if one.value not in tentative] == []
    second = msgspec.structs.replace(PORT, name="pp2", peer=Peer(name="far2"))
    put(kernel, [second])
    seen = changes(monitor)
    assert "pp2" in seen.links
    observed = {one.identity: one.value for one in seen.observations}[second.identity]
    assert observed is not None and kernel.matches(second, observed)


def test_another_kernel_door_is_somebody_else() -> None:
    kernel, monitor = machine()
    Kernel(CurrentNamespace(), KernelOpener()).apply([Operation(ROUTE4, None)])
    assert changes(monitor).observations == [Observation(ROUTE4.identity, None)]
    put(kernel, [ROUTE4])


@pytest.mark.parametrize("name", ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/eth0/rp_filter"])
def test_a_change_of_forwarding_or_of_a_filter_is_told(name: str) -> None:
    _, monitor = machine()
    path = Path("/proc/sys", name)
    path.write_text("0" if path.read_text().strip() == "1" else "1")
    assert changes(monitor).settings
    assert not changes(monitor).settings


def test_settings_of_a_new_link_are_no_change() -> None:
    kernel, monitor = machine()
    put(kernel, [msgspec.structs.replace(PORT, name="pp2", alias=link_alias("pod/default/two"), peer=Peer(name="far2"))])
    assert not changes(monitor).settings


def test_an_overflow_is_said_once_and_the_monitor_goes_on() -> None:
    kernel, monitor = machine()
    other = Kernel(CurrentNamespace(), KernelOpener())
    many = [msgspec.structs.replace(ROUTE4, destination=network(f"10.{100 + i // 250}.{i % 250}.0/24")) for i in range(12_000)]
    put(other, many)
    assert changes(monitor).lost
    run("ip link add late0 type bridge\nip link set eth0 down\n")
    assert {"late0", "eth0"} <= changes(monitor).links.keys()
    run("ip rule delete priority 100")
    after = changes(monitor)
    assert (after.observations, after.lost) == ([Observation(RULE.identity, None)], False)
    assert kernel.read(OWNER)


def test_a_pods_namespace_is_read_as_it_is() -> None:
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    pod = NetworkNamespace.create(Workers(1))
    kernel.attach("pod/1", pod)
    inside: list[Value] = [
        Link(netns="pod/1", name="lo"),
        Link(netns="pod/1", name="eth0"),
        Address(netns="pod/1", link="eth0", ip=ip("10.244.1.2"), prefix_length=24),
        Address(netns="pod/1", link="eth0", ip=ip("fd00:1::2"), prefix_length=64),
        Neighbour(netns="pod/1", link="eth0", ip=ip("10.244.1.1"), mac=MAC, protocol=ROUTE_PROTOCOL),
        Route(netns="pod/1", destination=network("0.0.0.0/0"), gateway=ip("10.244.1.1"), link="eth0", protocol=ROUTE_PROTOCOL),
        Route(netns="pod/1", destination=network("::/0"), gateway=ip("fd00:1::1"), link="eth0", protocol=ROUTE_PROTOCOL),
        Proxy(netns="pod/1", link="eth0", ip=ip("10.244.1.9"), protocol=ROUTE_PROTOCOL),
    ]
    veth = Link(name="pp1", kind="veth", alias=link_alias("pod/default/web"), peer=Peer(netns="pod/1", name="eth0"))
    put(kernel, [veth, *inside])
    found = kernel.read_namespace("pod/1")
    assert {value.identity for value in inside} <= found.keys()
    assert [value for value in inside if not kernel.matches(value, found[value.identity])] == []
    assert found.keys() - {value.identity for value in inside} <= {
        Address(netns="pod/1", link="lo", ip=ip("127.0.0.1"), prefix_length=8).identity,
        Address(netns="pod/1", link="lo", ip=ip("::1"), prefix_length=128).identity,
    }
    assert not any(identity[1] for identity in kernel.read(OWNER))

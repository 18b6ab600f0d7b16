"""Podplane among the things of others: whatever it does, theirs stay as they are, and what is in the way is named."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import subprocess

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.kernel.rtnl.conflicts import ForeignObject
from podplane.model.config import ROUTE_PROTOCOL
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Route, Rule, Vxlan
from podplane.state.operations import Operation, diff
from podplane.state.ownership import link_alias
from podplane.state.value import Value
from tests.plans import OWNER, agent_settings, node
from tests.unit.agent.rig import Object, caches_of, served

pytestmark = pytest.mark.kernel
VERSIONS = (4, 6)
MAC = "02:00:00:00:00:01"

MACHINE = """
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/default/accept_ra
echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ip link set lo up
ip link add eth0 type bridge
ip address add 192.168.1.10/24 dev eth0
ip address add fd00:192:168:1::10/64 dev eth0 nodad
ip link set eth0 up
"""
"""The uplink, and nothing else. It forwards: with that, the kernel makes anycast addresses."""

FOREIGN = """
ip link add ppp0 type bridge
ip link add pp4ee1f9aabf0a type veth peer name far0
ip link set ppp0 alias podplane.org
ip link add ppifb type ifb
ip link add pp0macvlan link eth0 type macvlan
ip link add ppvxlan type vxlan id 9 dstport 4799 local 192.168.1.10
ip link add docker0 type bridge
ip link set pp4ee1f9aabf0a master docker0
ip link set dev ppp0 up
ip link set dev docker0 up
ip link set dev ppvxlan up
ip link set dev pp4ee1f9aabf0a up
ip link set dev far0 up
ip address add 172.17.0.1/16 dev docker0
ip address add 10.99.0.1/24 dev ppp0
ip address add fd99::1/64 dev ppp0 nodad
ip address add 192.168.1.77/24 dev eth0
ip neigh add 192.168.1.1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
ip neigh add 192.168.1.99 lladdr 02:00:00:00:01:02 dev eth0 nud permanent
ip neigh add fd00:192:168:1::99 lladdr 02:00:00:00:01:02 dev eth0 nud permanent
ip neigh add 10.99.0.9 lladdr 02:00:00:00:01:03 dev ppp0 nud permanent protocol 4
ip neigh add proxy 192.168.1.200 dev eth0
ip -6 neigh add proxy fd00:192:168:1::200 dev eth0
ip route add default via 192.168.1.1
ip route add 10.244.9.0/24 via 192.168.1.1
ip route add 172.30.0.0/16 dev docker0 proto static table 90
ip route add blackhole 10.66.0.0/16
ip -6 route add fd00:10:244:9::/64 via fd00:192:168:1::1 proto bird
ip rule add from 172.30.0.0/16 lookup 90 priority 500
ip -6 rule add fwmark 7 lookup 90 priority 501
bridge fdb add 02:00:00:00:02:01 dev ppvxlan dst 192.168.1.12
bridge fdb add 02:00:00:00:02:02 dev pp4ee1f9aabf0a master static
nft add table ip podplane-nodes
nft add chain ip podplane-nodes postrouting { type nat hook postrouting priority 50 \\; }
nft add rule ip podplane-nodes postrouting ip daddr 192.0.2.1 accept comment podplane
nft add table bridge podplane-services
nft add table inet podplane
nft add set inet podplane nodes4 { type ipv4_addr \\; elements = { 192.0.2.1 } \\; }
"""

SHOW = """
ip -d link show
ip -d address show
ip -4 route show table all
ip -6 route show table all
ip neigh show nud permanent
ip -6 neigh show nud permanent
ip neigh show proxy
ip -6 neigh show proxy
ip rule show
ip -6 rule show
bridge fdb show
nft list ruleset
"""


def run(script: str) -> str:
    """Output of commands, a line each."""
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown() -> str:
    """Everything that the tools show, without what the kernel changes by itself."""
    return settled(run(SHOW))


def settled(text: str) -> str:
    """Without counters, what follows a carrier sooner or later, multicast groups that are joined then, and learned entries."""
    lines = [line for line in text.splitlines() if not re.match(r"33:33:|01:00:5e:", line)]
    lines = [line for line in lines if not re.match(r"[0-9a-f:]{17} dev .* master \S+ $", line)]
    moving = r"\b(\w+_lft|\w*timer|age|state|mcast_router)\s+\S+|,LOWER_UP|NO-CARRIER,|\btentative\b"
    return "\n".join(" ".join(re.sub(moving, "", line).split()) for line in lines)


def door() -> Kernel:
    """The kernel of this test's own network namespace."""
    return Kernel(CurrentNamespace(), KernelOpener())


def started(*objects: Object) -> Agent:
    """An agent of node1, which is this namespace, that has started in a cluster with these objects."""
    own = agent_settings(VERSIONS, service_cidrs=("10.96.0.0/16",))
    agent = Agent("node1", own, door(), caches_of(*objects))
    asyncio.run(agent.start())
    assert not agent.ledger.refused, [str(one.error) for one in agent.ledger.refused.values()]
    return agent


def create(*values: Value) -> list[str]:
    """Put values there; why some were refused."""
    return [str(f.error) for f in door().apply([Operation(None, value) for value in values]).failed]


def test_an_agent_that_starts_restarts_and_uninstalls_leaves_everything_foreign_as_it_was() -> None:
    run(MACHINE + FOREIGN)
    before = shown()
    objects: list[Object] = [node(number, VERSIONS) for number in (1, 2, 3)]
    objects += [one for number in (1, 2) for one in served(number, (2, 3))]
    for _ in range(2):
        agent = started(*objects)
    assert "cbr0" in shown()
    assert agent.writer.operations_applied == 0
    report = door().apply(diff(dict(agent.ledger.desired), {}))
    assert not report.failed, [str(f) for f in report.failed]
    started()
    assert shown() == before


CONTAINERS = """
ip link add docker0 type bridge
ip link set docker0 up
ip address add 172.17.0.1/16 dev docker0
ip address add fd00:172:17::1/64 dev docker0 nodad
for one in 2 3; do
    ip link add veth$one type veth peer name eth0 netns /proc/self/fd/$((one + 5))
    ip link set veth$one master docker0 up
    nsenter --net=/proc/self/fd/$((one + 5)) sh -ec "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
        ip link set eth0 up
        ip address add 172.17.0.$one/16 dev eth0
        ip address add fd00:172:17::$one/64 dev eth0 nodad"
done
"""


def test_containers_on_a_bridge_of_others_reach_each_other_and_the_node() -> None:
    run(MACHINE)
    workers = Workers(1)
    containers = [NetworkNamespace.create(workers) for _ in range(2)]
    fds = [os.dup2(one.fd, 7 + number, inheritable=True) for number, one in enumerate(containers)]
    done = subprocess.run(["sh", "-ec", CONTAINERS], capture_output=True, text=True, pass_fds=fds)
    assert not done.returncode, done.stderr
    started(node(1, VERSIONS), node(2, VERSIONS))
    for family, ips in (
        (socket.AF_INET, ("172.17.0.2", "172.17.0.3")),
        (socket.AF_INET6, ("fd00:172:17::2", "fd00:172:17::3")),
    ):
        one, other = (place.run(bound, family, ip) for place, ip in zip(containers, ips, strict=True))
        own = bound(family, ips[0][:-1] + "1")
        for sender, receiver in ((one, other), (other, one), (own, one), (other, own)):
            sender.sendto(b"x", receiver.getsockname())
            assert receiver.recvfrom(9)[1] == sender.getsockname()


def bound(family: socket.AddressFamily, ip: str) -> socket.socket:
    """A socket for datagrams, that waits for 2 s."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((ip, 9000))
    made.settimeout(2)
    return made


def test_a_foreign_link_with_a_name_of_ours_is_refused_and_named() -> None:
    run(MACHINE + "ip link add cbr0 type bridge\nip link add pp1 type veth peer name pp2\n")
    before = settled(run("ip -d link show"))
    bridge = Link(name="cbr0", kind="bridge", alias=link_alias(), mtu=1400)
    port = Link(name="pp1", kind="bridge", alias=link_alias("pod/default/web"))
    refused = create(bridge, port, Address(link="cbr0", ip=ipaddress.ip_address("10.1.0.1"), prefix_length=24))
    assert "create link cbr0: there is one that podplane did not make: ip link add cbr0 down" in refused[0]
    assert refused[0].endswith("remove it (ip link delete), or let podplane use another name")
    assert "create link pp1" in refused[1]
    assert refused[2] == refused[0]
    for operation in (Operation(bridge, msgspec.structs.replace(bridge, mtu=1300)), Operation(port, port)):
        report = door().apply([operation])
        assert [type(f.error) for f in report.failed] == [ForeignObject]
    assert not door().apply([Operation(bridge, None), Operation(port, None)]).failed
    assert settled(run("ip -d link show")) == before
    assert door().read(OWNER) == {}


def test_foreign_routes_neighbours_proxies_and_rules_in_our_place_are_refused_and_stay() -> None:
    run(MACHINE)
    run("""
ip route add 10.244.2.0/24 via 192.168.1.1
ip -6 route add fd00:10:244:2::/64 via fd00:192:168:1::1 proto static
ip neigh add 192.168.1.11 lladdr 02:00:00:00:09:09 dev eth0 nud permanent
ip -6 neigh add fd00:192:168:1::11 lladdr 02:00:00:00:09:09 dev eth0 nud noarp
ip neigh add proxy 192.168.1.50 dev eth0
ip rule add priority 100 from 10.0.0.0/8 lookup 90
""")
    before = shown()
    ip, network, place = ipaddress.ip_address, ipaddress.ip_network, {"link": "eth0", "protocol": ROUTE_PROTOCOL}
    wanted: list[Value] = [
        Route(destination=network("10.244.2.0/24"), gateway=ip("192.168.1.11"), **place),
        Route(destination=network("fd00:10:244:2::/64"), gateway=ip("fd00:192:168:1::11"), **place),
        Neighbour(ip=ip("192.168.1.11"), mac=MAC, **place),
        Neighbour(ip=ip("fd00:192:168:1::11"), mac=MAC, **place),
        Proxy(ip=ip("192.168.1.50"), **place),
        Rule(priority=100, family=4, table=77, source=network("10.0.0.0/8"), protocol=ROUTE_PROTOCOL),
    ]
    refused = door().apply([Operation(None, value) for value in wanted]).failed
    assert {f.operation.value for f in refused} == set(wanted)
    assert {type(f.error) for f in refused} == {ForeignObject}
    text = {f.operation.value: str(f.error) for f in refused}
    assert "10.244.2.0/24 via 192.168.1.1 dev eth0 proto 3" in text[wanted[0]]
    assert "192.168.1.11 dev eth0 lladdr 02:00:00:00:09:09" in text[wanted[2]]
    changed = [msgspec.structs.replace(v, mac="02:00:00:00:00:02") for v in wanted if isinstance(v, Neighbour)]
    changed_routes = [msgspec.structs.replace(v, mtu=1400) for v in wanted if isinstance(v, Route)]
    changes = [Operation(old, new) for old, new in zip([*wanted[2:4], *wanted[:2]], [*changed, *changed_routes], strict=True)]
    assert {type(f.error) for f in door().apply(changes).failed} == {ForeignObject}
    assert shown() == before
    assert not door().apply([Operation(value, None) for value in wanted]).failed
    assert shown() == before


def test_a_neighbour_that_the_kernel_found_out_by_itself_gives_way() -> None:
    run(MACHINE + "ip neigh add 192.168.1.11 lladdr 02:00:00:00:09:09 dev eth0 nud stale\n")
    wanted = Neighbour(link="eth0", ip=ipaddress.ip_address("192.168.1.11"), mac=MAC, protocol=ROUTE_PROTOCOL)
    assert create(wanted) == []
    assert door().read(OWNER) == {wanted.identity: wanted}


def test_creating_what_is_there_as_wanted_is_done_and_what_differs_is_refused() -> None:
    run(MACHINE)
    ip = ipaddress.ip_address
    bridge = Link(name="cbr0", kind="bridge", mtu=1400, alias=link_alias())
    values: list[Value] = [
        bridge,
        Link(name="ppvx", kind="vxlan", vxlan=Vxlan(vni=7, device="eth0"), alias=link_alias()),
        Address(link="cbr0", ip=ip("10.1.0.1"), prefix_length=24),
        Neighbour(link="cbr0", ip=ip("10.1.0.2"), mac=MAC, protocol=ROUTE_PROTOCOL),
        Route(destination=ipaddress.ip_network("10.2.0.0/16"), link="cbr0", protocol=ROUTE_PROTOCOL),
        Fdb(link="ppvx", mac=MAC, remote=ip("192.168.1.11")),
        Fdb(link="ppvx", mac="00:00:00:00:00:00", remote=ip("192.168.1.11")),
        Fdb(link="ppvx", mac="00:00:00:00:00:00", remote=ip("192.168.1.12")),
        Rule(priority=100, family=6, table=77, mark=3, protocol=ROUTE_PROTOCOL),
        Proxy(link="eth0", ip=ip("192.168.1.50"), protocol=ROUTE_PROTOCOL),
    ]
    assert create(*values) == []
    assert create(*values) == []
    found = door().read(OWNER)
    assert set(found) == {v.identity for v in values}
    different: list[Value] = [
        msgspec.structs.replace(bridge, mtu=1300),
        msgspec.structs.replace(values[3], mac="02:00:00:00:00:02"),
        msgspec.structs.replace(values[4], mtu=1300),
        msgspec.structs.replace(values[8], table=78),
        Fdb(link="ppvx", mac=MAC, remote=ip("192.168.1.12")),
    ]
    assert len(create(*different)) == len(different)
    assert door().read(OWNER) == found


def test_a_rule_that_changes_takes_the_place_of_the_old_one() -> None:
    old = Rule(priority=100, family=4, table=77, protocol=ROUTE_PROTOCOL)
    new = msgspec.structs.replace(old, table=78)
    assert create(old) == []
    assert not door().apply([Operation(old, new)]).failed
    assert [line for line in run("ip rule show").splitlines() if line.startswith("100:")] == [
        "100:\tfrom all lookup 78 proto 80"
    ]


def test_what_the_kernel_cannot_change_is_made_anew_and_said() -> None:
    run(MACHINE)
    bridge = Link(name="cbr0", kind="bridge", alias=link_alias())
    old = Link(name="ppvx", kind="vxlan", mtu=1450, vxlan=Vxlan(vni=7, device="eth0", port=4790), alias=link_alias())
    on_it = Address(link="ppvx", ip=ipaddress.ip_address("10.1.0.1"), prefix_length=24)
    assert create(bridge, old, on_it) == []
    kernel = door()
    assert kernel.matches(old, kernel.read(OWNER)[old.identity])
    for vxlan in (
        Vxlan(vni=8, device="eth0", port=4790),
        Vxlan(vni=8, device="eth0", port=4791),
        Vxlan(vni=8, device="eth0", port=4791, learning=True),
        Vxlan(vni=8, device="cbr0", port=4791, learning=True),
        Vxlan(vni=8, device="cbr0", port=4791, learning=True, local=ipaddress.ip_address("192.168.1.10")),
        Vxlan(vni=8, device="cbr0", port=4791),
    ):
        new = msgspec.structs.replace(old, vxlan=vxlan)
        assert not kernel.matches(new, kernel.read(OWNER)[new.identity])
        report = kernel.apply([Operation(old, new)])
        assert ([o.new for o in report.applied], report.recreated) == ([new], [new])
        found = kernel.read(OWNER)
        assert kernel.matches(new, found[new.identity])
        assert on_it.identity not in found
        old = new
    report = kernel.apply([Operation(old, msgspec.structs.replace(old, mtu=1400))])
    assert (report.failed, report.recreated) == ([], [])


def test_a_bridge_keeps_its_mtu_whatever_its_ports_have() -> None:
    bridge = Link(name="cbr0", kind="bridge", mtu=1400, alias=link_alias())
    assert create(bridge) == []
    run("ip link add p0 mtu 1300 type veth peer name p1\nip link set p0 master cbr0\n")
    assert door().matches(bridge, door().read(OWNER)[bridge.identity])
    run("ip link delete p0")
    assert door().matches(bridge, door().read(OWNER)[bridge.identity])


def test_an_uplink_that_was_made_anew_is_used_by_its_new_index() -> None:
    run(MACHINE)
    route = Route(destination=ipaddress.ip_network("10.2.0.0/16"), link="eth0", protocol=ROUTE_PROTOCOL)
    kernel = door()
    assert not kernel.apply([Operation(None, route)]).failed
    run("ip link delete eth0")
    run(MACHINE)
    assert not kernel.apply([Operation(None, route)]).failed
    assert kernel.read(OWNER) == {route.identity: route}

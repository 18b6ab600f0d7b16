"""Ways through links, bridges and machines: who takes a frame, who answers for an address, and what a machine refuses."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest

from podplane.state.network import Address, Fdb, Link, Neighbour, Peer, Proxy, Route, Sysctl, Vxlan
from podplane.state.nft import DROP, Chain, Hook, Table
from podplane.state.nft_rules import is_to_group, rule, verdict
from podplane.state.value import IPAddress, Value
from podplane.trace.bridge import neighbours, resolve
from podplane.trace.evaluator import evaluate, packet_from, reply
from podplane.trace.packet import Packet, echo
from podplane.trace.trace import Delivered, Dropped, Forwarded, Rejected, Unknown
from podplane.trace.world import End, World, join, of
from tests.plans import FAMILIES, uplink, wanted

FORWARD = (Sysctl(name="net.ipv4.ip_forward", value="1"), Sysctl(name="net.ipv6.conf.all.forwarding", value="1"))


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def address(text: str, link: str = "eth0", length: int = 24, netns: str = "") -> Address:
    return Address(netns=netns, link=link, ip=ip(text), prefix_length=length)


def default(gateway: str, link: str = "eth0", netns: str = "") -> Route:
    any_ = ipaddress.ip_network("0.0.0.0/0")
    return Route(netns=netns, destination=any_, gateway=ip(gateway), link=link, protocol=4)


def host(name: str, text: str, gateway: str = "") -> list[Value]:
    """A namespace with eth0, an address and a gateway."""
    values: list[Value] = [Link(netns=name, name="lo"), Link(netns=name, name="eth0"), address(text, netns=name)]
    return [*values, *([default(gateway, netns=name)] if gateway else [])]


def cable(link: str, netns: str, **more: Any) -> Link:
    return Link(name=link, kind="veth", peer=Peer(netns=netns, name="eth0"), **more)


def bridged(**more: Any) -> list[Value]:
    """Two hosts on one bridge, which has an address too."""
    values: list[Value] = [Link(name="br", kind="bridge"), address("10.0.0.1", "br")]
    values += [cable("v1", "one", master="br", **more), cable("v2", "two", master="br", **more)]
    return values + host("one", "10.0.0.2", "10.0.0.1") + host("two", "10.0.0.3", "10.0.0.1")


def routed(*more: Value) -> World:
    """Two hosts with a router between them."""
    values: list[Value] = [cable("v1", "one"), cable("v2", "two"), address("10.0.1.1", "v1"), address("10.0.2.1", "v2")]
    return of([*values, *host("one", "10.0.1.2", "10.0.1.1"), *host("two", "10.0.2.2", "10.0.2.1"), *more])


ONE_TO_TWO = Packet(source=ip("10.0.1.2"), destination=ip("10.0.2.2"))


def test_hosts_on_a_bridge_resolve_and_reach_each_other() -> None:
    world = of(bridged())
    trace = evaluate(world, Packet(source=ip("10.0.0.2"), destination=ip("10.0.0.3")), "one")
    assert trace.end == Delivered("two", ip("10.0.0.3"), 80, "tcp") and trace.packet.ttl == 64
    assert isinstance(reply(world, trace).end, Delivered)
    assert evaluate(world, Packet(source=ip("10.0.0.2"), destination=ip("10.0.0.1")), "one").end.netns == ""  # type: ignore[union-attr]
    assert set(neighbours(world, End("one", "eth0"))) == {End("", "br"), End("two", "eth0")}


def test_ping_is_answered() -> None:
    world = of(bridged())
    trace = evaluate(world, echo(ip("10.0.0.2"), ip("10.0.0.3"), 9), "one")
    assert trace.end == Delivered("two", ip("10.0.0.3"), 0, "icmp")
    back = reply(world, trace)
    assert back.end == Delivered("one", ip("10.0.0.2"), 0, "icmp") and back.packet.source_port == 9


def test_a_bridge_sends_a_frame_back_where_it_came_from_by_hairpin_only() -> None:
    for hairpin in (False, True):
        world = of(bridged(hairpin=hairpin))
        frame = Packet(
            source=ip("10.0.0.9"), destination=ip("10.0.0.2"), link="v1", destination_mac=world.mac(End("one", "eth0"))
        )
        end = evaluate(world, frame).end
        assert isinstance(end, Delivered if hairpin else Dropped), end


def test_isolated_ports_exchange_no_frames_and_reach_the_bridge() -> None:
    packet = Packet(source=ip("10.0.0.2"), destination=ip("10.0.0.3"), destination_mac="")
    for isolated in (False, True):
        world = of(bridged(isolated=isolated))
        frame = msgspec.structs.replace(packet, link="v1", destination_mac=world.mac(End("two", "eth0")))
        assert isinstance(evaluate(world, frame).end, Dropped if isolated else Delivered)
        assert isinstance(evaluate(world, Packet(source=ip("10.0.0.2"), destination=ip("10.0.0.1")), "one").end, Delivered)


def test_a_static_entry_wins_over_where_a_mac_is() -> None:
    world = of(bridged())
    wrong = Fdb(link="v2", mac=world.mac(End("one", "eth0")), master=True)
    frame = Packet(source=ip("10.0.0.3"), destination=ip("10.0.0.2"))
    assert isinstance(evaluate(of([*bridged(), wrong]), frame, "two").end, Dropped), "v2 is where it came from"
    assert isinstance(evaluate(world, frame, "two").end, Delivered)


@pytest.mark.parametrize(("mac", "end"), [("01:00:5e:00:00:03", Dropped), ("ff:ff:ff:ff:ff:ff", Dropped), ("", Delivered)])
def test_tables_know_frames_to_a_group(mac: str, end: type) -> None:
    known = [Neighbour(netns="one", link="eth0", ip=ip("10.0.0.3"), mac=mac)] if mac else []
    chain = Chain(
        family="bridge", table="t", name="c", hook=Hook("filter", "prerouting", 10), rules=(rule(is_to_group(), verdict(DROP)),)
    )
    world = of([*bridged(), *known, Table(family="bridge", table="t"), chain])
    trace = evaluate(world, Packet(source=ip("10.0.0.2"), destination=ip("10.0.0.3")), "one")
    assert isinstance(trace.end, end)


def test_links_that_are_down_carry_nothing() -> None:
    values = [msgspec.structs.replace(v, up=False) if isinstance(v, Link) and v.name == "v2" else v for v in bridged()]
    end = evaluate(of(values), Packet(source=ip("10.0.0.2"), destination=ip("10.0.0.3")), "one").end
    assert isinstance(end, Rejected) and end.how == "icmp host unreachable"


def test_a_link_with_forwarding_of_its_own_goes_by_that() -> None:
    own = Sysctl(name="net.ipv4.conf.v1.forwarding", value="0")
    assert isinstance(evaluate(routed(*FORWARD, own), ONE_TO_TWO, "one").end, Dropped)
    on = msgspec.structs.replace(own, value="1")
    assert isinstance(evaluate(routed(on), ONE_TO_TWO, "one").end, Delivered)


def test_a_router_forwards_when_it_is_told_to() -> None:
    trace = evaluate(routed(*FORWARD), ONE_TO_TWO, "one")
    assert trace.end == Delivered("two", ip("10.0.2.2"), 80, "tcp") and trace.packet.ttl == 63
    end = evaluate(routed(), ONE_TO_TWO, "one").end
    assert isinstance(end, Dropped) and "does not forward" in end.by.text
    end = evaluate(routed(*FORWARD), msgspec.structs.replace(ONE_TO_TWO, ttl=1), "one").end
    assert isinstance(end, Rejected) and end.how == "icmp time exceeded"


@pytest.mark.parametrize(
    ("source", "sysctl", "why"),
    [
        ("10.0.2.1", "", "is an address of this machine"),
        ("127.0.0.7", "", "loopback"),
        ("10.0.2.9", "net.ipv4.conf.all.rp_filter", "rp_filter"),
        ("192.0.2.1", "net.ipv4.conf.v1.rp_filter", "rp_filter"),
    ],
)
def test_a_router_refuses_impossible_sources(source: str, sysctl: str, why: str) -> None:
    sysctls = [Sysctl(name=sysctl, value="1")] if sysctl else []
    packet = msgspec.structs.replace(ONE_TO_TWO, source=ip(source))
    end = evaluate(routed(*FORWARD, *sysctls), packet, "one").end
    assert isinstance(end, Dropped) and why in end.by.text
    if sysctl:
        assert isinstance(evaluate(routed(*FORWARD), packet, "one").end, Delivered)


def test_a_loose_reverse_path_needs_any_route() -> None:
    loose = Sysctl(name="net.ipv4.conf.all.rp_filter", value="2")
    assert isinstance(
        evaluate(routed(*FORWARD, loose), msgspec.structs.replace(ONE_TO_TWO, source=ip("10.0.2.9")), "one").end, Delivered
    )
    assert isinstance(
        evaluate(routed(*FORWARD, loose), msgspec.structs.replace(ONE_TO_TWO, source=ip("192.0.2.1")), "one").end, Dropped
    )


def test_a_routing_loop_ends() -> None:
    values = [v for v in routed(*FORWARD).namespaces["two"].values if not isinstance(v, Sysctl)]
    looping = [*values, *(Sysctl(netns="two", name=s.name, value="1") for s in FORWARD)]
    router = routed(
        *FORWARD, Route(destination=ipaddress.ip_network("192.0.2.0/24"), gateway=ip("10.0.2.2"), link="v2", protocol=4)
    )
    world = World({"": router.namespaces[""].values, "one": router.namespaces["one"].values, "two": looping})
    end = evaluate(world, msgspec.structs.replace(ONE_TO_TWO, destination=ip("192.0.2.1")), "one").end
    assert isinstance(end, Rejected) and end.how == "icmp time exceeded"


def test_what_leaves_the_world_says_by_which_link_and_to_whom() -> None:
    own: list[Value] = [Link(name="eth0"), address("10.0.0.2"), default("10.0.0.1")]
    packet = packet_from(of(own), "", ip("192.0.2.1"), destination_port=443)
    assert packet.source == ip("10.0.0.2") and packet.destination_port == 443
    assert evaluate(of(own), packet).end == Forwarded("", "eth0", "")
    known = Neighbour(link="eth0", ip=ip("10.0.0.1"), mac="0A:58:00:00:00:01")
    assert evaluate(of([*own, known]), packet).end == Forwarded("", "eth0", "0a:58:00:00:00:01")
    with pytest.raises(ValueError, match="no route"):
        packet_from(of([Link(name="eth0")]), "", ip("192.0.2.1"))


def test_a_proxy_answers_for_what_it_routes_elsewhere() -> None:
    far = ipaddress.ip_network("10.0.0.77")
    proxy, route = Proxy(link="br", ip=ip("10.0.0.77"), protocol=80), Route(destination=far, link="up", protocol=80)
    values = [*bridged(), Link(name="up"), proxy]
    end = End("one", "eth0")
    for more, expected in (((), False), ((route,), False), ((route, *FORWARD), True), (FORWARD, False)):
        assert (resolve(of([*values, *more]), end, ip("10.0.0.77")) is not None) is expected


def test_an_ipv6_address_is_answered_for_on_its_own_link_only() -> None:
    values = [
        *routed().namespaces[""].values,
        *routed().namespaces["one"].values,
        address("fd00::1", "v2", 64),
        address("fd01::1", "v1", 64),
    ]
    world, end = of(values), End("one", "eth0")
    assert resolve(world, end, ip("fd01::1")) is not None and resolve(world, end, ip("fd00::1")) is None
    assert resolve(world, end, ip("10.0.2.1")) is not None, "an IPv4 address is the machine's"


@pytest.mark.parametrize(
    ("destination", "why"), [("224.0.0.1", "multicast"), ("10.0.0.255", "broadcast"), ("10.9.0.1", "encapsulation")]
)
def test_what_is_not_followed_is_said(destination: str, why: str) -> None:
    own: list[Value] = [Link(name="eth0"), address("10.0.0.2"), Link(name="vx", kind="vxlan", vxlan=Vxlan(vni=1))]
    own += [Neighbour(link="vx", ip=ip("10.9.0.1"), mac="0a:58:00:00:00:01")]
    own += [Route(destination=ipaddress.ip_network("10.9.0.0/16"), link="vx", protocol=80)]
    end = evaluate(of(own), Packet(source=ip("10.0.0.2"), destination=ip(destination))).end
    assert isinstance(end, Unknown) and why in end.why


def test_nodes_joined_by_their_uplinks_reach_each_others_pods() -> None:
    here = {**uplink(FAMILIES["ipv4"]), **wanted(FAMILIES["ipv4"])}.values()
    there: list[Value] = [
        Link(name="lo"),
        Link(name="eth0", mac="0a:58:c0:a8:01:0b"),
        address("192.168.1.11"),
        address("10.244.2.1"),
    ]
    there += [Route(destination=ipaddress.ip_network("10.244.1.0/24"), gateway=ip("192.168.1.10"), link="eth0", protocol=80)]
    world = join({"node1": here, "node2": there})
    trace = evaluate(world, Packet(source=ip("10.244.1.2"), destination=ip("10.244.2.1")), "node1/pod/uid-1")
    assert trace.end == Delivered("node2", ip("10.244.2.1"), 80, "tcp")
    assert reply(world, trace).end == Delivered("node1/pod/uid-1", ip("10.244.1.2"), 40000, "tcp")
    assert world.owners(ip("10.244.1.2")) == ["node1/pod/uid-1"]


def test_nobody_answers_what_was_not_delivered() -> None:
    with pytest.raises(ValueError, match="nobody answers"):
        reply(routed(), evaluate(routed(), ONE_TO_TWO, "one"))
    with pytest.raises(ValueError, match="two IP versions"):
        evaluate(routed(), msgspec.structs.replace(ONE_TO_TWO, source=ip("fd00::1")), "one")

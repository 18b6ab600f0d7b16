"""rtnetlink's values: what `encode` says, `decode` reads, for generated values of both families."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.netlink import attribute, parse_attributes, u16, u32
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import decode, encode, matches
from podplane.state.network import PORT_MODES, Address, Encap, Fdb, Link, Neighbour, Peer, Route, Rule, Sysctl
from podplane.state.value import IPAddress, IPNetwork
from tests.unit.kernel import generated as g

NAMES = {1: "lo", 2: "eth0", 1000: "cbr0"}
INDEXES = {name: index for index, name in NAMES.items()}
LINKS = st.sampled_from(sorted(INDEXES))


def index(name: str) -> int:
    """The number of a link."""
    return INDEXES[name]


@st.composite
def encaps(draw: st.DrawFn) -> Encap:
    """How a tunnel sends, between two addresses of a family; that it is from no address is left to the kernel."""
    version = draw(g.VERSIONS)
    return Encap(
        remote=draw(g.addresses(version)),
        local=draw(st.none() | g.addresses(version).filter(int)),
        hops=draw(st.integers(0, 255)),
        id=draw(st.integers(0, (1 << 64) - 1)),
        flags=draw(st.integers(0, 0xFFFF)),
    )


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """A route whose addresses are of one family; one that leads nowhere has neither gateway nor link."""
    version = draw(g.VERSIONS)
    kind = draw(st.sampled_from(("unicast", "unicast", "unreachable", "blackhole", "prohibit")))
    leads = kind == "unicast"
    metric = st.integers(0, 0xFFFF_FFFF).filter(lambda m: version == 4 or m != c.IP6_DEFAULT_METRIC)
    return Route(
        destination=draw(g.networks(version)),
        kind=kind,
        gateway=draw(st.none() | g.addresses(version)) if leads else None,
        link=draw(st.just("") | LINKS) if leads else "",
        source=draw(st.none() | g.addresses(version)),
        onlink=draw(st.booleans()),
        encap=draw(st.none() | encaps()) if leads else None,
        mtu=draw(st.sampled_from((0, 1280, 1500, 9000))),
        metric=draw(metric),
        table=draw(st.integers(1, 0xFFFF_FFFF)),
        protocol=draw(st.integers(0, 255)),
    )


@given(routes())
def test_route(value: Route) -> None:
    message = encode.route(value, index, encode.CREATE)
    assert decode.route(message.payload, NAMES) == value
    kind = "" if value.kind == "unicast" else f"{value.kind} "
    assert message.name.startswith(f"route {kind}{value.destination}")


@given(g.VERSIONS.flatmap(g.networks), st.sampled_from(("unreachable", "blackhole", "prohibit")))
def test_the_device_that_ipv6_gives_to_a_route_that_leads_nowhere_is_no_part_of_it(network: IPNetwork, kind: str) -> None:
    value = Route(destination=network, kind=kind, protocol=80)
    shown = encode.route(msgspec.structs.replace(value, link="lo"), index, encode.CREATE)
    assert decode.route(shown.payload, NAMES) == value


def test_a_route_of_a_type_that_is_never_planned_is_no_value() -> None:
    broadcast = 3
    assert decode.route(c.ROUTE.pack(c.AF_INET, 0, 0, 0, 254, 80, 0, broadcast, 0), NAMES) is None


def test_routes_of_different_types_do_not_match() -> None:
    network = ipaddress.ip_network("10.0.0.0/8")
    unreachable, blackhole = (Route(destination=network, kind=kind, protocol=80) for kind in ("unreachable", "blackhole"))
    assert matches(unreachable, unreachable) and not matches(unreachable, blackhole)


@given(routes())
def test_a_route_is_deleted_whatever_its_scope(value: Route) -> None:
    message = encode.delete_route(value)
    assert c.ROUTE.unpack_from(message.payload)[6] == c.RT_SCOPE_NOWHERE


@given(g.network_or_address(), LINKS)
def test_address(where: tuple[IPAddress, IPNetwork], link: str) -> None:
    value = Address(link=link, ip=where[0], prefix_length=where[1].prefixlen)
    found = decode.address(encode.address(value, index, c.RTM_NEWADDR, encode.PUT).payload, NAMES)
    made_by_kernel = value.ip.version == 6 and value.ip.is_link_local
    assert found == (None if made_by_kernel else value)


def test_an_ipv6_address_is_usable_at_once() -> None:
    for ip, wanted in (("fd00::1", c.IFA_F_NODAD), ("10.0.0.1", 0)):
        value = Address(link="lo", ip=ipaddress.ip_address(ip), prefix_length=32)
        assert c.ADDRESS.unpack_from(encode.address(value, index, c.RTM_NEWADDR, 0).payload)[2] == wanted


@given(g.any_address(), g.MACS, LINKS)
def test_neighbour(ip: IPAddress, mac: str, link: str) -> None:
    value = Neighbour(link=link, ip=ip, mac=mac)
    payload = encode.neighbour(value, index, c.RTM_NEWNEIGH, encode.PUT).payload
    assert decode.neighbour(payload, NAMES) == value
    assert decode.neighbour(payload, {}) is None


@given(g.any_address(), g.MACS, LINKS)
def test_fdb(ip: IPAddress, mac: str, link: str) -> None:
    value = Fdb(link=link, mac=mac, remote=ip)
    assert decode.fdb(encode.fdb(value, index, c.RTM_NEWNEIGH, encode.PUT).payload, NAMES) == value


def shown_in_bridge(mac: str, link: str, state: int, *more: bytes) -> bytes:
    """An entry as the kernel dumps it of a bridge (fdb_fill_info): without NTF_MASTER, but with the bridge's index."""
    header = c.NEIGHBOUR.pack(c.AF_BRIDGE, index(link), state, 0, 0)
    return header + attribute(c.NDA_LLADDR, encode.mac_bytes(mac)) + u32(c.NDA_MASTER, INDEXES["cbr0"]) + b"".join(more)


@given(g.MACS, LINKS)
def test_a_static_entry_of_a_bridge(mac: str, link: str) -> None:
    value = Fdb(link=link, mac=mac, master=True)
    sent = encode.fdb(value, index, c.RTM_NEWNEIGH, encode.PUT).payload
    assert c.NEIGHBOUR.unpack_from(sent)[2:4] == (c.NUD_NOARP, c.NTF_MASTER)
    assert decode.fdb(shown_in_bridge(mac, link, c.NUD_NOARP), NAMES) == value
    assert value.identity != Fdb(link=link, mac=mac).identity


def test_entries_of_a_bridge_that_nobody_planned_are_no_values() -> None:
    reachable, mac = 2, "0a:58:00:00:00:01"
    for state, more in ((reachable, ()), (c.NUD_PERMANENT, ()), (c.NUD_NOARP, (u16(c.NDA_VLAN, 1),))):
        assert decode.fdb(shown_in_bridge(mac, "eth0", state, *more), NAMES) is None
    assert decode.fdb(shown_in_bridge(mac, "eth0", c.NUD_NOARP), {}) is None


@st.composite
def policy_rules(draw: st.DrawFn) -> Rule:
    """A policy rule; a network of length 0 is left out, as the kernel does."""
    version = draw(g.VERSIONS)
    mark = draw(st.integers(0, 0xFFFF_FFFF))
    return Rule(
        priority=draw(st.integers(0, 0xFFFF_FFFF)),
        family=version,
        table=draw(st.integers(1, 0xFFFF_FFFF)),
        source=draw(st.none() | g.networks(version)),
        destination=draw(st.none() | g.networks(version)),
        mark=mark,
        mark_mask=draw(st.integers(0, 0xFFFF_FFFE)) if mark else 0,
        protocol=draw(st.integers(0, 255)),
    )


@given(policy_rules())
def test_policy_rule(value: Rule) -> None:
    assert decode.rule(encode.rule(value, c.RTM_NEWRULE, encode.CREATE).payload) == value


@given(g.MACS, st.integers(68, 65535), st.sampled_from(("", "cbr0")), st.booleans())
def test_link(mac: str, mtu: int, master: str, up: bool) -> None:
    value = Link(name="pp1", kind="veth", up=up, mtu=mtu, mac=mac, master=master, peer=Peer(name="eth0", mac=mac))
    message = encode.new_link(value, 1001, index, lambda _: 9)
    found = decode.link(message.payload, NAMES)
    assert found == msgspec.structs.replace(value, peer=None)
    assert matches(value, found)
    assert decode.link_name(message.payload) == (1001, "pp1")


def test_a_peer_is_made_in_its_own_namespace_and_never_up() -> None:
    value = Link(name="pp1", kind="veth", peer=Peer(netns="pod/1", name="eth0", mtu=1400))
    found = parse_attributes(encode.new_link(value, 1001, index, {"pod/1": 9}.__getitem__).payload, c.LINK.size)
    data = parse_attributes(parse_attributes(found[c.IFLA_LINKINFO])[c.IFLA_INFO_DATA])
    peer = data[c.VETH_INFO_PEER]
    assert c.LINK.unpack_from(peer)[3] & c.IFF_UP == 0
    attributes = parse_attributes(peer, c.LINK.size)
    assert int.from_bytes(attributes[c.IFLA_NET_NS_FD], "little") == 9
    assert attributes[c.IFLA_IFNAME] == b"eth0\0"
    for end in (found, attributes):  # else the kernel makes one for each processor, and waits to take them away again
        assert end[c.IFLA_NUM_TX_QUEUES] == end[c.IFLA_NUM_RX_QUEUES] == (1).to_bytes(4, "little")


def test_links_without_a_peer_have_the_queues_that_the_kernel_gives_them() -> None:
    for kind in ("bridge", "dummy"):
        message = encode.new_link(Link(name="cbr0", kind=kind), 1001, index, lambda _: 9)
        assert c.IFLA_NUM_TX_QUEUES not in parse_attributes(message.payload, c.LINK.size)


MODES = {mode: st.integers(0, 0xFFFF) if mode == "group_forward" else st.booleans() for mode in PORT_MODES}


@given(st.fixed_dictionaries(MODES), st.text("abc/-", max_size=20), st.sampled_from(("", "cbr0")))
def test_what_only_an_existing_link_can_have(modes: dict[str, Any], alias: str, master: str) -> None:
    value = Link(name="eth0", alias=alias, master=master, **modes)
    message = encode.set_later(value, 2)
    if not alias and not master:
        assert message is None
        return
    assert message is not None
    found = decode.link(message.payload, NAMES)
    assert found.alias == alias
    assert {mode: getattr(found, mode) for mode in MODES} == (modes if master else PORT_MODES)


@pytest.mark.parametrize("snooping", [False, True])
def test_a_bridge_says_whether_it_snoops(snooping: bool) -> None:
    value = Link(name="cbr0", kind="bridge", snooping=snooping)
    for message in (encode.new_link(value, 1001, index, {}.__getitem__), encode.set_link(value, 1001, index)):
        found = decode.link(message.payload, NAMES)
        assert found.snooping is snooping and matches(value, msgspec.structs.replace(found, name="cbr0"))
        assert not matches(msgspec.structs.replace(value, snooping=not snooping), found)


@pytest.mark.parametrize("mode", MODES)
def test_a_port_of_another_mode_does_not_match(mode: str) -> None:
    value = Link(name="pp1", kind="veth", master="cbr0")
    other = msgspec.structs.replace(value, **{mode: not getattr(value, mode)})
    assert matches(value, value) and not matches(value, other)


def test_the_link_that_a_sysctl_lives_on_is_not_compared() -> None:
    name = "net.ipv6.conf.pp1.disable_ipv6"
    assert matches(Sysctl(name=name, value="1", link="pp1"), Sysctl(name=name, value="1"))
    assert not matches(Sysctl(name=name, value="1", link="pp1"), Sysctl(name=name, value="0"))

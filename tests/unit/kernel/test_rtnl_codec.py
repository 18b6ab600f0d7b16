"""rtnetlink's values: what `encode` says, `decode` reads, for generated values of both families."""

from __future__ import annotations

import ipaddress

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.netlink import parse_attributes
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import decode, encode, matches
from podplane.state.network import Address, Fdb, Link, Neighbour, Peer, Route, Rule
from podplane.state.value import IPAddress, IPNetwork
from tests.unit.kernel import generated as g

NAMES = {1: "lo", 2: "eth0", 1000: "cbr0"}
INDEXES = {name: index for index, name in NAMES.items()}
LINKS = st.sampled_from(sorted(INDEXES))


def index(name: str) -> int:
    """The number of a link."""
    return INDEXES[name]


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """A route whose addresses are of one family."""
    version = draw(g.VERSIONS)
    metric = st.integers(0, 0xFFFF_FFFF).filter(lambda m: version == 4 or m != c.IP6_DEFAULT_METRIC)
    return Route(
        destination=draw(g.networks(version)),
        gateway=draw(st.none() | g.addresses(version)),
        link=draw(st.just("") | LINKS),
        source=draw(st.none() | g.addresses(version)),
        onlink=draw(st.booleans()),
        mtu=draw(st.sampled_from((0, 1280, 1500, 9000))),
        metric=draw(metric),
        table=draw(st.integers(1, 0xFFFF_FFFF)),
        protocol=draw(st.integers(0, 255)),
    )


@given(routes())
def test_route(value: Route) -> None:
    message = encode.route(value, index, encode.CREATE)
    assert decode.route(message.payload, NAMES) == value
    assert message.name.startswith(f"route {value.destination}")


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


@given(st.booleans(), st.text("abc/-", max_size=20), st.sampled_from(("", "cbr0")))
def test_what_only_an_existing_link_can_have(hairpin: bool, alias: str, master: str) -> None:
    message = encode.set_later(Link(name="eth0", hairpin=hairpin, alias=alias, master=master), 2)
    if not alias and not master:
        assert message is None
        return
    assert message is not None
    found = decode.link(message.payload, NAMES)
    assert (found.alias, found.hairpin) == (alias, hairpin and bool(master))

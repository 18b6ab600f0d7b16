"""Whose a link is, what of a link can't be changed, and what is made of an object that stands in the way."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import decode, encode, matches
from podplane.kernel.rtnl.conflicts import ForeignObject, creation_error
from podplane.kernel.rtnl.matching import must_recreate
from podplane.state.network import Address, Gre, Link, Neighbour, Peer, Proxy, Route, Rule, Vxlan
from podplane.state.ownership import MARK, Ownership, is_foreign, is_marked, link_alias
from podplane.state.value import Value
from tests.unit.kernel import generated as g

OWNER = Ownership(links=frozenset({"cbr0"}), link_prefixes=("pp", "px"), route_protocol=80)
NAMES = {2: "eth0", 3: "eth1"}
ip, network = ipaddress.ip_address, ipaddress.ip_network


@pytest.mark.parametrize(
    ("name", "alias", "owned"),
    [
        ("cbr0", "podplane", True),
        ("pp1", "podplane pod/default/web", True),
        ("px1", "podplane", True),
        ("ppp0", "", False),
        ("ppp0", "podplane.org", False),
        ("pp1", "pod/default/web", False),
        ("cbr0", "", False),
        ("cbr01", "podplane", False),
        ("eth0", "podplane", False),
    ],
)
def test_a_link_is_owned_by_mark_and_name(name: str, alias: str, owned: bool) -> None:
    assert OWNER.owns_link(name, alias) is owned
    assert not Ownership().owns_link(name, alias)


@given(st.text(max_size=20))
def test_a_marked_alias_says_what_the_link_is_for(name: str) -> None:
    alias = link_alias(name)
    assert is_marked(alias)
    assert alias.removeprefix(MARK).lstrip(" ") == name.lstrip(" ")
    assert is_marked(name) == (name == MARK or name.startswith(MARK + " "))


@st.composite
def vxlans(draw: st.DrawFn) -> Vxlan:
    return Vxlan(
        vni=draw(st.integers(1, 0xFF_FFFF)),
        local=draw(g.any_address() | st.none()),
        port=draw(st.integers(1, 0xFFFF)),
        device=draw(st.sampled_from(("", *NAMES.values()))),
        learning=draw(st.booleans()),
    )


def tunnel(vxlan: Vxlan | None) -> Link:
    return Link(name="ppvx", kind="vxlan", vxlan=vxlan)


@given(vxlans())
def test_what_a_vxlan_device_is_made_with_is_read_back(vxlan: Vxlan) -> None:
    index = {name: number for number, name in NAMES.items()}.__getitem__
    payload = encode.new_link(tunnel(vxlan), 9, index, lambda _: 0).payload
    found = decode.link(payload, NAMES)
    assert found.vxlan == vxlan
    assert matches(tunnel(vxlan), found) and not must_recreate(found, tunnel(vxlan))


@given(vxlans(), vxlans())
def test_a_vxlan_device_is_made_anew_for_what_differs_and_is_not_left_to_the_kernel(old: Vxlan, new: Vxlan) -> None:
    differs = (
        (old.vni, old.port, old.learning) != (new.vni, new.port, new.learning)
        or new.local not in (None, old.local)
        or new.device not in ("", old.device)
    )
    assert must_recreate(tunnel(old), tunnel(new)) is differs
    assert matches(tunnel(new), tunnel(old)) is not differs


@pytest.mark.parametrize("kind", ["gre", "ip6gre"])
def test_a_gre_device_is_made_anew_unless_it_is_an_external_one(kind: str) -> None:
    wanted = Link(name="ppgre", kind=kind, gre=Gre(external=True))
    others = msgspec.structs.replace(wanted, gre=Gre(external=False))
    found = [decode.link(encode.new_link(one, 9, lambda _: 0, lambda _: 0).payload, NAMES) for one in (wanted, others)]
    assert [one.gre for one in found] == [wanted.gre, others.gre]
    assert [matches(wanted, one) for one in found] == [True, False]
    assert [must_recreate(one, wanted) for one in found] == [False, True]


def test_links_are_made_anew_for_another_kind_or_peer_and_nothing_else() -> None:
    veth = Link(name="pp1", kind="veth", peer=Peer(netns="pod/1", name="eth0", mac="02:00:00:00:00:01", mtu=1400))
    for field, value in (("netns", "pod/2"), ("name", "eth1"), ("mac", "02:00:00:00:00:02")):
        other = msgspec.structs.replace(veth, peer=msgspec.structs.replace(veth.peer, **{field: value}))
        assert must_recreate(veth, other)
    for fields in (
        {"mtu": 1300},
        {"mac": "02:00:00:00:00:03"},
        {"master": "cbr0"},
        {"up": False},
        {"alias": "x"},
        {"peer": None},
        {"peer": Peer(netns="pod/1", name="eth0", mac="02:00:00:00:00:01", mtu=1300)},
    ):
        assert not must_recreate(veth, msgspec.structs.replace(veth, **fields))
    assert must_recreate(veth, Link(name="pp1", kind="bridge"))
    assert not must_recreate(veth, Link(name="pp1"))
    assert not must_recreate(Link(name="pp1", kind="veth"), veth), "a peer is not read back"


MARKED: list[Value] = [
    Route(destination=network("10.0.0.0/8"), link="eth0", protocol=80),
    Neighbour(link="eth0", ip=ip("10.0.0.1"), mac="02:00:00:00:00:01", protocol=80),
    Proxy(link="eth0", ip=ip("10.0.0.1"), protocol=80),
    Rule(priority=1, family=4, table=7, protocol=80),
]


@pytest.mark.parametrize("wanted", MARKED, ids=lambda value: type(value).__name__)
def test_another_protocol_is_somebody_elses(wanted: Value) -> None:
    theirs = msgspec.structs.replace(wanted, protocol=4)
    assert is_foreign(wanted, theirs) and not is_foreign(wanted, wanted)
    assert not is_foreign(msgspec.structs.replace(wanted, protocol=0), theirs), "without a mark nothing can be told"
    error = creation_error(wanted, theirs)
    assert isinstance(error, ForeignObject) and "remove it (ip " in str(error)
    assert creation_error(wanted, wanted) is None


def test_what_is_ours_and_differs_is_no_foreign_object() -> None:
    wanted = MARKED[0]
    error = creation_error(wanted, msgspec.structs.replace(wanted, mtu=1300))
    assert error is not None and not isinstance(error, ForeignObject)
    assert "another one is there: 10.0.0.0/8 dev eth0 proto 80 scope link mtu 1300" in str(error)
    address = Address(link="cbr0", ip=ip("10.0.0.1"), prefix_length=24)
    assert creation_error(address, address) is None


def test_a_route_is_deleted_by_its_identity_and_protocol_alone() -> None:
    route = Route(destination=network("10.0.0.0/8"), gateway=ip("10.9.9.9"), link="none", mtu=1300, metric=7, protocol=80)
    payload = encode.delete_route(route).payload
    bare = Route(destination=route.destination, metric=7, protocol=80)
    assert decode.route(payload, NAMES) == bare
    assert c.ROUTE.unpack_from(payload)[6] == c.RT_SCOPE_NOWHERE

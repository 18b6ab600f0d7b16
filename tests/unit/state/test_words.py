"""What is wrong with an object of the kernel, in words."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec
import pytest

from podplane.state.network import Address, Link, Route, Sysctl
from podplane.state.value import Value
from podplane.state.words import difference

LINK = Link(name="eth0", kind="veth", mtu=1500)
ROUTE = Route(destination=ip_network("0.0.0.0/0"), gateway=ip_address("10.0.0.1"), link="eth0", protocol=80)


def matches(wanted: Value, found: Value) -> bool:
    """A kernel that never says a link's kind."""
    if isinstance(wanted, Link) and isinstance(found, Link):
        return msgspec.structs.replace(wanted, kind="") == msgspec.structs.replace(found, kind="")
    return wanted == found


@pytest.mark.parametrize(
    ("wanted", "found", "words"),
    [
        (LINK, msgspec.structs.replace(LINK, mtu=1400, kind=""), "has mtu 1400, not 1500"),
        (LINK, msgspec.structs.replace(LINK, up=False, master="br0"), "has up off, not on, and master br0, not none"),
        (ROUTE, msgspec.structs.replace(ROUTE, gateway=None), "has gateway none, not 10.0.0.1"),
        (Sysctl(name="a", value="1"), Sysctl(name="a", value="0"), "has value 0, not 1"),
        (LINK, Address(link="eth0", ip=ip_address("10.0.0.1"), prefix_length=32), "is another kind of object: address"),
    ],
)
def test_a_difference_names_the_fields_that_matter(wanted: Value, found: Value, words: str) -> None:
    said = difference(wanted, found, matches)
    assert said.split(" ", 1)[0] == words.split(" ", 1)[0]
    assert set(said.partition(" ")[2].split(", and ")) == set(words.partition(" ")[2].split(", and "))

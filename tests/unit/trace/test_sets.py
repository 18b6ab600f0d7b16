"""Sets by the bytes of registers: what is found is what lies in an element, as a walk through all of them says."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podplane.state import nft_types as types
from podplane.state.nft import Element, Part, Set
from podplane.state.value import IPAddress, IPNetwork
from podplane.trace.sets import Index
from tests.unit.kernel.generated import addresses, networks

PLACE: dict[str, Any] = {"family": "inet", "table": "t"}
PORTS = st.integers(1, 3)


def element(*key: Part) -> Element:
    return Element(**PLACE, set="s", key=key)


@given(st.lists(networks(4, 24), max_size=8), st.lists(addresses(4), max_size=4))
def test_an_address_is_found_in_its_network(found: list[IPNetwork], asked: list[IPAddress]) -> None:
    distinct = list(ipaddress.collapse_addresses(found))  # type: ignore[type-var]  # one version
    index = Index(Set(**PLACE, name="s", key=("ipv4_addr",), interval=True), map(element, distinct))
    for address in [*asked, *(n.network_address for n in distinct), *(n.broadcast_address for n in distinct)]:
        wanted = next((network for network in distinct if address in network), None)
        got = index.find(address.packed)
        assert (got.key[0] if got is not None else None) == wanted


@given(st.dictionaries(st.tuples(networks(6, 120), PORTS), st.none(), max_size=8), st.tuples(addresses(6), PORTS))
def test_a_concatenation_with_networks_is_found_by_all_its_parts(found: dict[Any, None], asked: tuple[IPAddress, int]) -> None:
    names = ("ipv6_addr", "inet_service")
    index = Index(Set(**PLACE, name="s", key=names, interval=True), (element(*key) for key in found))
    for address, port in [asked, *((network[-1], port) for network, port in found)]:
        expected = any(address in network and port == other for network, other in found)
        assert (index.find(types.key_bytes(names, (address, port))) is not None) == expected


def test_an_element_that_comes_later_is_found_too_and_a_map_gives_its_data() -> None:
    index = Index(Set(**PLACE, name="s", key=("mark",), data=("ipv4_addr", "inet_service")))
    key = types.key_bytes(("mark",), (7,))
    assert index.find(key) is None
    index.add(Element(**PLACE, set="s", key=(7,), data=(ipaddress.ip_address("10.0.0.1"), 80)))
    found = index.find(key)
    assert found is not None and index.data(found) == b"\x0a\0\0\1\0\x50\0\0"

"""The slices by which a node offers its name server."""

from __future__ import annotations

import msgspec
import pytest

from podplane.dns import endpoints
from podplane.dns.node import is_own
from podplane.model.service import EndpointSlice
from tests.plans import FAMILIES, node


@pytest.mark.parametrize("versions", FAMILIES.values(), ids=FAMILIES)
def test_one_slice_a_family_leads_to_the_bridge(versions: tuple[int, ...]) -> None:
    wanted = endpoints.wanted(node(3, versions), answers=True)
    addresses = {"kube-dns-node3-ipv4": "10.244.3.1", "kube-dns-node3-ipv6": "fd00:10:244:3::1"}
    expected = {name: ip for name, ip in addresses.items() if int(name[-1]) in versions}
    assert {name: one["endpoints"][0]["addresses"][0] for name, one in wanted.items()} == expected
    assert {name: one["addressType"][-1] for name, one in wanted.items()} == {name: name[-1] for name in expected}


def test_a_node_without_blocks_offers_none() -> None:
    assert endpoints.wanted(node(1, ()), answers=True) == {}


@pytest.mark.parametrize("length", [1, 200, 238, 239, 253])
def test_names_are_names_whatever_the_length_of_the_nodes(length: int) -> None:
    name = "n" * length
    found = [endpoints.name_of(name, version) for version in (4, 6)]
    assert len(set(found)) == 2 and all(len(one) <= endpoints.NAME_LENGTH for one in found)
    assert set(found).isdisjoint(endpoints.name_of(name[:-1] + "m", version) for version in (4, 6))
    dotted = endpoints.name_of(".".join("a" * 60 for _ in range(4)), 4)
    assert not any(part.startswith("-") or part.endswith("-") for part in dotted.split("."))


def test_what_is_stored_is_compared_by_what_it_says() -> None:
    manifest = endpoints.wanted(node(1, (4,)), answers=True)["kube-dns-node1-ipv4"]
    stored = msgspec.convert(manifest, EndpointSlice)
    assert is_own(stored) and endpoints.is_as_wanted(stored, manifest)
    other = endpoints.wanted(node(1, (4,)), answers=False)["kube-dns-node1-ipv4"]
    assert not endpoints.is_as_wanted(stored, other)
    for change in ({"ports": ()}, {"endpoints": None}, {"metadata": msgspec.structs.replace(stored.metadata, labels={})}):
        assert not endpoints.is_as_wanted(msgspec.structs.replace(stored, **change), manifest)

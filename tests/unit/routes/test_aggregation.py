"""Blocks of a node as the fewest prefixes: the same addresses, no more and no less."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from podplane.routes.aggregation import aggregated
from podplane.state.value import IPNetwork

BASE = {4: int(ipaddress.ip_address("10.244.0.0")), 6: int(ipaddress.ip_address("fd00:10:244::"))}
BITS = {4: 32, 6: 128}
SPAN = 64
"""So many of the smallest blocks are looked at: those of 4 addresses."""


def block(version: int, number: int, size: int) -> str:
    """The block with this number among those of 4 << size addresses."""
    kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    return str(kind((BASE[version] + (number * (4 << size)) % (4 * SPAN), BITS[version] - 2 - size)))


BLOCKS = st.lists(st.builds(block, st.sampled_from((4, 6)), st.integers(0, SPAN - 1), st.integers(0, 4)), max_size=12)


def addresses(networks: Iterable[IPNetwork]) -> set[tuple[int, int]]:
    return {(one.version, int(one.network_address) + n) for one in networks for n in range(one.num_addresses)}


def fewest(held: set[tuple[int, int]], version: int, start: int, size: int) -> int:
    """How few prefixes hold just these addresses, of those from `start` on: tried by halves."""
    own = sum((version, start + n) in held for n in range(size))
    if own in (0, size):
        return bool(own)
    return fewest(held, version, start, size // 2) + fewest(held, version, start + size // 2, size // 2)


@given(BLOCKS)
def test_the_fewest_prefixes_hold_just_the_addresses_of_the_blocks(blocks: list[str]) -> None:
    found = aggregated(blocks)
    held = addresses(map(ipaddress.ip_network, blocks))
    assert addresses(found) == held
    assert sum(one.num_addresses for one in found) == len(held), "none is in two of them"
    assert len(found) == sum(fewest(held, version, BASE[version], 4 * SPAN) for version in (4, 6))


def test_one_block_of_each_ip_version_stays_as_it_is_and_in_its_order() -> None:
    assert [str(one) for one in aggregated(["fd00::/64", "10.0.0.0/24"])] == ["fd00::/64", "10.0.0.0/24"]
    assert [str(one) for one in aggregated(["10.0.1.0/24", "10.0.0.0/24"])] == ["10.0.0.0/23"]
    assert [str(one) for one in aggregated(["10.0.1.0/24", "10.0.2.0/24"])] == ["10.0.1.0/24", "10.0.2.0/24"], (
        "they adjoin, but"
    )
    assert aggregated([]) == []

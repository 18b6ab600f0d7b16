"""Networks of owners: what overlaps one, and which is free, as a search through all of them would find."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from podplane.ipam.blocks import Blocks, number_of
from podplane.state.value import IPNetwork

RANGE = ipaddress.ip_network("10.0.0.0/24")
LENGTH = 28


@st.composite
def networks(draw: st.DrawFn) -> IPNetwork:
    """Within the range, around it, and beside it."""
    length = draw(st.integers(20, 32))
    number = draw(st.integers(0, 2**32 - 1))
    base = 10 << 24 | (number & 0x3FF)
    return ipaddress.ip_network((base, length), strict=False)


@given(st.lists(st.tuples(st.booleans(), networks(), st.integers(0, 2))), networks(), st.integers(0, 40))
def test_it_finds_what_a_search_finds(steps: list[tuple[bool, IPNetwork, int]], asked: IPNetwork, start: int) -> None:
    blocks: Blocks[int] = Blocks()
    known: dict[IPNetwork, set[int]] = {}
    for is_added, network, owner in steps:
        if is_added:
            blocks.add(network, owner)
            known.setdefault(network, set()).add(owner)
        else:
            blocks.remove(network, owner)
            known.get(network, set()).discard(owner)
    known = {network: owners for network, owners in known.items() if owners}
    assert {network: set(owners) for network, owners in blocks.overlapping(asked)} == {
        network: owners for network, owners in known.items() if network.overlaps(asked)
    }
    all_of_them = list(RANGE.subnets(new_prefix=LENGTH))
    free = [number for number, one in enumerate(all_of_them) if not any(one.overlaps(other) for other in known)]
    begin = start % len(all_of_them)
    wanted = next((number for number in (*(n for n in free if n >= begin), *free)), None)
    assert blocks.free(RANGE, LENGTH, start) == (None if wanted is None else (wanted, all_of_them[wanted]))
    number = number_of(RANGE, LENGTH, asked)
    overlapped = [number for number, one in enumerate(all_of_them) if one.overlaps(asked)]
    assert number == (overlapped[-1] if overlapped else None)


def test_families_have_nothing_in_common() -> None:
    blocks: Blocks[str] = Blocks()
    v6 = ipaddress.ip_network("fd00::/48")
    blocks.add(v6, "a")
    assert blocks.free(RANGE, LENGTH) == (0, ipaddress.ip_network("10.0.0.0/28"))
    assert number_of(RANGE, LENGTH, v6) is None
    assert blocks.free(v6, 64) is None, "somebody has all of it"


def test_a_whole_range_is_one_block() -> None:
    blocks: Blocks[str] = Blocks()
    assert blocks.free(RANGE, 24, 7) == (0, RANGE)
    blocks.add(RANGE, "a")
    assert blocks.free(RANGE, 24) is None

"""The kernel door over the fake kernel: each type of value has its part, and what comes back is compared as it should be."""

from __future__ import annotations

import msgspec
import pytest

from podplane.kernel.door import PARTS, Kernel
from podplane.state import network, nft, nft_members
from podplane.state.nft import Set
from podplane.state.value import Value


def kinds(base: type[Value]) -> set[type[Value]]:
    """The types of values that are no base of others, and name a kernel object: the far end of a veth pair has no identity of its own."""
    below = base.__subclasses__()
    return {base} if not below else {kind for one in below for kind in kinds(one)}


def test_every_type_of_value_has_a_part_of_the_kernel() -> None:
    modules = {network.__name__, nft.__name__, nft_members.__name__}
    own = {kind for kind in kinds(Value) if kind.__module__ in modules and kind.identity is not Value.identity}
    assert own - {nft.UnreadElements} == set(PARTS), "what a reading says, and nobody wants"


@pytest.mark.parametrize(("change", "same"), [({"rank": 7}, True), ({"comment": "another"}, False), ({"size": 5}, False)])
def test_the_rank_of_a_set_is_no_part_of_what_is_compared(change: dict[str, object], same: bool) -> None:
    wanted = Set(table="t", name="s", key=("mark",), rank=3)
    assert Kernel.matches(wanted, msgspec.structs.replace(wanted, **change)) is same

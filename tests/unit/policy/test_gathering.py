"""Elements that come some at a time are in order at the end, each key once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podplane.policy.gathering import Gathered

elements = st.lists(st.binary(min_size=3, max_size=4), max_size=12)


@given(st.lists(elements, max_size=12))
def test_all_are_in_order_and_of_each_key_the_first_one(parts: list[list[bytes]]) -> None:
    gathered, first = Gathered(2), dict[bytes, bytes]()
    for part in parts:
        others = []
        for one in part:
            if one[:2] in first:
                others.append((one[:2], one))
            first.setdefault(one[:2], one)
        assert gathered.add(part) == others
    assert gathered.all() == sorted(first.values())


def test_runs_are_joined_as_they_come() -> None:
    gathered = Gathered(4)
    for number in range(256):
        gathered.add([(number * 37 % 256).to_bytes(4, "big")])
        assert len(gathered._runs) <= 9
    assert gathered.all() == [number.to_bytes(4, "big") for number in range(256)]

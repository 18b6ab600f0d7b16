"""The sorted map: ranges are those of a sorted dictionary, and a snapshot stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import ordered
from podplane.apiserver.ordered import Key, Ordered

keys = st.tuples(st.sampled_from(["", "a", "a-b", "ab", "b"]), st.sampled_from(["", "x", "x.y", "xy", "y", "z"]))
writes = st.lists(st.tuples(keys, st.one_of(st.none(), st.integers())), max_size=60)
ranges = st.tuples(st.sampled_from(["", "a", "a-b", "ab", "b", "c"]), st.one_of(st.none(), keys))


def expected(values: dict[Key, int], namespace: str, after: Key | None) -> list[tuple[Key, int]]:
    """The same range of a dictionary, by walking it."""
    return sorted(
        (key, value)
        for key, value in values.items()
        if (not namespace or key[0] == namespace) and (after is None or key > after)
    )


@given(writes, writes, st.lists(ranges, min_size=1, max_size=6), st.integers(1, 5))
def test_ranges_and_snapshots_are_those_of_a_sorted_dictionary(
    before: list[tuple[Key, int | None]], later: list[tuple[Key, int | None]], asked: list[tuple[str, Key | None]], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered, "BLOCK", block)
        found: Ordered[int] = Ordered()
        values: dict[Key, int] = {}
        write(found, values, before)
        snapshots = [found.snapshot(*one) for one in asked]
        then = [expected(values, *one) for one in asked]
        write(found, values, later)
        assert [list(snapshot) for snapshot in snapshots] == then
        assert [len(snapshot) for snapshot in snapshots] == [len(one) for one in then]
        assert [list(found.snapshot(*one)) for one in asked] == [expected(values, *one) for one in asked]
        assert {key: found.get(key) for key in values} == values


def write(found: Ordered[int], values: dict[Key, int], steps: list[tuple[Key, int | None]]) -> None:
    """Write to both; None removes."""
    for key, value in steps:
        if value is None:
            found.discard(key)
            values.pop(key, None)
            assert found.get(key) is None
        else:
            found.set(key, value)
            values[key] = value


@pytest.mark.parametrize("step", [1, -1, 7])
def test_blocks_stay_between_half_full_and_full(step: int) -> None:
    """In whatever order the keys come, so that a write never copies more than a block, and there are few of them."""
    count = 20 * ordered.BLOCK + 1
    found: Ordered[int] = Ordered()
    for number in range(count):
        found.set(("a", f"{number * step % count:06}"), number)
    sizes = [len(block) for block in found._blocks]
    assert sum(sizes) == count
    assert max(sizes) <= ordered.BLOCK
    assert sum(sizes) / len(sizes) >= ordered.BLOCK / 2 - 1


def test_a_snapshot_shares_the_blocks_that_it_holds_whole() -> None:
    found: Ordered[int] = Ordered()
    for number in range(10 * ordered.BLOCK):
        found.set(("a", f"{number:06}"), number)
    snapshot = found.snapshot("a")
    assert len(snapshot._blocks) == 10
    assert all(mine is its for mine, its in zip(snapshot._blocks[1:-1], found._blocks[1:-1], strict=True))
    found.set(("a", f"{5 * ordered.BLOCK:06}"), -1)
    changed = [mine is not its for mine, its in zip(snapshot._blocks[1:-1], found._blocks[1:-1], strict=True)]
    assert sum(changed) == 1

"""Who is started next: a law about turns, and who may not begin yet."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.starting import Turns


@given(st.lists(st.integers(1, 5), max_size=40))
def test_an_owner_has_no_second_turn_before_all_others_had_one(owners: list[int]) -> None:
    turns = Turns[tuple[int, int]]()
    for number, owner in enumerate(owners):
        turns.add(owner, (owner, number))
    left, given = Counter(owners), []
    while (one := turns.next(lambda _: True)) is not None:
        turns.remove(one[0], one)
        given.append(one)
        left[one[0]] -= 1
        since = [owner for owner, _ in given[::-1]]
        if one[0] in since[1:]:
            between = since[1 : since.index(one[0], 1)]
            assert {owner for owner, count in left.items() if count} <= {one[0], *between}
    assert sorted(number for _, number in given) == list(range(len(owners))), "nobody is left out"
    assert all(numbers == sorted(numbers) for numbers in ([n for o, n in given if o == owner] for owner in owners))


def test_who_may_not_begin_keeps_nobody_else() -> None:
    turns = Turns[str]()
    for owner, one in ((1, "a"), (1, "b"), (2, "c")):
        turns.add(owner, one)
    assert turns.next(lambda one: one == "b") == "b"
    assert turns.next(lambda one: one != "b") == "c", "it is the turn of the other"
    assert turns.next(lambda _: False) is None
    assert sorted(turns) == ["a", "b", "c"]
    for owner, one in ((1, "b"), (2, "c"), (1, "a")):
        turns.remove(owner, one)
    assert turns.next(lambda _: True) is None

"""Who has most, whatever was given and taken."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from podplane.servers.ranking import Ranking

MOST = 5


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_the_first_is_one_that_has_most(steps: list[tuple[str, bool]]) -> None:
    ranking: Ranking[str] = Ranking(MOST)
    counts: Counter[str] = Counter()
    for owner, grows in steps:
        if grows and counts[owner] < MOST:
            counts[owner] += 1
            ranking.grown(owner, counts[owner])
        elif not grows and counts[owner]:
            counts[owner] -= 1
            ranking.shrunk(owner, counts[owner])
        most = max(counts.values(), default=0)
        for count in range(MOST + 1):
            first = ranking.first(count)
            assert (first is None) == (most <= count + 1)
            assert first is None or counts[first] == most


def test_of_several_with_as_many_the_one_that_has_them_longest_is_first() -> None:
    ranking: Ranking[str] = Ranking(MOST)
    for owner in "ba":
        ranking.grown(owner, 1)
        ranking.grown(owner, 2)
    assert ranking.first(0) == "b"

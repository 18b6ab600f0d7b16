"""Which peers a node watches."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from podplane.probes.choice import MOST, phase, watched

NAMES = st.sets(st.text("abc0123456789", min_size=1, max_size=6), min_size=1, max_size=60)


def test_in_a_small_cluster_all_others_are_watched() -> None:
    names = {f"node{n}" for n in range(MOST + 1)}
    assert set(watched("node3", names)) == names - {"node3"}
    assert watched("node3", {"node3"}) == ()


@given(NAMES, st.integers(1, 20))
def test_every_node_watches_as_many_as_watch_it(names: set[str], most: int) -> None:
    counts = Counter(peer for own in names for peer in watched(own, names, most))
    assert all(counts[name] == min(most, len(names) - 1) for name in names)


@given(NAMES, st.text("xyz", min_size=1, max_size=6), st.integers(1, 20))
def test_a_node_that_comes_takes_the_place_of_one_at_most(names: set[str], new: str, most: int) -> None:
    for own in names:
        before, now = set(watched(own, names, most)), set(watched(own, names | {new}, most))
        assert now - before <= {new} and len(before - now) <= 1


def test_in_a_large_cluster_each_is_watched_by_some() -> None:
    names = [f"worker-{n}" for n in range(2000)]
    counts = Counter(peer for own in names[:300] for peer in watched(own, names))
    assert max(counts.values()) <= MOST and len(watched("worker-7", names)) == MOST


def test_nodes_do_not_send_all_at_one_time() -> None:
    phases = [phase(f"node{n}", 4.0) for n in range(100)]
    assert min(phases) >= 0 and max(phases) < 4 and len({int(one * 5) for one in phases}) > 10

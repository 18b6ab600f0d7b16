"""Laws of those who wait for their turn."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from podplane.servers.turns import Turns

TOTAL, OF_CLIENT = 12, 5
clients = st.sampled_from("abcdef")


@given(st.lists(st.one_of(clients, st.none()), max_size=80))
def test_room_is_bounded_and_who_has_most_loses_its_newest(steps: list[str | None]) -> None:
    turns: Turns[tuple[str, int]] = Turns(TOTAL, OF_CLIENT)
    waiting: list[tuple[str, int]] = []
    for i, client in enumerate(steps):
        if client is None:
            if waiting:
                one = turns.take()
                assert one == next(x for x in waiting if x[0] == one[0]), "the oldest of its client"
                waiting.remove(one)
            continue
        counts = Counter(whose for whose, _ in waiting)
        lost = turns.put(client, (client, i))
        most = max(counts.values(), default=0)
        if counts[client] >= OF_CLIENT:
            assert lost == (client, i)
        elif len(waiting) < TOTAL:
            assert lost is None
        elif most <= counts[client] + 1:
            assert lost == (client, i)
        else:
            assert lost is not None and counts[lost[0]] == most
            assert lost == [x for x in waiting if x[0] == lost[0]][-1], "the newest of its client"
        waiting = [x for x in [*waiting, (client, i)] if x != lost]
        assert len(turns) == len(waiting) <= TOTAL
    left = [turns.take() for _ in range(len(turns))]
    assert sorted(left) == sorted(waiting)


@given(st.lists(clients, max_size=60))
def test_each_client_has_one_in_turn(asked: list[str]) -> None:
    turns: Turns[str] = Turns(1000, 1000)
    for client in asked:
        turns.put(client, client)
    taken = [turns.take() for _ in asked]
    counts = Counter(asked)
    for i, client in enumerate(taken):
        before = Counter(taken[:i])
        assert all(before[other] >= min(counts[other], before[client]) for other in counts)
        assert all(before[other] <= before[client] + 1 for other in counts)


@given(st.lists(st.sampled_from("bcdef"), max_size=200), st.integers(1, 2))
def test_whoever_asks_without_end_takes_no_room_of_who_asks_little(flood: list[str], few: int) -> None:
    turns: Turns[str] = Turns(TOTAL, OF_CLIENT)
    for client in flood:
        turns.put(client, client)
    for _ in range(few - 1):
        turns.put("a", "a")
    turns.put("a", "a")
    assert [turns.take() for _ in range(len(turns))].count("a") == few


def test_clear_leaves_nothing_and_all_may_come_again() -> None:
    turns: Turns[str] = Turns(TOTAL, OF_CLIENT)
    for _ in range(2):
        assert [turns.put("a", "x") for _ in range(OF_CLIENT + 1)] == [None] * OF_CLIENT + ["x"]
        turns.clear()
        assert not turns

"""What was denied lately, for whatever comes: bounded, counted, the newest first."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from podplane.policy.denials import KEPT, KEPT_SECONDS, Denials


def test_equal_ones_are_one_entry_with_a_count() -> None:
    denials = Denials[str]()
    for what, now in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        denials.add(what, now)
    newest, other = denials.after(0, 4.0)
    assert (newest.what, newest.packets, newest.first, newest.last) == ("a", 2, 1.0, 3.0)
    assert (other.what, other.packets) == ("b", 1) and other.number > newest.number


def test_only_what_is_new_is_asked_for() -> None:
    denials = Denials[str]()
    denials.add("a", 1.0)
    denials.add("b", 1.0)
    seen = denials.change
    assert not list(denials.after(seen, 1.0))
    denials.add("a", 2.0)
    assert [(one.what, one.packets) for one in denials.after(seen, 2.0)] == [("a", 2)]


def test_what_is_old_is_forgotten_and_begins_anew() -> None:
    denials = Denials[str]()
    denials.add("a", 0.0)
    (first,) = denials.after(0, KEPT_SECONDS)
    denials.add("a", KEPT_SECONDS + 1)
    (again,) = denials.after(0, KEPT_SECONDS + 1)
    assert again.packets == 1 and again.number != first.number
    assert not list(denials.after(0, 3 * KEPT_SECONDS)) and not len(denials)


@given(st.lists(st.integers(0, 3 * KEPT), max_size=3000), st.integers(0, 3000))
def test_it_is_bounded_and_the_counts_are_those_of_what_came_since(packets: list[int], seen: int) -> None:
    denials = Denials[int]()
    for now, what in enumerate(packets):
        denials.add(what, now / 100)
    found = list(denials.after(0, len(packets) / 100))
    assert len(found) == min(len(set(packets)), KEPT)
    latest = list(dict.fromkeys(reversed(packets)))[: len(found)]
    assert [one.what for one in found] == latest
    if len(set(packets)) <= KEPT:
        assert {one.what: one.packets for one in found} == Counter(packets)
    assert [one.what for one in denials.after(seen, 0)] == list(dict.fromkeys(reversed(packets[seen:])))[: len(found)]
    assert denials.change == len(packets)


def test_what_matters_less_makes_room_first_and_hides_nothing_else() -> None:
    denials = Denials[int](lambda one: one < 0)
    for what in range(10):
        denials.add(what, 1.0)
    for what in range(2 * KEPT):
        denials.add(-1 - what, 2.0)
    found = [one.what for one in denials.after(0, 3.0)]
    assert len(found) == KEPT and found[-10:] == list(reversed(range(10))) and found[0] == -2 * KEPT
    for what in range(10, 2 * KEPT):
        denials.add(what, 3.0)
    assert [one.what for one in denials.after(0, 3.0)] == list(reversed(range(KEPT, 2 * KEPT)))


@given(st.lists(st.integers(-2 * KEPT, 2 * KEPT), min_size=KEPT, max_size=2000))
def test_who_makes_room_is_the_oldest_of_those_that_matter_less_and_is_not_searched_for(packets: list[int]) -> None:
    asked = Counter[int]()

    def is_less(what: int) -> bool:
        asked[what] += 1
        return what < 0

    denials, model = Denials[int](is_less), list[int]()
    for what in packets:
        denials.add(what, 1.0)
        model = [*(one for one in model if one != what), what]
        if len(model) > KEPT:
            model.remove(next((one for one in model if one < 0), model[0]))
    assert [one.what for one in denials.after(0, 1.0)] == model[::-1]
    assert asked == Counter(packets), "each packet asks once"

"""Responses that are kept: until what they depend on changes, and within a bound."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from podplane.nameserver.kept import ENTRY_BYTES, KEY_BYTES, SLICE, Kept


def test_kept_until_a_key_changes() -> None:
    kept = Kept()
    kept.put(b"a", b"A", 1, ("service/x/a", "namespace/x"))
    kept.put(b"b", b"B", 2, ("namespace/x",))
    assert kept.get(b"a") == (b"A", 1, ("service/x/a", "namespace/x"))
    kept.changed("service/x/a")
    assert kept.get(b"a") is None and kept.get(b"b") is not None
    kept.changed("namespace/x")
    assert kept.get(b"b") is None and len(kept) == 0


def test_kept_again_after_a_change() -> None:
    kept = Kept()
    for response in (b"1", b"2"):
        kept.put(b"a", response, 0, ("k", "other"))
        kept.changed("k")
    kept.put(b"a", b"3", 0, ("k", "other"))
    kept.changed("other")
    assert kept.get(b"a") is None


def test_a_storm_of_names_does_not_push_out_what_is_asked_for_often() -> None:
    kept = Kept(200_000)
    kept.put(b"popular", b"P", 0, ("p",))
    for i in range(5_000):
        kept.put(b"random %d" % i, bytes(50), 0, (f"service/x/{i}",))
        if not i % 100:
            assert kept.get(b"popular") is not None
    kept.changed("p")
    assert kept.get(b"popular") is None


def test_memory_is_bounded_by_bytes_also_of_changes_without_end() -> None:
    kept = Kept(100_000)
    most = 0
    for i in range(3_000):
        kept.put(b"q%d" % (i % 7), bytes(200), 0, (f"k{i}", "always"))
        kept.changed(f"k{i}")
        most = max(most, kept.size)
    assert most <= 100_000 + 2 * (ENTRY_BYTES + 2 * KEY_BYTES + 210)


def test_one_response_that_is_longer_than_all_room_is_kept_alone() -> None:
    kept = Kept(1_000)
    kept.put(b"a", bytes(60_000), 0, ("k",))
    kept.put(b"b", b"B", 0, ("k",))
    kept.put(b"c", b"C", 0, ("k",))
    kept.changed("k")
    assert len(kept) == 0


def test_what_was_laid_aside_is_changed_when_it_is_asked_for_again() -> None:
    kept = Kept(turned=lambda response: response[1:] + response[:1])
    kept.put(b"a", b"123", 4, ("k", "turn"))
    for expected in (b"231", b"312"):
        assert not list(kept.lay_aside("turn"))
        assert b"a" not in kept.replies and len(kept) == 1
        assert kept.get(b"a") == (expected, 4, ("k", "turn")) and kept.replies[b"a"][0] == expected
    for is_aside in (False, True):
        if is_aside:
            assert not list(kept.lay_aside("turn"))
        kept.changed("k")
        assert kept.get(b"a") is None and len(kept) == 0
        kept.put(b"a", b"123", 4, ("k", "turn"))


def test_what_was_laid_aside_long_ago_is_still_there_or_gone() -> None:
    kept = Kept(4_000, turned=bytes.upper)
    kept.put(b"a", b"abc", 0, ("k", "turn"))
    assert not list(kept.lay_aside("turn"))
    for i in range(6):
        kept.put(b"q%d" % i, bytes(200), 0, (f"k{i}",))
    assert kept.get(b"a") == (b"ABC", 0, ("k", "turn"))
    kept.changed("k")
    assert kept.get(b"a") is None
    kept.put(b"a", b"abc", 0, ("k", "turn"))
    assert not list(kept.lay_aside("turn"))
    for i in range(60):
        kept.put(b"r%d" % i, bytes(200), 0, (f"k{i}",))
    assert kept.get(b"a") is None


def test_much_is_laid_aside_and_dropped_in_slices() -> None:
    kept = Kept(turned=bytes.upper)
    for i in range(3 * SLICE):
        kept.put(b"q%d" % i, b"abc", 0, ("k", "turn"))
    for _ in kept.lay_aside("turn"):
        assert 0 < len(kept.replies) < 3 * SLICE and not len(kept.replies) % SLICE
    assert not kept.replies and kept.get(b"q7") == (b"ABC", 0, ("k", "turn"))
    assert kept.has("turn")
    for i in range(3 * SLICE):
        kept.put(b"q%d" % i, b"abc", 0, ("k", "second 1"))
    assert len(list(kept.expire("second 1"))) == 2 and not kept.replies and not kept.has("second 1")


def test_what_much_was_made_of_is_dropped_in_slices_the_first_at_once() -> None:
    kept = Kept(turned=bytes.upper)
    for i in range(3 * SLICE):
        kept.put(b"q%d" % i, b"abc", 0, ("k", "turn"))
    for i in range(SLICE):
        kept.put(b"r%d" % i, b"abc", 0, ("other",))
    assert not list(kept.lay_aside("turn"))[2:]
    assert kept.get(b"q7") is not None
    slices = kept.changed("k")
    assert len(kept) == 3 * SLICE
    next(slices)
    assert len(kept) == 2 * SLICE
    assert not list(slices) and len(kept) == SLICE and kept.get(b"r7") is not None
    assert not list(kept.changed("k")) and not list(kept.changed("nothing"))
    assert not list(kept.changed("other")) and len(kept) == 0, "one slice is dropped at once"


def test_what_moves_or_is_made_anew_between_two_slices_is_dropped_in_time_or_kept() -> None:
    kept = Kept(2 * SLICE * 600)
    for i in range(2 * SLICE):
        kept.put(b"q%d" % i, bytes(100), 0, ("k", "second 1"))
    while b"q0" in kept.replies:
        kept.put(b"r%d" % len(kept), bytes(10_000), 0, ("other",))
    slices = kept.expire("second 1")
    next(slices)
    last = b"q%d" % (2 * SLICE - 1)
    others = [b"q%d" % i for i in range(2 * SLICE) if kept.get(b"q%d" % i)]  # in the younger generation now
    assert others
    kept.put(others[0], b"anew", 0, ("k", "second 2"))
    assert not list(slices)
    assert [question for question in (*others, last) if kept.get(question)] == others[:1]


def test_nothing_is_left_after_clear() -> None:
    kept = Kept()
    kept.put(b"a", b"A", 0, ("k",))
    kept.clear()
    assert (kept.get(b"a"), len(kept), kept.size) == (None, 0, 0)


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_what_is_kept_is_what_was_put_last_and_not_changed_since(seed: int, room: int) -> None:
    chance = random.Random(seed)
    kept, truth = Kept(room * 1_000), dict[bytes, tuple[bytes, tuple[str, ...]]]()
    for _ in range(200):
        if chance.random() < 0.3:
            key = f"k{chance.randrange(6)}"
            kept.changed(key)
            truth = {q: (r, keys) for q, (r, keys) in truth.items() if key not in keys}
        else:
            question, response = b"q%d" % chance.randrange(20), chance.randbytes(4)
            keys = tuple({f"k{chance.randrange(6)}" for _ in range(chance.randint(1, 3))})
            # One question is rendered again only when what it was made of changed.
            if question not in truth:
                kept.put(question, response, 0, keys)
                truth[question] = response, keys
        for question in [b"q%d" % i for i in range(20)]:
            found = kept.get(question)
            if found is None:
                truth.pop(question, None)
            else:
                assert (found[0], found[2]) == truth[question]

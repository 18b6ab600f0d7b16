"""Settings of Python that keep its collections and threads from holding up an event loop."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from podplane import pauses

COUNT = 150_000


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Other tests of this process keep its settings."""
    thresholds, switch = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(switch)


def test_a_collection_looks_at_little_of_what_was_made() -> None:
    pauses.shorten()
    looked_at: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looked_at.append(sum(len(gc.get_objects(one)) for one in range(info["generation"] + 1)))

    gc.callbacks.append(note)
    try:
        kept = [[number] for number in range(COUNT)]
    finally:
        gc.callbacks.remove(note)
    first, second, _ = pauses.THRESHOLDS
    assert len(kept) == COUNT and len(looked_at) >= COUNT // first - 1
    assert max(looked_at) <= 1.5 * first * second < COUNT


def test_what_is_there_by_then_is_not_looked_at_again() -> None:
    kept = [[number] for number in range(1_000)]
    pauses.shorten()
    assert gc.get_freeze_count() > len(kept) and gc.get_count()[2] < pauses.THRESHOLDS[2]


def test_a_start_without_collections_ends_without_one() -> None:
    collections: list[str] = []
    gc.disable()
    try:
        kept = [[number] for number in range(COUNT)]
        gc.callbacks.append(note := lambda phase, info: collections.append(phase))
        pauses.shorten()
        more = [[number] for number in range(pauses.THRESHOLDS[0] // 2)]
        gc.callbacks.remove(note)
        assert collections == [] and kept and more and gc.isenabled()
    finally:
        gc.enable()


def test_a_thread_that_computes_gives_way_soon() -> None:
    pauses.shorten()
    assert 10 * sys.getswitchinterval() < 0.005  # ten system calls of a request wait no longer than one did

"""The pool of a lab: all of its threads run from the start."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from podplane.lab import threads
from podplane.lab.errors import LabError


def workers() -> int:
    return sum(thread.name.startswith("work_") for thread in threading.enumerate())


def test_all_threads_run_before_the_first_work_and_no_work_makes_more() -> None:
    before = workers()
    pool = threads.started()
    assert workers() == before + threads.number()
    for future in [pool.submit(time.sleep, 0.001) for _ in range(10 * threads.number())]:
        future.result()
    assert workers() == before + threads.number()
    pool.shutdown()
    assert workers() == before


@pytest.mark.parametrize(("processors", "expected"), [(None, 5), (1, 5), (2, 6), (64, threads.MOST)])
def test_many_processors_are_no_reason_for_many_threads(
    processors: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads.os, "cpu_count", lambda: processors)
    assert threads.number() == expected


def test_threads_that_cannot_be_had_are_said_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    before, submit, made = workers(), ThreadPoolExecutor.submit, list[ThreadPoolExecutor]()

    def limited(pool: ThreadPoolExecutor, *work: object) -> object:
        made.append(pool)
        if len(made) == 3:
            raise RuntimeError("can't start new thread")
        return submit(pool, *work)  # type: ignore[arg-type]

    monkeypatch.setattr(ThreadPoolExecutor, "submit", limited)
    with pytest.raises(LabError, match="ulimit -u"):
        threads.started()
    made[0].shutdown()
    assert workers() == before

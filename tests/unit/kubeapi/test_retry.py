"""Delays grow, stay within their bounds, and begin anew after a quiet time; a failure that repeats is logged once."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi.retry import RESET_SECONDS, SILENCE_SECONDS, Backoff, FailureLog


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=30))
def test_a_delay_is_within_its_bounds(randoms: list[float]) -> None:
    backoff, now = Backoff(0.2, 30.0, iter(randoms).__next__), 0.0
    for _ in randoms:
        delay = backoff.delay(now)
        assert 0.2 <= delay <= 30.0
        now += delay


def test_delays_double_up_to_the_highest_and_half_of_each_is_random() -> None:
    least, most = Backoff(1.0, 10.0, lambda: 0.0), Backoff(1.0, 10.0, lambda: 1.0)
    assert [least.delay(0.0) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert [most.delay(0.0) for _ in range(5)] == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_after_a_quiet_time_a_failure_is_a_first_one() -> None:
    backoff = Backoff(1.0, 10.0, lambda: 0.0)
    now = backoff.delay(0.0) + backoff.delay(0.0)
    assert backoff.delay(now + RESET_SECONDS - 1) == 4.0  # the quiet time begins when the last delay is over
    assert backoff.delay(now + 3 * RESET_SECONDS) == 1.0


def test_a_failure_of_one_kind_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(logging.getLogger("test"), "informer resource=pods")
    for second in range(3):
        failures.note("watch OSError", f"reason {second}", 1000.0 + second)
    failures.note("list ApiError", "another", 1003.0)
    assert [r.getMessage() for r in caplog.records] == [
        "informer resource=pods failure='watch OSError' count=1 not_logged=0 error=reason 0",
        "informer resource=pods failure='list ApiError' count=1 not_logged=0 error=another",
    ]
    failures.note("watch OSError", "later", 1000.0 + SILENCE_SECONDS)
    assert "count=4 not_logged=2 error=later" in caplog.records[-1].getMessage()
    assert failures.counts == {"watch OSError": 4, "list ApiError": 1}


def test_the_first_has_a_traceback_where_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(logging.getLogger("test"), "x")
    try:
        raise ValueError("from here")
    except ValueError as error:
        failures.note("a", error, 0.0, error)
    assert "ValueError: from here" in (caplog.records[0].exc_text or "") + caplog.text
    assert caplog.records[0].exc_info

"""Durations as Go writes and reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.runtime import durations


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1, "1s"),
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (7265.5, "2h1m5.5s"),
        (0.3, "300ms"),
        (0.0015, "1.5ms"),
        (2e-6, "2µs"),
        (5e-9, "5ns"),
        (-61, "-1m1s"),
        (-0.5, "-500ms"),
    ],
)
def test_written(seconds: float, text: str) -> None:
    assert durations.written(seconds) == text


@given(st.integers(-(10**15), 10**15))
def test_what_is_written_is_read(nanoseconds: int) -> None:
    assert durations.parse(durations.written(nanoseconds / 10**9)) == pytest.approx(nanoseconds / 10**9, abs=1e-8)

"""Times as Go prints them; the expected texts are those of `fmt.Println(time.Now())`."""

from __future__ import annotations

import time

import pytest

from podplane.runtime import gotime

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("now", "running", "expected"),
    [
        (0, 0, "1970-01-01 00:00:00 +0000 UTC m=+0.000000000"),
        (1_795_725_590 * SECOND + 152_104_000, 62 * SECOND + 5, "2026-11-26 20:39:50.152104 +0000 UTC m=+62.000000005"),
        (SECOND + 1, 999_999_999, "1970-01-01 00:00:01.000000001 +0000 UTC m=+0.999999999"),
        (SECOND + 100_000_000, SECOND, "1970-01-01 00:00:01.1 +0000 UTC m=+1.000000000"),
    ],
)
def test_as_go_prints_it(monkeypatch: pytest.MonkeyPatch, now: int, running: int, expected: str) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        assert gotime.text(now, running) == expected
    finally:
        monkeypatch.undo()
        time.tzset()

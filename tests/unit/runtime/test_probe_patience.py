"""`podplane/probe`: how long it waits for an answer."""

from __future__ import annotations

import time

import pytest

from podplane.runtime.probe import AT_ONCE, TIMEOUT_SECONDS, Prober

PROBE = {"protocol": "icmp", "ip": "127.0.0.1"}


def patience(answers: list[bool]) -> float:
    """The seconds that the next probe has after these answers; nothing is sent."""
    prober = Prober(-1, -1)
    prober._answers = {number: {"ok": ok} for number, ok in enumerate(answers)}
    now = time.monotonic()
    prober._begin(len(answers), PROBE)
    return prober._pending[len(answers)].deadline - now


def test_who_reaches_nobody_waits_less_for_each_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prober, "_send_icmp", lambda prober, pending: None)
    assert patience([]) >= TIMEOUT_SECONDS
    assert patience([False] * (AT_ONCE - 1)) >= TIMEOUT_SECONDS
    assert patience([False] * AT_ONCE) < TIMEOUT_SECONDS / 2
    assert patience([False] * 100 + [True]) >= TIMEOUT_SECONDS, "somebody answers"

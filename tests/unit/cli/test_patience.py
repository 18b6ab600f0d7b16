"""`check --patience`: every wait is so many times as long."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from podplane.cli.check import questions as asking
from podplane.cli.check import sessions
from podplane.cli.check.patience import patient, take
from podplane.cli.check.promises import REACH, Probe

PROBE = Probe(REACH, "a", "b", "tcp", "10.244.1.2", 8080, seen="10.244.1.1", answered_by="b")


@pytest.mark.parametrize("factor", [1, 20])
def test_probers_wait_so_many_times_as_long_and_so_do_those_who_ask_them(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Mapping[str, Any], float]] = []

    def ask_all(found: object, questions: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        asked.append((questions, seconds))
        return {"a": {"answers": [{}]}}

    def run() -> None:
        take(factor)
        asking.probe({"a": SimpleNamespace(failure="")}, [PROBE])  # type: ignore[dict-item]

    monkeypatch.setattr(sessions, "ask_all", ask_all)
    contextvars.copy_context().run(run)
    [(questions, seconds)] = asked
    assert questions["a"]["seconds"] == factor * asking.PROBE_SECONDS
    assert seconds == pytest.approx(factor * (asking.START_SECONDS + asking.SECONDS_A_PROBE))


def test_without_it_they_are_as_usual() -> None:
    assert patient(1.5) == 1.5

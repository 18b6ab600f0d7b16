"""Flags as pflag reads them."""

from __future__ import annotations

import pytest

from podplane.runtime.agnhost.flags import UsageError, Value, parse

DEFAULTS: dict[str, Value] = {"total": 0, "duration": 0.0, "name": "", "on": False}
SHORT = {"t": "total", "d": "duration", "o": "on"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--total=3", "--duration", "1m"], {"total": 3, "duration": 60.0}),
        (["-t", "3", "-d1s"], {"total": 3, "duration": 1.0}),
        (["-t=3", "-o"], {"total": 3, "on": True}),
        (["--on=false", "--name", "--x"], {"name": "--x"}),
    ],
)
def test_what_they_say(words: list[str], wanted: dict[str, Value]) -> None:
    assert parse(words, DEFAULTS, short=SHORT).values == DEFAULTS | wanted


def test_flags_of_logging_are_taken_and_said() -> None:
    found = parse(["--v=5", "-v", "4", "-v=3", "--logtostderr", "--total=1"], DEFAULTS)
    assert found.without_effect == ("--v", "--v", "--v", "--logtostderr")
    assert found.values == DEFAULTS | {"total": 1}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-x", "3"], "unknown flag: -x"),
        (["--nonsense=1"], "unknown flag: --nonsense"),
        (["-t"], "flag needs an argument: --total"),
        (["-t", "x"], 'invalid argument "x" for --total'),
        (["word"], "1 arguments"),
    ],
)
def test_what_is_none_is_said(words: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(words, DEFAULTS, short=SHORT)

"""Numbers in sentences."""

from __future__ import annotations

import pytest

from podplane.model.words import counted, lasting


@pytest.mark.parametrize(("count", "text"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes"), (12345, "12,345 nodes")])
def test_counted(count: int, text: str) -> None:
    assert counted(count, "node") == text


def test_counted_by_another_plural() -> None:
    assert [counted(n, "try", "tries") for n in (1, 2)] == ["1 try", "2 tries"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.9, "0 s"),
        (-3, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (86400, "1 d"),
        (90061, "1 d 1 h"),
        (86400 * 400, "400 d"),
    ],
)
def test_lasting(seconds: float, text: str) -> None:
    assert lasting(seconds) == text

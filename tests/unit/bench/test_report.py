"""The page of figures: what a reader finds in each cell."""

from __future__ import annotations

import pytest

from bench import report
from bench.common import Row

ROW = Row("up", [1.0, 2.0, 4.0], must=1.5, note="a note", work="mixed", factor=1.5, floor=[0.5, 0.5, 0.5], floor_must=5.0)


def cells(row: Row) -> list[str]:
    """The cells of a row's line."""
    return [cell.strip() for cell in report.table([row]).splitlines()[2].strip("|").split("|")]


def test_a_row_with_all_that_a_row_can_have() -> None:
    assert cells(ROW) == [
        "up",
        "2.000 s",
        "1 … 4 (3)",
        "≤ 1.5 s, ≤ 5 × floor",
        "≤ 2.250 s (mixed 1.50)",
        "yes",
        "0.500 s, × 4.0",
        "a note",
    ]


def test_a_rate_is_divided_by_the_factor() -> None:
    row = Row("creates", [900.0], "/s", 1000, at_least=True, work="python", factor=2.0)
    assert cells(row)[3:6] == ["≥ 1000 /s", "≥ 500 /s (python 2.00)", "yes"]


def test_a_figure_without_a_must_has_no_verdict_and_one_without_work_no_factor() -> None:
    assert cells(Row("up", [1.0]))[3:7] == ["", "", "", ""]
    assert cells(Row("memory", [60.0], "MB", 50))[3:6] == ["≤ 50 MB", "", "no"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1234.5, "/s", "1,234 /s"),
        (60.4, "MB", "60 MB"),
        (0.26, "ms", "0.3 ms"),
        (0.2649, "s", "0.265 s"),
        (1.0, "ratio", "1.000 ratio"),
    ],
)
def test_figures(value: float, unit: str, text: str) -> None:
    assert report.figure(value, unit) == text


def test_the_page_has_the_rule_the_calibration_the_machine_and_every_row() -> None:
    page = report.page({"CPU": "one", "date": "today"}, [ROW, ROW], "Calibrated so.")
    assert "machine factor" in page
    assert "Calibrated so." in page
    assert "- CPU: one\n- date: today\n" in page
    assert page.count("| up |") == 2
    assert "{" not in page

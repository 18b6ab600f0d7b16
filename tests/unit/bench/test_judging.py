"""The laws by which figures are judged on machines of any speed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.common import Row
from bench.judging import ABSOLUTE, KERNEL, MIXED, PYTHON, Factors, factor_of, is_kept, is_steady, mean, must_here
from bench.run import with_factors

POSITIVE = st.floats(0.01, 1000)
FACTORS = st.builds(Factors, POSITIVE, POSITIVE)


@given(FACTORS)
def test_a_factor_lies_between_those_of_python_and_kernel(factors: Factors) -> None:
    low, high = sorted((factors.python, factors.kernel))
    assert factor_of(PYTHON, factors) == factors.python
    assert factor_of(KERNEL, factors) == factors.kernel
    assert low <= factor_of(MIXED, factors) <= high
    assert factor_of(MIXED, factors) == pytest.approx((low + high) / 2)
    assert factor_of(ABSOLUTE, factors) == 1


def test_an_unknown_kind_of_work_is_an_error() -> None:
    with pytest.raises(KeyError):
        factor_of("pyhton", Factors())


@given(POSITIVE, POSITIVE, POSITIVE, st.booleans())
def test_the_same_work_on_a_slower_machine_is_judged_the_same(value: float, must: float, factor: float, at_least: bool) -> None:
    """A machine that takes `factor` times as long gets times × factor and rates / factor, and the same verdict."""
    elsewhere = value / factor if at_least else value * factor
    if not math.isclose(value, must, rel_tol=1e-9):
        assert is_kept(elsewhere, must, factor, at_least) == is_kept(value, must, 1.0, at_least)


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE, st.booleans())
def test_a_better_figure_is_never_judged_worse(one: float, other: float, must: float, factor: float, at_least: bool) -> None:
    better, worse = (max(one, other), min(one, other)) if at_least else (min(one, other), max(one, other))
    assert is_kept(better, must, factor, at_least) or not is_kept(worse, must, factor, at_least)


@given(POSITIVE, POSITIVE, st.booleans())
def test_the_limit_itself_is_kept_and_no_number_never(must: float, factor: float, at_least: bool) -> None:
    assert is_kept(must_here(must, factor, at_least), must, factor, at_least)
    assert not is_kept(math.nan, must, factor, at_least)


@given(FACTORS, FACTORS)
def test_the_mean_lies_between(one: Factors, other: Factors) -> None:
    both = mean([one, other])
    assert min(one.python, other.python) <= both.python * 1.000001
    assert both.kernel <= max(one.kernel, other.kernel) * 1.000001
    assert mean([one, one, one]) == Factors(pytest.approx(one.python), pytest.approx(one.kernel))


@pytest.mark.parametrize(
    ("seconds", "must", "factor", "floor", "floor_must", "verdict"),
    [
        (2.0, None, 1.0, [], None, ""),
        (2.0, 1.5, 1.0, [], None, "no"),
        (2.0, 1.5, 1.4, [], None, "yes"),
        (2.0, 1.5, 1.4, [0.5], 5.0, "yes"),
        (2.0, 1.5, 1.4, [0.3], 5.0, "no"),
        (2.0, 1.5, 1.0, [0.5], 5.0, "no"),
        (2.0, None, 1.0, [0.5], 5.0, "yes"),
        (2.0, None, 1.0, [], 5.0, "no"),  # a floor that was not measured keeps nothing
        (2.0, None, 1.0, [0.1], None, ""),
    ],
)
def test_a_row_keeps_its_must_and_its_distance_to_the_floor(
    seconds: float, must: float | None, factor: float, floor: list[float], floor_must: float | None, verdict: str
) -> None:
    row = Row("up", [seconds], must=must, work=MIXED, factor=factor, floor=floor, floor_must=floor_must)
    assert row.verdict == verdict


def test_medians_are_judged() -> None:
    row = Row("up", [1.0, 1.0, 90.0], must=1.0, floor=[0.5, 0.5, 0.001], floor_must=2.0)
    assert (row.value, row.floor_ratio, row.verdict) == (1.0, 2.0, "yes")


def test_each_row_gets_the_factor_of_its_work() -> None:
    rows = [Row(work or "none", [3.0], must=2.0, work=work) for work in (PYTHON, KERNEL, MIXED, ABSOLUTE)]
    judged = with_factors(rows, Factors(1.9, 1.0), Factors(2.1, 1.0))
    assert [row.factor for row in judged] == [2.0, 1.0, 1.5, 1.0]
    assert [row.verdict for row in judged] == ["yes", "no", "yes", "no"]
    assert [row.factor for row in rows] == [1.0] * 4


@given(FACTORS, FACTORS)
def test_steady_is_the_same_in_both_directions_and_holds_for_what_did_not_change(one: Factors, other: Factors) -> None:
    assert is_steady(one, other) == is_steady(other, one)
    assert is_steady(one, one)


@pytest.mark.parametrize(
    ("before", "after", "steady"),
    [
        (Factors(1.0, 1.0), Factors(1.2, 0.85), True),
        (Factors(1.0, 1.0), Factors(1.3, 1.0), False),
        (Factors(1.0, 1.0), Factors(1.0, 0.7), False),
    ],
)
def test_a_must_is_not_called_kept_by_a_factor_that_changed(before: Factors, after: Factors, steady: bool) -> None:
    rows = [Row("slow", [9.0], must=1.0, work=MIXED), Row("quick", [0.1], must=1.0, work=MIXED), Row("bytes", [1.0], must=2.0)]
    slow, quick, size = with_factors([*rows], before, after)
    assert is_steady(before, after) == steady
    assert (slow.verdict, quick.verdict, size.verdict) == ("no", "yes" if steady else "unsure", "yes")
    assert with_factors([Row("none", [1.0], work=MIXED)], before, after)[0].verdict == ""

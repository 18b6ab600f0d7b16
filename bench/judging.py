"""Is a figure what it must be, on a machine that is faster or slower than the one for which musts are written? Pure functions.

A must in seconds is written for the reference machine. Elsewhere it is multiplied by a machine factor: how many times as long as the
reference machine this one took for a fixed piece of work, measured in the same run (see `factor`). Which piece fits a figure is said by its
row: "python" where planning, coding and serving take the time; "kernel" where the kernel does; "mixed" where both have a like part. Ratios,
bytes and counts are the same everywhere: they have no factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ABSOLUTE, PYTHON, KERNEL, MIXED = "", "python", "kernel", "mixed"
PYTHON_SHARE = {PYTHON: 1.0, KERNEL: 0.0, MIXED: 0.5}
"""How much of a figure's time on the reference machine is Python's."""


@dataclass(frozen=True, slots=True)
class Factors:
    """How many times as long as the reference machine this one takes, for Python and for the kernel."""

    python: float = 1.0
    kernel: float = 1.0


def mean(several: Sequence[Factors]) -> Factors:
    """The mean of factors that were measured before and after something."""
    return Factors(sum(one.python for one in several) / len(several), sum(one.kernel for one in several) / len(several))


STEADY = 1.25
"""A factor that changes by more than this while something is measured says little about it."""


def is_steady(before: Factors, after: Factors) -> bool:
    """Did the machine stay as fast as it was?"""
    pairs = ((before.python, after.python), (before.kernel, after.kernel))
    return all(max(pair) <= STEADY * min(pair) for pair in pairs)


def factor_of(work: str, factors: Factors) -> float:
    """The machine factor of one kind of work; 1 for what does not depend on a machine's speed. KeyError for an unknown kind."""
    if work == ABSOLUTE:
        return 1.0
    share = PYTHON_SHARE[work]
    return share * factors.python + (1 - share) * factors.kernel


def must_here(must: float, factor: float, at_least: bool) -> float:
    """A must on this machine: a time is multiplied, a rate (`at_least`) divided."""
    return must / factor if at_least else must * factor


def is_kept(value: float, must: float, factor: float, at_least: bool) -> bool:
    """Is the figure what it must be on this machine? Not a number never is."""
    limit = must_here(must, factor, at_least)
    return value >= limit if at_least else value <= limit

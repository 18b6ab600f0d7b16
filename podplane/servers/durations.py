"""How long something took: a histogram with fixed buckets, as Prometheus has them."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets, in seconds; one more bucket has no bound."""


class Durations:
    """Counts by bucket, and the sum; `bounds` are those of the buckets."""

    def __init__(self, bounds: Sequence[float] = BOUNDS) -> None:
        self.total = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def add(self, seconds: float, times: int = 1) -> None:
        """It took so long, once more or so many times."""
        self._counts[bisect.bisect_left(self._bounds, seconds)] += times
        self.total += seconds * times

    @property
    def count(self) -> int:
        """How often it happened."""
        return sum(self._counts)

    def cumulative(self) -> list[tuple[str, int]]:
        """(bound, how many took so long at most), up to "+Inf"."""
        return list(zip([*map(str, self._bounds), "+Inf"], itertools.accumulate(self._counts), strict=True))

"""How many questions a second each node's server has answered over the last seconds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable

from podplane.servers.dns_counts import Counts

SAMPLE_SECONDS, SAMPLES = 2.0, 6


class Rates:
    """Samples of the counts, the oldest some ten seconds old. `clock` gives seconds of a monotonic clock."""

    def __init__(self, counts: Counts, clock: Callable[[], float] = time.monotonic) -> None:
        self._counts = counts
        self._clock = clock
        self._samples: deque[tuple[float, Counter[str]]] = deque(maxlen=SAMPLES)
        self.sample()

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.sample()

    def sample(self) -> None:
        """Look at the counts now."""
        self._samples.append((self._clock(), self._totals()))

    def answers(self, node: str) -> int:
        """The questions that a node has answered."""
        return self._totals()[node]

    def rate(self, node: str) -> float:
        """Answers of a node in a second."""
        then, totals = self._samples[0]
        seconds = self._clock() - then
        return max(0, self.answers(node) - totals[node]) / seconds if seconds > 0 else 0.0

    def _totals(self) -> Counter[str]:
        totals: Counter[str] = Counter()
        for lane in self._counts.lanes.values():
            totals[lane.node] += lane.durations.count
        return totals

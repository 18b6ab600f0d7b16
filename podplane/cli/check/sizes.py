"""The largest packet that passes where one of full size does not: something between two nodes carries less than they know. Pure: no packet
is sent here.

Several sizes are asked for at a time, evenly between one that passes and one that does not: three rounds find the exact one of 1,500.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from podplane.cli.check.promises import Probe, judge

MOST_WAYS = 16
"""Of so many ways the size is looked for."""
AT_ONCE = 15
"""Sizes of one round, fewer than a prober has on their way at one time."""
SMALLEST = 100
"""Bytes: where not even so small a packet passes, it is not the size."""
PATIENCE_SECONDS = 0.9
Answers = Mapping[Probe, Mapping[str, Any]]
Ask = Callable[[list[Probe]], Answers]


def passing(failed: Iterable[Probe], answers: Answers, ask: Ask) -> dict[Probe, int]:
    """The largest size that passes instead of each of these, of the first of those that failed still; 0 where none does."""
    still = [probe for probe in failed if judge(probe, answers.get(probe))][:MOST_WAYS]
    ranges = {probe: (0, probe.size) for probe in still}
    while open_ := {probe: tried for probe, (low, high) in ranges.items() if (tried := between(low, high))}:
        asked = {probe: [replace(probe, size=size) for size in tried] for probe, tried in open_.items()}
        got = ask([one for sized in asked.values() for one in sized])
        for probe, sized in asked.items():
            ranges[probe] = _narrowed(ranges[probe], {one.size: not judge(one, got.get(one)) for one in sized})
    return {probe: low for probe, (low, _) in ranges.items()}


def between(low: int, high: int) -> list[int]:
    """Sizes to try between one that passes (0: none is known) and one that does not; none when there is nothing between."""
    first = max(low + 1, SMALLEST)
    count = high - first
    if count <= AT_ONCE:
        return list(range(first, high))
    return sorted({first + count * i // AT_ONCE for i in range(AT_ONCE)})


def _narrowed(known: tuple[int, int], passes: Mapping[int, bool]) -> tuple[int, int]:
    """The next range: the largest that passed, and the smallest above it that did not."""
    low = max((size for size, passed in passes.items() if passed), default=known[0])
    if not low:
        return 0, SMALLEST
    return low, min((size for size, passed in passes.items() if not passed and size > low), default=known[1])


def sentence(probe: Probe, size: int, node_of: Mapping[str, str]) -> str:
    """What does not pass, from which node to which, and what does."""
    nodes = f"{node_of[probe.source]} → {node_of[probe.target]}"
    instead = f"{size} bytes pass" if size else "none passes, whatever its size"
    return f"{nodes}: packets of {probe.size} bytes do not pass, {instead} ({probe.source} → {probe.target} {probe.ip})"

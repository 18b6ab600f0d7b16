"""Sets of indexes of a Job as text, such as 0-2,5,7 (pkg/controller/job/indexed_job_utils.go). Pure."""

from __future__ import annotations

import bisect
import re
from collections.abc import Collection, Sequence

INTERVAL = re.compile(r"([0-9]+)(?:-([0-9]+))?", re.ASCII)


def ranges_of(text: str) -> list[range]:
    """The ranges of a text, in its order. ValueError for a text that is none, or whose numbers do not grow."""
    found: list[range] = []
    for part in text.split(",") if text else ():
        matched = INTERVAL.fullmatch(part)
        if matched is None:
            raise ValueError(f"cannot convert {part!r} to an index or a range of indexes such as 3-5")
        first, last = int(matched[1]), int(matched[2] or matched[1])
        if matched[2] is not None and last <= first:
            raise ValueError(f"the last index of a range must be greater than the first: {part!r}")
        if found and first < found[-1].stop:
            raise ValueError(f"non-increasing order, previous: {found[-1].stop - 1}, current: {first}")
        found.append(range(first, last + 1))
    return found


def indexes_of(text: str, completions: int | None = None) -> set[int]:
    """The numbers of a text, those below `completions` alone: a Job may have been made smaller."""
    end = float("inf") if completions is None else completions
    return {index for part in ranges_of(text) for index in range(part.start, int(min(part.stop, end)))}


def text_of(indexes: Collection[int]) -> str:
    """The text of some numbers; a range has three at least."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def count_in(ranges: Sequence[range], indexes: Collection[int]) -> int:
    """How many of these numbers are in the ranges, which are in order."""
    starts = [part.start for part in ranges]
    places = ((bisect.bisect_right(starts, index) - 1, index) for index in indexes)
    return sum(place >= 0 and index in ranges[place] for place, index in places)

"""Sets of indexes of a Job as text, such as 0-2,5,7 (pkg/controller/job/indexed_job_utils.go). Pure."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator

INTERVAL = re.compile("([0-9]{1,18})(?:-([0-9]{1,18}))?")


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


class Indexes:
    """A set of indexes, kept as ranges in order that do not touch: a Job may have 2**31 - 1 of them, all named by one range."""

    __slots__ = ("_starts", "ranges")

    def __init__(self, ranges: Iterable[range] = ()) -> None:
        self.ranges: list[range] = []
        for part in sorted((part for part in ranges if part), key=lambda part: part.start):
            if self.ranges and part.start <= self.ranges[-1].stop:
                self.ranges[-1] = range(self.ranges[-1].start, max(part.stop, self.ranges[-1].stop))
            else:
                self.ranges.append(part)
        self._starts = [part.start for part in self.ranges]

    @classmethod
    def of(cls, indexes: Iterable[int]) -> Indexes:
        """Those of single numbers."""
        return cls(range(index, index + 1) for index in indexes)

    @classmethod
    def named(cls, text: str, completions: int) -> Indexes:
        """Those of a text, the ones below `completions` alone: a Job may have been made smaller."""
        return cls(range(part.start, min(part.stop, completions)) for part in ranges_of(text))

    def __len__(self) -> int:
        return sum(map(len, self.ranges))

    def __contains__(self, index: int) -> bool:
        place = bisect.bisect_right(self._starts, index) - 1
        return place >= 0 and index in self.ranges[place]

    def __or__(self, other: Indexes) -> Indexes:
        return Indexes((*self.ranges, *other.ranges))

    def __and__(self, other: Indexes) -> Indexes:
        found: list[range] = []
        mine, theirs = 0, 0
        while mine < len(self.ranges) and theirs < len(other.ranges):
            one, two = self.ranges[mine], other.ranges[theirs]
            found.append(range(max(one.start, two.start), min(one.stop, two.stop)))
            mine, theirs = (mine + 1, theirs) if one.stop < two.stop else (mine, theirs + 1)
        return Indexes(found)

    def missing(self, completions: int) -> Iterator[int]:
        """Those below `completions` that are not in it, one after the other."""
        begin = 0
        for part in self.ranges:
            yield from range(begin, min(part.start, completions))
            begin = part.stop
        yield from range(begin, completions)

    def __str__(self) -> str:
        """As the status has it: a range has three at least."""
        return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 2 else ",".join(map(str, part)) for part in self.ranges)

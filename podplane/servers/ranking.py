"""Who has most: so that where places are short, the one with most loses one first."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Ranking(Generic[K]):
    """Owners by how many things they have, up to `highest`. Each step costs the same, however many owners there are."""

    def __init__(self, highest: int) -> None:
        self._having: list[dict[K, None]] = [{} for _ in range(highest + 1)]
        self._top = 0

    def grown(self, owner: K, count: int) -> None:
        """It has so many now: one more than before."""
        if count > 1:
            del self._having[count - 1][owner]
        self.add(owner, count)

    def add(self, owner: K, count: int) -> None:
        """One that is not known yet has so many."""
        self._having[count][owner] = None
        if count > self._top:
            self._top = count

    def shrunk(self, owner: K, count: int) -> None:
        """It has so many now: one less than before."""
        having = self._having
        del having[count + 1][owner]
        if count:
            having[count][owner] = None
        if not having[self._top]:
            self._top = count  # this one had most, and nobody has more now

    def first(self, count: int) -> K | None:
        """Who has most; None when nobody has more than one who has `count` would have with one more."""
        return next(iter(self._having[self._top])) if self._top > count + 1 else None

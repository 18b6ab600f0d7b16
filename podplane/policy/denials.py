"""What was denied lately: equal packets are one entry with a count. Pure, and bounded whatever comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T", bound=Hashable)
KEPT, KEPT_SECONDS = 256, 600.0
"""So many entries are kept, and each so long after its last packet."""


class Entry(NamedTuple, Generic[T]):
    """Equal packets: the number of the entry, which no later one has; how many packets, and when the first and the last one came.

    `change` grows with each packet, over all entries: what came after a `change` that was seen is new.
    """

    number: int
    what: T
    packets: int
    first: float
    last: float
    change: int


class Denials(Generic[T]):
    """The entries, the one with the newest packet last. Times are seconds of the caller's clock, which does not go back.

    Those that `is_less` make room first, and only for each other: a flood of them hides none that matters more.
    """

    def __init__(self, is_less: Callable[[T], bool] = lambda _: False) -> None:
        self._is_less = is_less
        self._entries: OrderedDict[T, Entry[T]] = OrderedDict()
        self._less: OrderedDict[T, None] = OrderedDict()
        """Those of the entries that make room first, in their order."""
        self._numbers = 0
        self.change = 0
        """That of the newest packet, which is the number of packets so far."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, what: T, now: float) -> None:
        """A packet came."""
        self.change += 1
        old = self._remove(what)
        if old is None or now - old.last > KEPT_SECONDS:
            self._numbers += 1
            self._entries[what] = Entry(self._numbers, what, 1, now, now, self.change)
        else:
            self._entries[what] = old._replace(packets=old.packets + 1, last=now, change=self.change)
        if self._is_less(what):
            self._less[what] = None
        if len(self._entries) > KEPT:
            self._remove(next(iter(self._less or self._entries)))

    def after(self, change: int, now: float) -> Iterator[Entry[T]]:
        """The entries that packets came to after this change, the newest first; 0: all. Old ones are forgotten."""
        while self._entries and now - next(iter(self._entries.values())).last > KEPT_SECONDS:
            self._remove(next(iter(self._entries)))
        for one in reversed(self._entries.values()):
            if one.change <= change:
                return
            yield one

    def _remove(self, what: T) -> Entry[T] | None:
        self._less.pop(what, None)
        return self._entries.pop(what, None)

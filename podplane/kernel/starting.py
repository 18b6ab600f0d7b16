"""In which order processes are started: each pod, and each container that is joined, has its turn. Pure.

A pod that asks for many at once keeps the others waiting for one of them at a time, and what joins a container, as commands of probes do,
waits for no start of others: it has a queue of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Who waits, by owner. Of one owner the first goes first that may, and then the others have their turn."""

    def __init__(self) -> None:
        self._owners: dict[int, deque[T]] = {}
        """The first of them is the next."""

    def __iter__(self) -> Iterator[T]:
        return (one for waiting in self._owners.values() for one in waiting)

    def add(self, owner: int, one: T) -> None:
        """One more."""
        self._owners.setdefault(owner, deque()).append(one)

    def remove(self, owner: int, one: T) -> None:
        """It does not wait any more."""
        waiting = self._owners[owner]
        waiting.remove(one)
        if not waiting:
            del self._owners[owner]

    def next(self, may_begin: Callable[[T], bool]) -> T | None:
        """Whose turn it is; it goes on to wait. None when nobody may begin."""
        for owner, waiting in self._owners.items():
            for one in waiting:
                if may_begin(one):
                    self._owners[owner] = self._owners.pop(owner)
                    return one
        return None

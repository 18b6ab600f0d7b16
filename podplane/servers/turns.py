"""What clients want and have to wait for: each has one in turn.

There is room for so many in all, and so many of each client. A client that has as many as it may loses what it wants next; when the room is
used up, the client with most loses its newest, which may be the one that just came.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from podplane.servers.ranking import Ranking

T = TypeVar("T")


class Turns(Generic[T]):
    """`total` at most, `of_client` of each client."""

    def __init__(self, total: int, of_client: int) -> None:
        self._total, self._of_client = total, of_client
        self._count = 0
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._ranking: Ranking[str] = Ranking(of_client)

    def __len__(self) -> int:
        return self._count

    def put(self, client: str, one: T) -> T | None:
        """Let it wait. What is lost in its place, or itself; None when nothing is."""
        own = self._waiting.get(client)
        size = 0 if own is None else len(own)
        if size >= self._of_client:
            return one
        lost = None
        if self._count >= self._total:
            loser = self._ranking.first(size)
            if loser is None:
                return one
            others = self._waiting[loser]
            lost = others.pop()  # it has another one at least
            self._ranking.shrunk(loser, len(others))
            self._count -= 1
        if own is None:
            own = self._waiting[client] = deque()
        own.append(one)
        self._count += 1
        self._ranking.grown(client, size + 1)
        return lost

    def take(self) -> T:
        """The oldest of the client whose turn it is. There must be one."""
        client, own = self._waiting.popitem(last=False)
        one = own.popleft()
        if own:
            self._waiting[client] = own
        self._count -= 1
        self._ranking.shrunk(client, len(own))
        return one

    def clear(self) -> None:
        """Nothing waits any more."""
        while self._count:
            self.take()

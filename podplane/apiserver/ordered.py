"""A sorted map whose snapshots cost nothing per entry: the order of the stored objects of one resource.

Entries stand in blocks of at most `BLOCK`, sorted by key. A block is never changed in place: a write replaces the one block that it
concerns. A snapshot takes references to the blocks of its range, and stays as it was made, whatever is written after it. So a range
costs what it holds, never what else is in the map.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is ""."""
V = TypeVar("V")
BLOCK = 256
"""A full block is split; a write copies one block, a snapshot one reference for each."""
FIRST: Key = ("", "")


class Snapshot(Generic[V]):
    """The entries of a range of keys as they were at one moment, in the order of their keys."""

    __slots__ = ("_blocks",)

    def __init__(self, blocks: list[list[tuple[Key, V]]]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[tuple[Key, V]]:
        for block in self._blocks:
            yield from block

    def __len__(self) -> int:
        return sum(map(len, self._blocks))


class Ordered(Generic[V]):
    """Values by key, and in the order of their keys."""

    def __init__(self) -> None:
        self._values: dict[Key, V] = {}
        self._blocks: list[list[tuple[Key, V]]] = []
        self._starts: list[Key] = []
        """The first key of each block."""

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> V | None:
        """One value."""
        return self._values.get(key)

    def set(self, key: Key, value: V) -> None:
        """Add or replace an entry."""
        self._values[key] = value
        if not self._blocks:
            self._blocks, self._starts = [[(key, value)]], [key]
            return
        at = max(0, bisect_right(self._starts, key) - 1)
        block = list(self._blocks[at])
        place = bisect_left(block, key, key=_key)
        present = place < len(block) and block[place][0] == key
        block[place : place + present] = [(key, value)]
        self._replace(at, block)

    def discard(self, key: Key) -> None:
        """Remove an entry, if it is there."""
        if key not in self._values:
            return
        del self._values[key]
        at = bisect_right(self._starts, key) - 1
        self._replace(at, [entry for entry in self._blocks[at] if entry[0] != key])

    def _replace(self, at: int, block: list[tuple[Key, V]]) -> None:
        """Put a block in the place of another one: split when it is full, left out when it is empty."""
        if len(block) > BLOCK:
            last = at == len(self._blocks) - 1  # keys often come in their order: then the first part stays full
            half = BLOCK if last else len(block) // 2
            parts = [block[:half], block[half:]]
        else:
            parts = [block] if block else []
        self._blocks[at : at + 1] = parts
        self._starts[at : at + 1] = [part[0][0] for part in parts]

    def snapshot(self, namespace: str = "", after: Key | None = None) -> Snapshot[V]:
        """All entries, or those of one namespace; those after a key only, if one is given."""
        low = FIRST if after is None else (after[0], after[1] + "\0")  # no string is between one and itself with a NUL
        if namespace:
            low = max(low, (namespace, ""))
        high = (namespace + "\0", "") if namespace else None
        begin = max(0, bisect_right(self._starts, low) - 1)
        end = bisect_left(self._starts, high) if high is not None else len(self._blocks)
        blocks = self._blocks[begin:end]
        if blocks and high is not None:
            blocks[-1] = blocks[-1][: bisect_left(blocks[-1], high, key=_key)]
        if blocks:
            blocks[0] = blocks[0][bisect_left(blocks[0], low, key=_key) :]
        return Snapshot(blocks)


def _key(entry: tuple[Key, V]) -> Key:
    return entry[0]

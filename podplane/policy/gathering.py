"""Many elements put in order, some at a time: no step takes longer than one walk through all of them."""

from __future__ import annotations

from collections.abc import Iterable


class Gathered:
    """The elements of one set; their keys are the first `key_bytes` of each."""

    def __init__(self, key_bytes: int) -> None:
        self._key_bytes = key_bytes
        self._keys: set[bytes] = set()
        self._runs: list[list[bytes]] = []
        """Each in order, and more than twice as long as the next one."""

    def add(self, elements: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """Add some; of those whose key another one has already, key and element: they are not added."""
        size, keys, new, others = self._key_bytes, self._keys, list[bytes](), list[tuple[bytes, bytes]]()
        for element in elements:
            key = element[:size]
            if key in keys:
                others.append((key, element))
            else:
                keys.add(key)
                new.append(element)
        self._runs.append(sorted(new))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            self._join()
        return others

    def all(self) -> list[bytes]:
        """All, in order."""
        while len(self._runs) > 1:
            self._join()
        return self._runs[0] if self._runs else []

    def _join(self) -> None:
        last = self._runs.pop()
        self._runs[-1] = sorted(self._runs[-1] + last)  # it finds that both parts are in order, and merges them

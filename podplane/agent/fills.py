"""What is to be in the kernel before the plan of a key is carried out: objects of other keys, which are planned first.

    key ──► its plan needs sets that are not filled ──► a `Fill`: the keys that bring their elements are planned, and the kernel has them
      ▲                                                                                                                        │
      └────────────────────────────────────────── it is planned again ◄─────────────────────────────────────────────────────────┘

Until then the key keeps the fragment that it has. Several keys may wait for one fill, and a key for several.

What is little is planned together with the key that needs it, and nobody waits: the writer takes both at once, or what is needed first, and
the kernel door fills sets before it leads anybody to them. Whoever has a pod's objects sent between others names the contents of its sets
beside them (`Attachments`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import NamedTuple

from podplane.agent.keys import Key
from podplane.state.value import Identity

Need = Hashable
"""What a plan needs: something that a fill brings, in the terms of its feature."""


class ToFill(NamedTuple):
    """The keys that bring what a plan needs; `at_once`: they are planned with it."""

    keys: Iterable[Key]
    at_once: bool = False


class Fill:
    """The keys that bring what is needed, and what the kernel is to have of them as far as they are planned. `kind`: the keys that wait."""

    def __init__(self, kind: type[Key], needs: Collection[Need], keys: Iterable[Key]) -> None:
        self.kind = kind
        self.needs = needs
        self.keys: Iterator[Key] = iter(keys)
        self.planned: dict[Identity, None] = {}


class Fills:
    """Those of one agent that have not ended, and the keys that wait for them."""

    def __init__(self) -> None:
        self._by_need: dict[Need, Fill] = {}
        self._fills: dict[Fill, dict[Key, None]] = {}
        self._awaited: dict[Key, list[Fill]] = {}

    def __len__(self) -> int:
        return len(self._fills)

    def all(self) -> list[Fill]:
        """All of them."""
        return list(self._fills)

    def has(self, fill: Fill) -> bool:
        """Has it not ended?"""
        return fill in self._fills

    def missing(self, needs: Iterable[Need]) -> frozenset[Need]:
        """What of this no fill brings yet."""
        return frozenset(need for need in needs if need not in self._by_need)

    def begin(self, fill: Fill) -> None:
        """Its needs are brought by this one."""
        self._fills[fill] = {}
        self._by_need |= dict.fromkeys(fill.needs, fill)

    def wait(self, key: Key, needs: Iterable[Need]) -> bool:
        """A key waits for the fills that bring these; are there any?"""
        awaited = list(dict.fromkeys(self._by_need[need] for need in needs if need in self._by_need))
        for fill in awaited:
            self._fills[fill][key] = None
        if awaited:
            self._awaited[key] = awaited
        return bool(awaited)

    def awaited(self, key: Key) -> Collection[Fill]:
        """What a key waits for."""
        return tuple(self._awaited.get(key, ()))

    def forget(self, key: Key) -> None:
        """A key waits no more."""
        for fill in self._awaited.pop(key, ()) if self._awaited else ():
            self._fills.get(fill, {}).pop(key, None)

    def end(self, fill: Fill) -> Collection[Key]:
        """The kernel has what it brings. The keys that waited for it and for nothing else."""
        waiting = self._fills.pop(fill, {})
        for need in fill.needs:
            if self._by_need.get(need) is fill:
                del self._by_need[need]
        for key in waiting:
            self._awaited[key].remove(fill)
        return [key for key in waiting if not self._awaited[key]]

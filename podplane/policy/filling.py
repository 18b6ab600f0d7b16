"""What is in the sets that rules on one node look into: kept as pods come and go among those that a set is of, each at its own cost.

A set is first filled with the pods that its selectors have, some at a time; until that is done it has no contents to be planned. Moves that
are told meanwhile wait until then, and are some at a time, too.

Several pods may have one address for a moment, and a pod may be in a set for several reasons: the kernel has one element of a key, and the
others are remembered here until that one goes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from podplane.model.pod_info import PodInfo
from podplane.model.policy import PodSelector
from podplane.policy.peers import Peers, packed_elements
from podplane.state.nft import Set
from podplane.state.nft_members import Members
from podplane.state.nft_types import size

AT_ONCE = 1000
"""So many pods are taken in one step: some 3 ms."""
Told = tuple[PodSelector, PodInfo, bool]
"""(selector, pod, did it join?)."""
Element = tuple[int, bytes]
"""IP version, and the packed element."""


class Filling:
    """One set, in all IP versions of the node."""

    def __init__(
        self,
        peers: Peers,
        sets: Mapping[int, Set],
        pods: Iterable[tuple[PodSelector, Collection[PodInfo]]],
        former: Collection[Members] = (),
    ) -> None:
        """`former` is what it had before it is filled anew: that stays until it is filled."""
        self.peers = peers
        self._sets = sets
        self._former = {one.identity: one for one in former}
        self._sizes = {version: size(owner.key) for version, owner in sets.items()}
        first: list[Told] = [(one, pod, True) for one, found in pods for pod in found]
        self.to_take = len(first) + sum(map(len, former))
        """How many pods it is filled with, and elements it had before."""
        self._first: Iterator[Told] | None = iter(first)
        self._told: deque[Told] = deque()
        self._gathered: dict[int, dict[bytes, bytes]] = {version: {} for version in sets}
        self._members = {version: Members.of(owner, ()) for version, owner in sets.items()}
        self._more: dict[tuple[int, bytes], list[bytes]] = {}

    @property
    def is_filled(self) -> bool:
        """Is all in it that was there when it was made?"""
        return self._first is None

    @property
    def is_current(self) -> bool:
        """Is all in it that there is?"""
        return self.is_filled and not self._told

    @property
    def values(self) -> list[Members]:
        """Its contents, of those versions in which there are any."""
        return [one for one in (self._members.values() if self.is_filled else self._former.values()) if one.chunks]

    @property
    def versions(self) -> tuple[int, ...]:
        """Its IP versions."""
        return tuple(self._sets)

    def owner(self, contents: Members) -> Set | None:
        """The set of these contents."""
        return next((one for one in self._sets.values() if one.name == contents.set), None)

    def lost(self) -> list[str]:
        """The addresses that it had before it was filled anew and has no more, once that is done."""
        if not self.is_filled or not self._former:
            return []
        former, self._former = self._former, {}
        now = {one.identity: one for one in self._members.values()}
        gone = [(one, content) for name, one in former.items() for content in now.get(name, _none(one)).differences(one)[0]]
        return [str(one.parts(content)[0]) for one, content in gone]

    def tell(self, told: Iterable[Told]) -> None:
        """Pods left or joined, in this order."""
        self._told += told

    def step(self) -> list[Told]:
        """Take some of what there is to take; that."""
        if self._first is not None:
            done = list(itertools.islice(self._first, AT_ONCE))
            for told in done:
                for version, element in self._elements(told):
                    self._gather(version, element)
            if len(done) < AT_ONCE:
                self._end_first()
            return done
        done = [self._told.popleft() for _ in range(min(AT_ONCE, len(self._told)))]
        for told in done:
            for version, element in self._elements(told):
                (self._add if told[2] else self._remove)(version, element)
        return done

    def _elements(self, told: Told) -> list[Element]:
        selector, pod, _ = told
        return packed_elements(self.peers, selector, pod, self._sets)

    def _end_first(self) -> None:
        self._first = None
        self._members = {v: Members.of(owner, self._gathered.pop(v).values()) for v, owner in self._sets.items()}

    def _gather(self, version: int, element: bytes) -> None:
        key = element[: self._sizes[version]]
        if self._gathered[version].setdefault(key, element) is not element:
            self._more.setdefault((version, key), []).append(element)

    def _add(self, version: int, element: bytes) -> None:
        key = element[: self._sizes[version]]
        if self._members[version].at(key) is None:
            self._members[version] = self._members[version].with_(element)
        else:
            self._more.setdefault((version, key), []).append(element)

    def _remove(self, version: int, element: bytes) -> None:
        key, members = element[: self._sizes[version]], self._members[version]
        more = self._more.get((version, key), [])
        if element in more:
            more.remove(element)
        elif members.at(key) == element:
            self._members[version] = members.with_(more.pop(0)) if more else members.without(key)
        if not more:
            self._more.pop((version, key), None)


def _none(one: Members) -> Members:
    return msgspec.structs.replace(one, chunks=())

"""What is in the sets that rules on one node look into: kept as pods come and go among those that a set is of, each at its own cost.

A set is first filled with the pods that its selectors have, some at a time; until that is done it has no contents to be planned. Each
selector is asked for its pods when its turn comes: moves of it that are told before do not count. Those that are told later wait until the
set is filled, and are some at a time, too.

Several pods may have one address for a moment, and a pod may be in a set for several reasons: the kernel has one element of a key, and the
others are remembered here until that one goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from podplane.model.pod_info import PodInfo
from podplane.model.policy import PodSelector
from podplane.policy.gathering import Gathered
from podplane.policy.peers import Peers, packed_elements
from podplane.state.nft import Set
from podplane.state.nft_members import Members
from podplane.state.nft_types import size

AT_ONCE, SELECTOR, ORDERED = 1000, 10, 20
"""So many pods are taken in one step: some 3 ms. In the time of 10 a selector is asked for its pods; in that of one, so many elements come
in their place."""
Told = tuple[PodSelector, PodInfo, bool]
"""(selector, pod, did it join?)."""
Candidates = Callable[[PodSelector], Sequence[PodInfo]]
"""The pods of a selector, and others of their namespaces, as they are now: what is returned stays as it is."""


class Filling:
    """One set, in all IP versions of the node."""

    def __init__(
        self,
        peers: Peers,
        sets: Mapping[int, Set],
        candidates: Candidates,
        former: Collection[Members] = (),
    ) -> None:
        """`former` is what it had before it is filled anew: that stays until it is filled."""
        self.peers = peers
        self._sets = sets
        self._former = {one.identity: one for one in former}
        self._sizes = {version: size(owner.key) for version, owner in sets.items()}
        self._candidates = candidates
        self._unasked = dict.fromkeys(peers.selectors)
        self._asked: deque[tuple[PodSelector, Sequence[PodInfo], int]] = deque()
        """Selectors with their pods, and how many of these were taken."""
        self._told: deque[Told] = deque()
        self._gathered = {version: Gathered(self._sizes[version]) for version in sets}
        self._members = {version: Members.of(owner, ()) for version, owner in sets.items()}
        self._more: dict[tuple[int, bytes], list[bytes]] = {}

    @property
    def is_filled(self) -> bool:
        """Is all in it that its selectors had when they were asked?"""
        return not self._gathered

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
        self._told += [one for one in told if one[0] not in self._unasked] if self._unasked else told

    def step(self) -> list[Told]:
        """Take some of what there is to take; that."""
        if not self.is_filled:
            return self._gather()
        done = [self._told.popleft() for _ in range(min(AT_ONCE, len(self._told)))]
        for told in done:
            for version, element in self._elements(told):
                (self._add if told[2] else self._remove)(version, element)
        return done

    def begin(self) -> bool:
        """Ask the first selectors; may there be anything to fill the set with? Otherwise it is filled."""
        room = AT_ONCE
        while self._unasked and room > 0:
            room -= SELECTOR + self._ask()
        if not self._asked and not self._unasked:
            self._gathered.clear()
        return not self.is_filled or bool(self._former)

    @property
    def to_take(self) -> int:
        """How many pods and elements are to be taken at least: of the selectors that were asked, and those that it had before."""
        unasked = AT_ONCE if self._unasked else 0
        return unasked + sum(len(pods) for _, pods, _ in self._asked) + sum(map(len, self._former.values()))

    def _ask(self) -> int:
        """Ask the next selector; how many pods it may have."""
        selector = next(iter(self._unasked))
        del self._unasked[selector]
        if pods := self._candidates(selector):
            self._asked.append((selector, pods, 0))
        return len(pods)

    def _gather(self) -> list[Told]:
        """Take some pods; when there is none left, put what they bring in the set."""
        taken, room = list[Told](), AT_ONCE
        while room > 0 and (self._asked or self._unasked):
            if not self._asked:
                self._ask()
                room -= SELECTOR
            else:
                selector, pods, begin = self._asked.popleft()
                end = begin + room
                if end < len(pods):
                    self._asked.appendleft((selector, pods, end))
                taken += self._taken(selector, pods[begin:end])
                room -= len(pods[begin:end])
        while room > 0 and self._gathered:
            version, gathered = self._gathered.popitem()
            self._members[version] = Members.of(self._sets[version], gathered.all())
            room -= len(self._members[version]) // ORDERED
        return taken

    def _taken(self, selector: PodSelector, pods: Sequence[PodInfo]) -> list[Told]:
        """Those of these pods that are the selector's."""
        matches = selector.pods.matches
        found = [one for one in pods if one.ips and matches(one.metadata.labels)]
        for version, elements in packed_elements(self.peers, selector, found, self._sets).items():
            for key, element in self._gathered[version].add(elements):
                self._more.setdefault((version, key), []).append(element)
        return [(selector, one, True) for one in found]

    def _elements(self, told: Told) -> Iterator[tuple[int, bytes]]:
        selector, pod, _ = told
        for version, elements in packed_elements(self.peers, selector, (pod,), self._sets).items():
            for element in elements:
                yield version, element

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

"""Numbers for what has only a number in the kernel: groups of endpoints, their members, ways to choose.

They are given by name, and one that is free again is given last of all. An agent that starts takes over those that are in the kernel,
and so writes nothing. What is remembered of a client is the number of a group and that of a member: whatever numbers are given again, no
client is led to another Service.

The endpoints of a group have places from 0 on, of which a packet takes one by chance. Whoever stays keeps its place: where one endpoint
comes or goes, one or two places change, however many there are.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from podplane.services import tables
from podplane.services.rules import CHOICE_BITS, CHOICE_MASK
from podplane.state.conntrack import Target
from podplane.state.nft import Element, Verdict
from podplane.state.value import Value

PLAIN_WAYS = 1 << CHOICE_BITS - 1
"""Up to here, the way to choose among so many endpoints is their number."""
MAX_MEMBERS = CHOICE_MASK
"""So many endpoints of a group are used when clients keep to theirs."""
SPARE = 1000
"""So many names that are in use no more are remembered at least."""


class NoNumber(Exception):
    """All numbers are in use."""


@dataclass(slots=True)
class Series:
    """The numbers from `first` to `last`, by name."""

    first: int
    last: int
    what: str
    _by_name: dict[Hashable, int] = field(default_factory=dict)
    _used: set[int] = field(default_factory=set)
    _latest: int = 0
    _kept: int = 0

    def of(self, name: Hashable) -> int:
        """The number of a name; NoNumber when there is none left for a new one."""
        number = self._by_name.get(name)
        if number is None:
            number = self._by_name[name] = self._free()
            self._used.add(number)
            self._latest = number
        return number

    def _free(self) -> int:
        if len(self._used) > self.last - self.first:
            raise NoNumber(f"there are {len(self._used):,} {self.what} on this node, and no room for one more")
        number = max(self._latest, self.first - 1)
        while (number := number + 1 if number < self.last else self.first) in self._used:
            pass
        return number

    def take(self, name: Hashable, number: int) -> None:
        """This name has this number already; the first one that says so has it."""
        if name not in self._by_name and number not in self._used and self.first <= number <= self.last:
            self._by_name[name] = number
            self._used.add(number)
            self._latest = max(self._latest, number)

    def keep(self, names: Collection[Hashable]) -> None:
        """Forget all others."""
        for name in [name for name in self._by_name if name not in names]:
            self._used.discard(self._by_name.pop(name))

    def is_crowded(self, most: int) -> bool:
        """Are there many more names than can be in use (`most`), or were so many given that half of the room is gone?"""
        room = self.last - self.first + 1 - self._kept
        return len(self._by_name) > min(most + SPARE, self._kept + room // 2)

    def settle(self) -> None:
        """The names that there are now are those in use."""
        self._kept = len(self._by_name)


@dataclass(slots=True)
class Numbers:
    """All of one node."""

    groups: Series = field(default_factory=lambda: Series(1, (1 << 32 - CHOICE_BITS) - 1, "groups of endpoints"))
    ways: Series = field(default_factory=lambda: Series(PLAIN_WAYS + 1, CHOICE_MASK, "ways to choose an endpoint"))
    _members: dict[tuple[str, int], Series] = field(default_factory=dict)
    _places: dict[tuple[str, int], list[Target]] = field(default_factory=dict)

    def places(self, group: str, version: int, targets: Collection[Target]) -> list[Target]:
        """These endpoints, that are all of a group and IP version, each at its place."""
        before = self._places.get((group, version))
        after = self._places[group, version] = arranged(before, set(targets)) if before else sorted(targets)
        return after

    def members(self, group: str, version: int, targets: Sequence[Target]) -> list[int]:
        """A number of each of these endpoints, that are all of a group and IP version."""
        series = self._members_of(group, version)
        series.keep(set(targets))
        return [series.of(target) for target in targets]

    def _members_of(self, group: str, version: int) -> Series:
        return self._members.setdefault((group, version), Series(1, MAX_MEMBERS, f"endpoints of {group}"))

    def way(self, count: int, seconds: int) -> int:
        """The number of a way to choose: among so many endpoints, for clients that keep theirs for so long."""
        return count if count <= PLAIN_WAYS and not seconds else self.ways.of(tables.way(count, seconds))

    def recover(self, found: Iterable[Value]) -> None:
        """Take over the numbers and places that are in the kernel."""
        elements: dict[str, list[Element]] = {}
        for value in found:
            if isinstance(value, Element) and value.table == tables.NAME:
                elements.setdefault(value.set, []).append(value)
        for version in (4, 6):
            for element in (*elements.get(f"frontends{version}", ()), *elements.get(f"inside{version}", ())):
                self.groups.take(element.comment, _number(element.data) >> CHOICE_BITS)
            for element in elements.get(f"choice{version}", ()):
                if isinstance(element.data, Verdict):
                    self.ways.take(element.data.chain.partition("-")[2], _number(element.key))
            self._recover_endpoints(elements, version)

    def _recover_endpoints(self, elements: Mapping[str, list[Element]], version: int) -> None:
        places: dict[str, dict[int, Target]] = {}
        members: dict[int, Target] = {}
        for element in elements.get(f"endpoints{version}", ()):
            places.setdefault(element.comment, {})[element.key[1]] = _target(element)  # type: ignore[index]  # a number
        for element in elements.get(f"targets{version}", ()):
            mark = _number(element.key)
            members[mark] = target = _target(element)
            self._members_of(element.comment, version).take(target, mark & CHOICE_MASK)
        for element in elements.get(f"ids{version}", ()):
            if (mark := _number(element.data)) in members:
                places.setdefault(element.comment, {})[element.key[1]] = members[mark]  # type: ignore[index]  # a number
        self._places |= {(group, version): [own[place] for place in sorted(own)] for group, own in places.items()}

    def tidy(self, wanted: Collection[Value]) -> None:
        """Forget the names that nobody uses any more, once there are many; `wanted` is all that the kernel shall hold."""
        if self.groups.is_crowded(len(wanted)) or self.ways.is_crowded(len(wanted)):
            for series in (self.groups, self.ways):
                series.keep(())
            self._members, self._places = {}, {}
            self.recover(wanted)
            for series in (self.groups, self.ways):
                series.settle()


def _number(parts: object) -> int:
    """The first part of a key or of what a map gives for it."""
    return int(parts[0])  # type: ignore[index]  # as these sets have it


def _target(element: Element) -> Target:
    return element.data  # type: ignore[return-value]  # as these maps have it


def arranged(before: Sequence[Target], targets: set[Target]) -> list[Target]:
    """`targets` at places from 0 on: those that are within keep theirs, the others fill what is free."""
    count = len(targets)
    within = before[:count]
    staying = targets.intersection(within)
    if len(staying) == count:
        return list(within)
    others = iter(sorted(targets - staying))
    kept = [target if target in staying else next(others) for target in within]
    return [*kept, *others]

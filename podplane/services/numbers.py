"""Numbers of what the kernel knows by a number only: groups, members of groups, load-balancing chains; and the slots of endpoints.

Numbers are assigned by name. One that is free again is assigned again after all others. An agent that starts recovers the numbers that are
in the kernel, so that it writes nothing. The kernel stores a group's number and a member id for each client with session affinity: a member
id that is assigned again can't lead a client to another Service.

The endpoints of a group have slots 0, 1, 2, …; each connection takes a random one. An endpoint that stays keeps its slot, so that one
endpoint that comes or goes changes one or two slots, whatever the size of the group.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import msgspec

from podplane.services import tables
from podplane.services.endpoints import by_number
from podplane.services.model import Group
from podplane.services.rules import CHAIN_BITS, CHAIN_MASK, MAX_MEMBERS, PLAIN_COUNTS
from podplane.state.conntrack import Target
from podplane.state.nft import Element, Verdict
from podplane.state.value import Value

SPARE = 1000
"""Names that are no longer used are remembered up to this many."""


class NoNumber(Exception):
    """All numbers are in use."""


class Series(msgspec.Struct):
    """The numbers from `first` to `last`, assigned to names. `what` names them in errors."""

    first: int
    last: int
    what: str
    _by_name: dict[Hashable, int] = msgspec.field(default_factory=dict)
    _used: set[int] = msgspec.field(default_factory=set)
    _latest: int = 0
    _kept: int = 0

    def of(self, name: Hashable) -> int:
        """The number of a name, a new one when it has none. NoNumber when all are in use."""
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
        """Assign this very number, unless the name has one or the number is taken or out of range."""
        if name not in self._by_name and number not in self._used and self.first <= number <= self.last:
            self._by_name[name] = number
            self._used.add(number)
            self._latest = max(self._latest, number)

    def keep(self, names: Collection[Hashable]) -> None:
        """Free the numbers of all other names."""
        for name in [name for name in self._by_name if name not in names]:
            self._used.discard(self._by_name.pop(name))

    def is_crowded(self, most: int) -> bool:
        """Are there far more names than the `most` that are in use, or do unused ones take half of the free numbers?"""
        room = self.last - self.first + 1 - self._kept
        return len(self._by_name) > min(most + SPARE, self._kept + room // 2)

    def mark_used(self) -> None:
        """All names that there are now are in use (`is_crowded` counts from here)."""
        self._kept = len(self._by_name)


class Numbers(msgspec.Struct):
    """The numbers and slots of one node."""

    groups: Series = msgspec.field(default_factory=lambda: Series(1, (1 << 32 - CHAIN_BITS) - 1, "groups of endpoints"))
    chains: Series = msgspec.field(default_factory=lambda: Series(PLAIN_COUNTS + 1, CHAIN_MASK, "load-balancing chains"))
    _members: dict[tuple[str, int], Series] = msgspec.field(default_factory=dict)
    _slots: dict[tuple[str, int], Sequence[Target]] = msgspec.field(default_factory=dict)

    def slots(self, group: Group) -> Sequence[Target]:
        """The targets of a group by slot."""
        key = group.name, group.version
        before = self._slots.get(key)
        after = self._slots[key] = arranged(before, group.targets) if before else group.targets
        return after

    def member_ids(self, group: Group, targets: Sequence[Target]) -> list[int]:
        """The id of each target of a group (`targets` are all of them, in any order); the ids of other targets are free again."""
        series = self._members_of(group.name, group.version)
        series.keep(set(targets))
        return [series.of(target) for target in targets]

    def _members_of(self, group: str, version: int) -> Series:
        return self._members.setdefault((group, version), Series(1, MAX_MEMBERS, f"endpoints of {group}"))

    def chain(self, count: int, seconds: int) -> int:
        """The number of the chain that chooses among `count` endpoints, for clients that keep theirs for `seconds`."""
        return count if count <= PLAIN_COUNTS and not seconds else self.chains.of(tables.chain_suffix(count, seconds))

    def recover(self, found: Iterable[Value]) -> None:
        """Take over the numbers and slots that are in the kernel."""
        elements: dict[str, list[Element]] = {}
        for value in found:
            if isinstance(value, Element) and value.table == tables.NAME:
                elements.setdefault(value.set, []).append(value)
        for version in (4, 6):
            for element in (*elements.get(f"frontends{version}", ()), *elements.get(f"inside{version}", ())):
                self.groups.take(element.comment, _number(element.data) >> CHAIN_BITS)
            for element in elements.get(f"choice{version}", ()):
                if isinstance(element.data, Verdict):
                    self.chains.take(element.data.chain.partition("-")[2], _number(element.key))
            self._recover_endpoints(elements, version)

    def _recover_endpoints(self, elements: Mapping[str, list[Element]], version: int) -> None:
        slots: dict[str, dict[int, Target]] = {}
        members: dict[int, Target] = {}
        for element in elements.get(f"endpoints{version}", ()):
            slots.setdefault(element.comment, {})[element.key[1]] = _target(element)  # type: ignore[index]  # a number
        for element in elements.get(f"targets{version}", ()):
            mark = _number(element.key)
            members[mark] = target = _target(element)
            self._members_of(element.comment, version).take(target, mark & CHAIN_MASK)
        for element in elements.get(f"ids{version}", ()):
            if (mark := _number(element.data)) in members:
                slots.setdefault(element.comment, {})[element.key[1]] = members[mark]  # type: ignore[index]  # a number
        self._slots |= {(group, version): [own[slot] for slot in sorted(own)] for group, own in slots.items()}

    def is_crowded(self, groups: int) -> bool:
        """Are there far more names than the `groups` in use need, so that `keep` is due?"""
        return self.groups.is_crowded(groups) or self.chains.is_crowded(groups)

    def keep(self, groups: Collection[Group]) -> None:
        """Free all numbers and slots but for those of these groups, which are all in use."""
        used = {(group.name, group.version) for group in groups}
        self.groups.keep({name for name, _ in used})
        self.chains.keep({tables.chain_suffix(len(group.targets), group.affinity_seconds) for group in groups})
        self._members = {key: series for key, series in self._members.items() if key in used}
        self._slots = {key: targets for key, targets in self._slots.items() if key in used}
        for series in (self.groups, self.chains):
            series.mark_used()


def _number(parts: object) -> int:
    """The first part of a key or of what a map gives for it."""
    return int(parts[0])  # type: ignore[index]  # as these sets have it


def _target(element: Element) -> Target:
    return Target(*element.data)  # type: ignore[misc]  # as these maps have it


def arranged(before: Sequence[Target], targets: Collection[Target]) -> list[Target]:
    """`targets` in slots from 0 on: those that have a slot within keep it, the others fill the rest in order."""
    left = {by_number(target): target for target in targets}  # addresses are slow to hash
    within = [left.pop(by_number(target), None) for target in before[: len(targets)]]
    if not left:
        return list(before[: len(targets)])
    others = iter([left[number] for number in sorted(left)])
    kept = [target or next(others) for target in within]
    return [*kept, *others]

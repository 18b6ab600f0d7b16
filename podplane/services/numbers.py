"""Numbers for what has only a number in the kernel: groups of endpoints, endpoints that clients keep to, ways to choose.

They are given by name, and one that is free again is given last of all. So what is remembered of a client's number never leads it to
somebody else's endpoint. An agent that starts takes over the numbers that are in the kernel, and so writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from podplane.services import tables
from podplane.services.rules import CHOICE_BITS
from podplane.state.nft import Element, Verdict
from podplane.state.value import Value

MAX_ENDPOINTS = 1 << CHOICE_BITS - 1
"""So many endpoints of a group are used: without session affinity, the way to choose is their number."""
SPARE = 1000
"""Names that are in use no more are forgotten when they outnumber the others by so many."""


class NoNumber(Exception):
    """All numbers are in use."""


@dataclass(slots=True)
class Series:
    """The numbers from `first` to `last`, by name."""

    first: int
    last: int
    what: str
    _by_name: dict[str, int] = field(default_factory=dict)
    _used: set[int] = field(default_factory=set)
    _latest: int = 0
    _kept: int = 0

    def of(self, name: str) -> int:
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

    def take(self, name: str, number: int) -> None:
        """This name has this number already; the first one that says so has it."""
        if name not in self._by_name and number not in self._used and self.first <= number <= self.last:
            self._by_name[name] = number
            self._used.add(number)
            self.pass_over(number)

    def pass_over(self, number: int) -> None:
        """Go on behind this number: somebody remembers it."""
        self._latest = max(self._latest, number)

    @property
    def is_crowded(self) -> bool:
        """Are there many more names than were in use lately, or more than half of the room that those left?"""
        room = self.last - self.first + 1 - self._kept
        return len(self._by_name) - self._kept > min(self._kept + SPARE, room // 2)

    def forget(self) -> None:
        """Forget all names; those that are in use are taken again."""
        self._by_name, self._used = {}, set()

    def settle(self) -> None:
        """The names that there are now are those in use."""
        self._kept = len(self._by_name)


@dataclass(slots=True)
class Numbers:
    """All of one node."""

    groups: Series = field(default_factory=lambda: Series(1, (1 << 32 - CHOICE_BITS) - 1, "groups of endpoints"))
    targets: Series = field(default_factory=lambda: Series(1, (1 << 32) - 1, "endpoints with session affinity"))
    ways: Series = field(default_factory=lambda: Series(MAX_ENDPOINTS + 1, (1 << CHOICE_BITS) - 1, "kinds of session affinity"))

    def way(self, count: int, seconds: int, kind: str) -> int:
        """The number of a way to choose among so many endpoints."""
        return self.ways.of(tables.way(count, seconds, kind)) if seconds else count

    def recover(self, found: Iterable[Value], remembered: Iterable[Value] = ()) -> None:
        """Take over the numbers that are in the kernel, and pass over those that clients are `remembered` with."""
        for value in found:
            match value:
                case Element(table=tables.NAME, set="frontends4" | "frontends6" | "inside4" | "inside6", data=(int() as mark,)):
                    self.groups.take(value.comment, mark >> CHOICE_BITS)
                case Element(table=tables.NAME, set="targets4" | "targets6", key=(int() as number,), data=(ip, port)):
                    self.targets.take(target_name(value.comment, ip, port), number)
                case Element(table=tables.NAME, set="choice4" | "choice6", key=(int() as number,), data=Verdict(chain=chain)):
                    self.ways.take(chain.partition("-")[2], number)
        for value in remembered:
            match value:
                case Element(table=tables.NAME, set="affinity4" | "affinity6", data=(int() as number,)):
                    self.targets.pass_over(number)

    def tidy(self, wanted: Iterable[Value]) -> None:
        """Forget numbers of names that nobody uses any more, once there are many; `wanted` is all that the kernel shall hold."""
        every = (self.groups, self.targets, self.ways)
        if any(series.is_crowded for series in every):
            for series in every:
                series.forget()
            self.recover(wanted)
            for series in every:
                series.settle()


def target_name(group: str, ip: object, port: object) -> str:
    """What an endpoint of a group is called that clients keep to."""
    return f"{group}/{ip}/{port}"

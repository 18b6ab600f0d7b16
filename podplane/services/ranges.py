"""Ranges of addresses, and who has which address of them. Pure."""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Hashable, Iterable, Iterator, Set
from typing import Generic, NamedTuple, TypeVar

from podplane.state.value import IPAddress, IPNetwork

Who = TypeVar("Who", bound=Hashable)


class Range(NamedTuple):
    """All addresses from `first` to `last`, both of them too."""

    first: IPAddress
    last: IPAddress

    def __contains__(self, ip: object) -> bool:
        return isinstance(ip, type(self.first)) and int(self.first) <= int(ip) <= int(self.last)

    @property
    def size(self) -> int:
        """How many those are."""
        return int(self.last) - int(self.first) + 1


def of_network(network: IPNetwork) -> Range:
    """The addresses of a network, its first and last one too."""
    return Range(network.network_address, network.broadcast_address)


def parse(text: str) -> Range:
    """What `192.168.1.240`, `192.168.1.240/28` or `192.168.1.240-192.168.1.250` stands for. ValueError says what is wrong with it."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    if dash:
        ends = Range(ipaddress.ip_address(first), ipaddress.ip_address(last))
        if ends.first.version != ends.last.version or int(ends.first) > int(ends.last):
            raise ValueError(f"{text!r} has no first and last address of one family")
    else:
        ends = of_network(ipaddress.ip_network(first))
    if any(ip.is_loopback or ip.is_multicast or ip.is_unspecified for ip in ends):
        raise ValueError(f"{text!r} has addresses that are loopback, multicast or unspecified")
    return ends


def overlap(one: Range, other: Range) -> bool:
    """Have they an address in common?"""
    return one.first in other or other.first in one


def without(range_: Range, other: Range) -> Iterator[Range]:
    """What is left of a range: nothing, all, or what is before and after the other one."""
    if not overlap(range_, other):
        yield range_
        return
    if range_.first not in other:
        yield Range(range_.first, other.first - 1)
    if range_.last not in other:
        yield Range(other.last + 1, range_.last)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same addresses, each in one range only."""
    found: list[Range] = []
    for one in sorted(ranges, key=lambda range_: (range_.first.version, int(range_.first))):
        if found and one.first in found[-1]:
            found[-1] = Range(found[-1].first, max(found[-1].last, one.last, key=int))
        else:
            found.append(one)
    return found


class Taken(Generic[Who]):
    """Addresses that somebody has, in their order. What is asked costs about the same, however many there are."""

    def __init__(self) -> None:
        self._who: dict[IPAddress, set[Who]] = {}
        self._numbers: dict[int, list[int]] = {4: [], 6: []}

    def add(self, ip: IPAddress, who: Who) -> None:
        """It has this address, maybe others too; idempotent."""
        if ip not in self._who:
            bisect.insort(self._numbers[ip.version], int(ip))
        self._who.setdefault(ip, set()).add(who)

    def remove(self, ip: IPAddress, who: Who) -> None:
        """It has this address no more; idempotent."""
        owners = self._who.get(ip, set())
        owners.discard(who)
        if not owners and self._who.pop(ip, None) is not None:
            numbers = self._numbers[ip.version]
            del numbers[bisect.bisect_left(numbers, int(ip))]

    def who(self, ip: IPAddress) -> Set[Who]:
        """Those who have it."""
        return self._who.get(ip, frozenset())

    def within(self, range_: Range) -> list[IPAddress]:
        """The addresses of a range that somebody has."""
        start, end = self._ends(range_)
        make = type(range_.first)
        return [make(number) for number in self._numbers[range_.first.version][start:end]]

    def count(self, range_: Range) -> int:
        """How many those are."""
        start, end = self._ends(range_)
        return end - start

    def free(self, range_: Range) -> IPAddress | None:
        """The first address of a range that nobody has."""
        numbers, first = self._numbers[range_.first.version], int(range_.first)
        start, end = self._ends(range_)
        # The n-th number from `start` is first + n up to the first gap, and greater behind it.
        gap = bisect.bisect_left(range(end - start), True, key=lambda n: numbers[start + n] > first + n)
        return range_.first + gap if gap < range_.size else None

    def _ends(self, range_: Range) -> tuple[int, int]:
        numbers = self._numbers[range_.first.version]
        return bisect.bisect_left(numbers, int(range_.first)), bisect.bisect_right(numbers, int(range_.last))

"""Ranges of addresses, and the owners of allocated addresses. Pure."""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Hashable, Iterable, Iterator, Set
from typing import Generic, NamedTuple, TypeVar

from podplane.state.value import IPAddress, IPNetwork

Owner = TypeVar("Owner", bound=Hashable)


class Range(NamedTuple):
    """All addresses from `first` to `last`, both included."""

    first: IPAddress
    last: IPAddress

    def __contains__(self, ip: object) -> bool:
        return isinstance(ip, type(self.first)) and int(self.first) <= int(ip) <= int(self.last)

    @property
    def size(self) -> int:
        """The number of addresses."""
        return int(self.last) - int(self.first) + 1


def of_network(network: IPNetwork) -> Range:
    """All addresses of a network, its first and last one included."""
    return Range(network.network_address, network.broadcast_address)


def parse(text: str) -> Range:
    """The range that `192.168.1.240`, `192.168.1.240/28` or `192.168.1.240-192.168.1.250` denotes. ValueError when it is none."""
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
    """Do the ranges have an address in common?"""
    return one.first in other or other.first in one


def without(range_: Range, other: Range) -> Iterator[Range]:
    """`range_` without the addresses of `other`: none, one or two ranges."""
    if not overlap(range_, other):
        yield range_
        return
    if range_.first not in other:
        yield Range(range_.first, other.first - 1)
    if range_.last not in other:
        yield Range(other.last + 1, range_.last)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The union of the ranges, as ranges that do not overlap."""
    found: list[Range] = []
    for one in sorted(ranges, key=lambda range_: (range_.first.version, int(range_.first))):
        if found and one.first in found[-1]:
            found[-1] = Range(found[-1].first, max(found[-1].last, one.last, key=int))
        else:
            found.append(one)
    return found


class Allocated(Generic[Owner]):
    """Allocated addresses and their owners, sorted by address: look-ups take logarithmic time."""

    def __init__(self) -> None:
        self._owners: dict[IPAddress, set[Owner]] = {}
        self._numbers: dict[int, list[int]] = {4: [], 6: []}

    def add(self, ip: IPAddress, owner: Owner) -> None:
        """`owner` has this address; other owners may have it too. Idempotent."""
        if ip not in self._owners:
            bisect.insort(self._numbers[ip.version], int(ip))
        self._owners.setdefault(ip, set()).add(owner)

    def remove(self, ip: IPAddress, owner: Owner) -> None:
        """`owner` does not have this address any more. Idempotent."""
        owners = self._owners.get(ip, set())
        owners.discard(owner)
        if not owners and self._owners.pop(ip, None) is not None:
            numbers = self._numbers[ip.version]
            del numbers[bisect.bisect_left(numbers, int(ip))]

    def owners(self, ip: IPAddress) -> Set[Owner]:
        """The owners of an address; none when it is free."""
        return self._owners.get(ip, frozenset())

    def within(self, range_: Range) -> list[IPAddress]:
        """The allocated addresses of a range, in order."""
        start, end = self._ends(range_)
        make = type(range_.first)
        return [make(number) for number in self._numbers[range_.first.version][start:end]]

    def count(self, range_: Range) -> int:
        """The number of allocated addresses of a range."""
        start, end = self._ends(range_)
        return end - start

    def free(self, range_: Range) -> IPAddress | None:
        """The first free address of a range; None when all are allocated."""
        numbers, first = self._numbers[range_.first.version], int(range_.first)
        start, end = self._ends(range_)
        # The n-th number from `start` is first + n up to the first gap, and greater behind it.
        gap = bisect.bisect_left(range(end - start), True, key=lambda n: numbers[start + n] > first + n)
        return range_.first + gap if gap < range_.size else None

    def _ends(self, range_: Range) -> tuple[int, int]:
        numbers = self._numbers[range_.first.version]
        return bisect.bisect_left(numbers, int(range_.first)), bisect.bisect_right(numbers, int(range_.last))

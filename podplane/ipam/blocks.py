"""Networks and their owners, and which one of a range is free. Pure.

Two networks overlap only if one holds the other. So what overlaps a network is found by its supernets of the lengths that there are, and,
in order, by the addresses that it has: a look-up costs what it finds, however many networks there are.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Hashable, Iterator, Set
from typing import Generic, TypeVar

from podplane.state.value import IPNetwork

Owner = TypeVar("Owner", bound=Hashable)


class Blocks(Generic[Owner]):
    """Networks of owners; several may have the same one, or ones that overlap."""

    def __init__(self) -> None:
        self._owners: dict[IPNetwork, set[Owner]] = {}
        self._places: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        """(first address, length) of each network, in order, by IP version."""
        self._lengths: Counter[tuple[int, int]] = Counter()
        """How many networks there are, by IP version and length."""

    def add(self, network: IPNetwork, owner: Owner) -> None:
        """`owner` has this network. Idempotent."""
        if network not in self._owners:
            bisect.insort(self._places[network.version], _place(network))
            self._lengths[network.version, network.prefixlen] += 1
        self._owners.setdefault(network, set()).add(owner)

    def remove(self, network: IPNetwork, owner: Owner) -> None:
        """`owner` does not have this network any more. Idempotent."""
        owners = self._owners.get(network, set())
        owners.discard(owner)
        if not owners and self._owners.pop(network, None) is not None:
            places = self._places[network.version]
            del places[bisect.bisect_left(places, _place(network))]
            self._lengths[network.version, network.prefixlen] -= 1

    def overlapping(self, network: IPNetwork) -> Iterator[tuple[IPNetwork, Set[Owner]]]:
        """The networks that overlap this one, with their owners: wider ones first, then itself and those within it, by address."""
        lengths = (length for (version, length), count in self._lengths.items() if version == network.version and count)
        for length in sorted(one for one in lengths if one < network.prefixlen):
            wider = network.supernet(new_prefix=length)
            if wider in self._owners:
                yield wider, self._owners[wider]
        places = self._places[network.version]
        first = bisect.bisect_left(places, _place(network))
        last = bisect.bisect_right(places, (int(network.broadcast_address), network.max_prefixlen))
        for place in places[first:last]:
            within = type(network)(place)
            yield within, self._owners[within]

    def free(self, range_: IPNetwork, length: int, start: int = 0) -> tuple[int, IPNetwork] | None:
        """(number, network): the first one of this length within `range_` that overlaps none, from number `start` on, then from 0 on.
        None when there is none."""
        size, count = 1 << (range_.max_prefixlen - length), 1 << (length - range_.prefixlen)
        base, number, left = int(range_.network_address), start % count, count
        while left > 0:
            candidate = type(range_)((base + number * size, length))
            taken = next(self.overlapping(candidate), None)
            if taken is None:
                return number, candidate
            behind = max(number, (int(taken[0].broadcast_address) - base) // size) + 1
            left -= behind - number
            number = behind if behind < count else 0
        return None


def number_of(range_: IPNetwork, length: int, network: IPNetwork) -> int | None:
    """The number within `range_` of the last network of this length that `network` overlaps; None when it is outside."""
    if network.version != range_.version or not network.overlaps(range_):
        return None
    last = min(int(network.broadcast_address), int(range_.broadcast_address))
    return (last - int(range_.network_address)) >> (range_.max_prefixlen - length)


def _place(network: IPNetwork) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen

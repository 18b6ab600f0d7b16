"""The IPAddress objects that Services have, in the order of their addresses: a range of addresses is looked up, not searched for."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from podplane.apiserver.service_ips import ADDRESSES
from podplane.controllers.objects import Object
from podplane.state.value import IPNetwork

MANAGED_BY, ALLOCATOR = "ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"


class Allocated:
    """The addresses, as numbers, by IP version. Kept current by observing writes."""

    def __init__(self) -> None:
        self._addresses: dict[int, list[int]] = {4: [], 6: []}

    def observe(self, resource: str, object_: Object, *, add: bool) -> None:
        """An object comes or goes."""
        if resource != ADDRESSES or not is_allocated(object_):
            return
        ip = ipaddress.ip_address(object_["metadata"]["name"])
        numbers = self._addresses[ip.version]
        if add:
            insort(numbers, int(ip))
        else:
            del numbers[bisect_left(numbers, int(ip))]

    def is_any_in(self, network: IPNetwork, others: Iterable[IPNetwork]) -> bool:
        """Is there an address in this network that is in none of the others?"""
        numbers = self._addresses[network.version]
        for first, last in _uncovered(network, others):
            at = bisect_left(numbers, first)
            if at < len(numbers) and numbers[at] <= last:
                return True
        return False


def is_allocated(address: Object) -> bool:
    """Has the API server made this IPAddress for a Service? (Others are users' own.)"""
    found: bool = address["metadata"].get("labels", {}).get(MANAGED_BY) == ALLOCATOR
    return found


def _uncovered(network: IPNetwork, others: Iterable[IPNetwork]) -> Iterator[tuple[int, int]]:
    """(first, last) of each part of the network that is in none of the others, as numbers."""
    at, end = _ends(network)
    for first, last in sorted(_ends(other) for other in others if other.version == network.version):
        if last < at or first > end:
            continue
        if first > at:
            yield at, first - 1
        at = last + 1
    if at <= end:
        yield at, end


def _ends(network: IPNetwork) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)

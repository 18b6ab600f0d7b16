"""Sets of addresses as networks that don't overlap: what ipBlocks with their excepts come to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.model.policy import IPBlock
from podplane.state.value import IPAddress, IPNetwork

Range = tuple[int, int]
"""Of addresses, both ends included."""


def networks_of(blocks: Iterable[IPBlock], version: int) -> tuple[IPNetwork, ...]:
    """The addresses of one IP version that any of the blocks has, as the fewest networks, in order."""
    ranges = [piece for block in blocks for piece in _pieces(block, version)]
    return tuple(network for piece in _merged(ranges) for network in _networks(piece, version))


def _pieces(block: IPBlock, version: int) -> list[Range]:
    """A block without its excepts."""
    network = ipaddress.ip_network(block.cidr)
    if network.version != version:
        return []
    excepts = (one for one in map(ipaddress.ip_network, block.excepts) if one.version == version)
    return list(_without(_range(network), _merged(map(_range, excepts))))


def _range(network: IPNetwork) -> Range:
    return int(network.network_address), int(network.broadcast_address)


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """The same addresses as ranges that neither overlap nor touch, in order."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _without(whole: Range, holes: Iterable[Range]) -> Iterator[Range]:
    """What is left of a range; the holes are in order and don't overlap."""
    begin, end = whole
    for first, last in holes:
        if first > end:
            break
        if begin < first:
            yield begin, first - 1
        begin = max(begin, last + 1)
    if begin <= end:
        yield begin, end


def _networks(piece: Range, version: int) -> Iterator[IPNetwork]:
    first, last = (address(number, version) for number in piece)
    return ipaddress.summarize_address_range(first, last)


def address(number: int, version: int) -> IPAddress:
    """An address from its number."""
    return ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)

"""Sets of addresses as networks that don't overlap: what ipBlocks with their excepts come to. All in numbers: a policy may have ten
thousand blocks, and `ipaddress` takes ten times as long."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.model.policy import IPBlock
from podplane.state.nft_types import address_bytes
from podplane.state.value import IPNetwork

Range = tuple[int, int]
"""Of addresses, both ends included."""
Prefix = tuple[int, int]
"""A network: its first address, and the length of its prefix in bits."""
BITS = {4: 32, 6: 128}
"""Of an address."""


def prefixes_of(blocks: Iterable[IPBlock], version: int) -> list[Prefix]:
    """The addresses of one IP version that any of the blocks has, as the fewest networks, in order."""
    ranges = [piece for block in blocks if _version(block.cidr) == version for piece in _pieces(block, version)]
    return [network for first, last in _merged(ranges) for network in _prefixes(first, last, BITS[version])]


def network(prefix: Prefix, version: int) -> IPNetwork:
    """A network from its numbers."""
    return ipaddress.IPv4Network(prefix) if version == 4 else ipaddress.IPv6Network(prefix)


def _version(cidr: str) -> int:
    return 6 if ":" in cidr else 4


def _pieces(block: IPBlock, version: int) -> Iterable[Range]:
    """A block without its excepts."""
    whole = _range(block.cidr, version)
    excepts = [_range(one, version) for one in block.excepts if _version(one) == version]
    return _without(whole, _merged(excepts)) if excepts else (whole,)


def _range(cidr: str, version: int) -> Range:
    address, _, length = cidr.partition("/")
    first = int.from_bytes(address_bytes(address), "big")
    return first, first + (1 << BITS[version] - int(length)) - 1


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


def _prefixes(first: int, last: int, bits: int) -> Iterator[Prefix]:
    """A range as networks: each as large as its first address and what is left allow."""
    while first <= last:
        room = (last - first + 1).bit_length() - 1
        aligned = (first & -first).bit_length() - 1 if first else bits
        size = min(room, aligned)
        yield first, bits - size
        first += 1 << size

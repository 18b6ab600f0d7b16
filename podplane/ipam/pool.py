"""Allocators: numbers of a range, next free first, and on top of them node blocks and pod addresses.

A released number is not handed out again until the cursor has gone around the whole range: so connections and caches that
still refer to it have the longest possible time to expire. The caller stores what is allocated: an allocator starts with what
is in use.
"""

from __future__ import annotations

import ipaddress

from podplane.model.words import counted
from podplane.state.value import IPAddress, IPNetwork

GATEWAY_OFFSET = 1
"""The bridge of a node has the first address of its block."""


class Exhausted(Exception):
    """Nothing is free; the text says of what, and how many there are."""


class Ring:
    """Numbers from `first` to `last`, both included, handed out in a circle."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._cursor = first
        self._used: set[int] = set()

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return max(0, self._last - self._first + 1)

    @property
    def free(self) -> int:
        """How many of them are free."""
        return self.size - len(self._used)

    def __contains__(self, number: int) -> bool:
        return number in self._used

    def take(self, number: int) -> bool:
        """Take this number; False when it is out of range or in use."""
        if not self._first <= number <= self._last or number in self._used:
            return False
        self._used.add(number)
        self._cursor = max(self._cursor, number + 1)
        return True

    def next(self) -> int:
        """Take the next free number. Exhausted when there is none."""
        if self.free <= 0:
            raise Exhausted(f"all {self.size} are in use")
        number = self._cursor if self._cursor <= self._last else self._first
        while number in self._used:
            number = number + 1 if number < self._last else self._first
        self._used.add(number)
        self._cursor = number + 1
        return number

    def continue_after(self, number: int) -> None:
        """The next one is looked for behind this one, which was handed out last."""
        if self._first <= number <= self._last:
            self._cursor = number + 1

    def release(self, number: int) -> None:
        """Free a number; idempotent."""
        self._used.discard(number)


class BlockPool:
    """Blocks of one length within a cluster CIDR; block number one first and number zero last, so that node1 has x.y.1.0/24."""

    def __init__(self, cidr: IPNetwork, block_length: int) -> None:
        if block_length < cidr.prefixlen:
            raise ValueError(f"a node block of /{block_length} is larger than the cluster CIDR {cidr}")
        self.cidr = cidr
        self.block_length = block_length
        self._count = 1 << (block_length - cidr.prefixlen)
        self._ring = Ring(1, self._count)

    @property
    def free(self) -> int:
        """How many blocks are free."""
        return self._ring.free

    def next(self) -> IPNetwork:
        """Take the next free block. Exhausted when there is none."""
        try:
            return self._block(self._ring.next())
        except Exhausted:
            raise Exhausted(f"{self.cidr} has {counted(self._count, 'block')} of /{self.block_length}, all in use") from None

    def take(self, block: IPNetwork) -> bool:
        """Take this block; False when it is not of this pool or in use."""
        number = self._number(block)
        return number is not None and self._ring.take(number)

    def release(self, block: IPNetwork) -> None:
        """Free a block; idempotent."""
        number = self._number(block)
        if number is not None:
            self._ring.release(number)

    def _block(self, number: int) -> IPNetwork:
        shift = self.cidr.max_prefixlen - self.block_length
        address = int(self.cidr.network_address) + ((number % self._count) << shift)
        return ipaddress.ip_network((address, self.block_length)) if self.cidr.version == 6 else _ipv4(address, self)

    def _number(self, block: IPNetwork) -> int | None:
        if block.version != self.cidr.version or block.prefixlen != self.block_length:
            return None
        shift = self.cidr.max_prefixlen - self.block_length
        number = (int(block.network_address) - int(self.cidr.network_address)) >> shift
        return (number or self._count) if 0 <= number < self._count else None


def _ipv4(address: int, pool: BlockPool) -> IPNetwork:
    return ipaddress.IPv4Network((address, pool.block_length))


class AddressPool:
    """Pod addresses of one node block; network, gateway and (IPv4) broadcast address are never handed out."""

    def __init__(self, block: IPNetwork) -> None:
        self.block = block
        self._base = int(block.network_address)
        self._ring = Ring(GATEWAY_OFFSET + 1, block.num_addresses - (2 if block.version == 4 else 1))

    @property
    def gateway(self) -> IPAddress:
        """The node's own address in the block."""
        return self.block.network_address + GATEWAY_OFFSET

    @property
    def size(self) -> int:
        """How many pod addresses the block has."""
        return self._ring.size

    @property
    def free(self) -> int:
        """How many of them are free."""
        return self._ring.free

    def next(self) -> IPAddress:
        """Take the next free address. Exhausted when there is none."""
        try:
            return self.block.network_address + self._ring.next()
        except Exhausted:
            raise Exhausted(
                f"node block {self.block} has {counted(self.size, 'pod address', 'pod addresses')}, all in use"
            ) from None

    def take(self, ip: IPAddress) -> bool:
        """Take this address; False when it is not a pod address of the block or in use."""
        return ip in self.block and self._ring.take(int(ip) - self._base)

    def continue_after(self, ip: IPAddress) -> None:
        """The next one is looked for behind this one, which was handed out last."""
        if ip in self.block:
            self._ring.continue_after(int(ip) - self._base)

    def release(self, ip: IPAddress) -> None:
        """Free an address; idempotent."""
        if ip in self.block:
            self._ring.release(int(ip) - self._base)

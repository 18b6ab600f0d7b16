"""The pod addresses of one node: one pool for each of its blocks, and who has which address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from podplane.ipam.pool import AddressPool, Exhausted
from podplane.state.value import IPAddress


class NodeAddresses:
    """Addresses by owner (a pod's uid). All methods are idempotent for one owner."""

    def __init__(self, blocks: Iterable[str]) -> None:
        self._pools = [AddressPool(ipaddress.ip_network(block)) for block in blocks]
        self._owned: dict[str, tuple[IPAddress, ...]] = {}

    def allocate(self, owner: str, wanted: Sequence[str] = ()) -> tuple[str, ...]:
        """One address of each block for `owner`: the wanted ones where they are free, else the next free ones.

        Exhausted when a block is full; then nothing was taken.
        """
        if owner not in self._owned:
            asked = [ipaddress.ip_address(ip) for ip in wanted]
            taken: list[IPAddress] = []
            try:
                for pool in self._pools:
                    address = next((ip for ip in asked if pool.take(ip)), None)
                    taken.append(address or pool.next())
            except Exhausted:
                self._give_back(taken)
                raise
            self._owned[owner] = tuple(taken)
        return tuple(map(str, self._owned[owner]))

    def reserve(self, owner: str, ips: Iterable[str]) -> None:
        """Keep these addresses for an owner that will ask for them later (a pod that was there before a restart)."""
        if owner not in self._owned:
            addresses = [ipaddress.ip_address(ip) for ip in ips]
            taken = [ip for ip in addresses if any(pool.take(ip) for pool in self._pools)]
            if taken and len(taken) == len(self._pools):
                self._owned[owner] = tuple(taken)
            else:
                self._give_back(taken)

    def release(self, owner: str) -> None:
        """Give the owner's addresses back; they are not used again before all others were."""
        self._give_back(self._owned.pop(owner, ()))

    @property
    def owners(self) -> frozenset[str]:
        """All who have addresses."""
        return frozenset(self._owned)

    def _give_back(self, ips: Iterable[IPAddress]) -> None:
        for ip in ips:
            for pool in self._pools:
                pool.release(ip)

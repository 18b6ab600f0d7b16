"""The pod addresses of one node: one pool for each of its blocks, and who has which address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from podplane.ipam.pool import AddressPool, Exhausted
from podplane.state.value import IPAddress

Owner = tuple[str, str]
"""An attachment: container id and interface name."""


class NodeAddresses:
    """Addresses by owner, and addresses reserved for pods that had them before. Methods are idempotent for one owner."""

    def __init__(self, blocks: Iterable[str]) -> None:
        self.blocks = tuple(blocks)
        self._pools = [AddressPool(ipaddress.ip_network(block)) for block in self.blocks]
        self._owned: dict[Owner, tuple[IPAddress, ...]] = {}
        self._reserved: dict[str, tuple[IPAddress, ...]] = {}

    def allocate(self, owner: Owner, wanted: Sequence[str] = (), pod_uid: str = "") -> tuple[str, ...]:
        """One address of each block for `owner`: those that are reserved for its pod, else the wanted ones where they are
        free, else the next free ones.

        Exhausted when a block is full; then nothing was taken.
        """
        if owner not in self._owned:
            reserved = self._reserved.pop(pod_uid, ())
            self._owned[owner] = reserved or self._take([ipaddress.ip_address(ip) for ip in wanted])
        return tuple(map(str, self._owned[owner]))

    def _take(self, wanted: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
        taken: list[IPAddress] = []
        try:
            for pool in self._pools:
                address = next((ip for ip in wanted if pool.take(ip)), None)
                taken.append(address or pool.next())
        except Exhausted:
            self._free(taken)
            raise
        return tuple(taken)

    def keep(self, owner: Owner, ips: Iterable[str]) -> None:
        """This owner has these addresses already (it was attached by an agent before this one)."""
        if owner not in self._owned and (taken := self._take_all(ips)):
            self._owned[owner] = taken

    def reserve(self, pod_uid: str, ips: Iterable[str]) -> None:
        """Keep these addresses for a pod that had them before the node restarted, and will be attached again."""
        if pod_uid not in self._reserved and (taken := self._take_all(ips)):
            self._reserved[pod_uid] = taken

    def _take_all(self, ips: Iterable[str]) -> tuple[IPAddress, ...]:
        """One of each block, or none."""
        taken = tuple(ip for ip in map(ipaddress.ip_address, ips) if any(pool.take(ip) for pool in self._pools))
        if len(taken) == len(self._pools):
            return taken
        self._free(taken)
        return ()

    def release(self, owner: Owner) -> None:
        """Free the owner's addresses; they are not used again before all others were."""
        self._free(self._owned.pop(owner, ()))

    def cancel_reservation(self, pod_uid: str) -> None:
        """The pod will not come."""
        self._free(self._reserved.pop(pod_uid, ()))

    @property
    def owners(self) -> frozenset[Owner]:
        """All who have addresses."""
        return frozenset(self._owned)

    @property
    def reservations(self) -> dict[str, tuple[str, ...]]:
        """Addresses by the uid of the pod that they are reserved for."""
        return {uid: tuple(map(str, ips)) for uid, ips in self._reserved.items()}

    def _free(self, ips: Iterable[IPAddress]) -> None:
        for ip in ips:
            for pool in self._pools:
                pool.release(ip)

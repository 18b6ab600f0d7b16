"""The pod addresses of one node: one pool for each of its blocks, and who has which address."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from podplane.ipam.pool import AddressPool, Exhausted
from podplane.model.words import counted
from podplane.state.value import IPAddress

Owner = tuple[str, str]
"""An attachment: container id and interface name."""
MOST_NAMESPACES = 3
"""So many are named, where a block is full."""


Named = Callable[[str, str], bool]
"""(address, uid of a pod): does the API name the address as that of another pod, which has not ended?"""


IsElsewhere = Callable[[str], bool]
"""(address): has another network of this machine given it to a container?"""


def by_nobody(ip: str, pod_uid: str) -> bool:
    """It names none."""
    return False


def not_elsewhere(ip: str) -> bool:
    """There is no other network."""
    return False


class Unavailable(Exception):
    """An address that was asked for can't be had; the text says which, and why."""


def container_of(owner: Owner) -> str:
    """An owner of whom nothing else is known."""
    return f"container {owner[0]}"


class NodeAddresses:
    """Addresses by owner, and addresses reserved for pods that had them before. Methods are idempotent for one owner."""

    def __init__(
        self,
        blocks: Iterable[str],
        name_of: Callable[[Owner], str] = container_of,
        network: str = "",
        named: Named = by_nobody,
        elsewhere: IsElsewhere = not_elsewhere,
    ) -> None:
        """`name_of` says who an owner is: `pod namespace/name`. `network` is the name of a further one, whose subnets these are. What is
        `named` for somebody else, or in use `elsewhere`, is not given out, though it is free."""
        self.blocks = tuple(blocks)
        self._name_of = name_of
        self._network = network
        self._is_named, self._is_elsewhere = named, elsewhere
        self._pools = [AddressPool(ipaddress.ip_network(block)) for block in self.blocks]
        self._owned: dict[Owner, tuple[IPAddress, ...]] = {}
        self._reserved: dict[str, tuple[IPAddress, ...]] = {}
        self.last: tuple[str, ...] = ()
        """What was allocated last."""

    def continue_after(self, ips: Iterable[str]) -> None:
        """An agent before this one allocated these last: what was freed then is still used again last of all."""
        self.last = tuple(ips)
        for ip in map(ipaddress.ip_address, self.last):
            for pool in self._pools:
                pool.continue_after(ip)

    def allocate(
        self, owner: Owner, wanted: Sequence[str] = (), pod_uid: str = "", asked: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """One address of each block for `owner`: the one that is asked for, else what is reserved for its pod, else a wanted one that is
        free, else the next free one.

        Exhausted when a block is full, Unavailable when one that is asked for can't be had; then nothing was taken.
        """
        needed = list(map(ipaddress.ip_address, asked))
        if owner in self._owned:
            self._check_kept(owner, needed)
        else:
            self._owned[owner] = self._allocate([ipaddress.ip_address(ip) for ip in wanted], pod_uid, needed)
            self.last = tuple(map(str, self._owned[owner]))
        return tuple(map(str, self._owned[owner]))

    def _check_kept(self, owner: Owner, needed: Sequence[IPAddress]) -> None:
        kept = self._owned[owner]
        if other := [ip for ip in needed if ip not in kept]:
            have = ", ".join(map(str, kept))
            raise Unavailable(f"address {other[0]} is asked for, but this interface is attached with {have}: detach it first")

    def _allocate(self, wanted: list[IPAddress], pod_uid: str, needed: list[IPAddress]) -> tuple[IPAddress, ...]:
        reserved = self._reserved.pop(pod_uid, ())
        if reserved and set(needed) <= set(reserved):
            return reserved
        self._free(reserved)
        try:
            return self._take([*reserved, *wanted], needed, pod_uid)
        except (Exhausted, Unavailable):
            if reserved:
                self.reserve(pod_uid, map(str, reserved))
            raise

    def _take(self, wanted: Sequence[IPAddress], needed: Sequence[IPAddress], pod_uid: str) -> tuple[IPAddress, ...]:
        exact = self._by_pool(needed)
        taken: list[IPAddress] = []
        try:
            for number, pool in enumerate(self._pools):
                if number in exact:
                    address: IPAddress | None = exact[number]
                    if not pool.take(exact[number]):
                        raise Unavailable(f"address {address} is asked for, but {self._why_not(exact[number], pool)}")
                else:
                    address = next((ip for ip in wanted if pool.take(ip)), None)
                taken.append(address or self._next(pool, pod_uid))
        except (Exhausted, Unavailable):
            self._free(taken)
            raise
        return tuple(taken)

    def _named(self, pool: AddressPool) -> str:
        """In words, for errors."""
        return f"subnet {pool.block} of network {self._network}" if self._network else f"block {pool.block}"

    def _by_pool(self, needed: Iterable[IPAddress]) -> dict[int, IPAddress]:
        """The address that is asked for of each pool. Unavailable when there is no pool for one, or none is left."""
        found: dict[int, IPAddress] = {}
        for ip in needed:
            number = next((number for number, pool in enumerate(self._pools) if ip in pool.block), None)
            if number is None:
                where = f"subnet of network {self._network}" if self._network else "block of this node"
                raise Unavailable(f"address {ip} is asked for, but it is in no {where} ({', '.join(self.blocks)})")
            if found.setdefault(number, ip) != ip:
                where = self._named(self._pools[number])
                raise Unavailable(f"addresses {found[number]} and {ip} are asked for: an interface gets one of {where}")
        return found

    def _why_not(self, ip: IPAddress, pool: AddressPool) -> str:
        for owner, ips in self._owned.items():
            if ip in ips:
                return f"{self._name_of(owner)} has it"
        for uid, ips in self._reserved.items():
            if ip in ips:
                return f"it is kept for the pod with uid {uid}, which had it before this node started"
        if ip == pool.gateway and not self._network:
            return f"it is the node's own in {self._named(pool)}"
        return f"it is one of the first two or the last one of {self._named(pool)}, which no pod gets"

    def _next(self, pool: AddressPool, pod_uid: str) -> IPAddress:
        """The next free one, but for those that the API has for pods that have left: such a pod may hang for long, and readers of the API
        would take one pod for the other. And but for those of another network that had the block before."""
        named, elsewhere = list[IPAddress](), list[IPAddress]()
        try:
            while True:
                ip = pool.next()
                if self._is_named(str(ip), pod_uid):
                    named.append(ip)
                elif self._is_elsewhere(str(ip)):
                    elsewhere.append(ip)
                else:
                    return ip
        except Exhausted:
            what = "" if self._network else "node "
            size = counted(pool.size, "pod address", "pod addresses")
            raise Exhausted(
                f"{what}{self._named(pool)} has {size}, all in use ({self._holders(len(named), len(elsewhere))})"
            ) from None
        finally:
            for ip in (*named, *elsewhere):
                pool.release(ip)

    def _holders(self, named: int, elsewhere: int) -> str:
        """Who has the addresses of a full block: whom one may ask to give one back."""
        names = (self._name_of(owner).removeprefix("pod ").partition("/") for owner in self._owned)
        counts = Counter(namespace for namespace, is_pod, _ in names if is_pod).most_common()
        parts = [f"{counted(count, 'pod')} of namespace {name}" for name, count in counts[:MOST_NAMESPACES]]
        if rest := sum(count for _, count in counts[MOST_NAMESPACES:]):
            parts.append(f"{rest} of others")
        if self._reserved:
            parts.append(f"{len(self._reserved)} kept for pods that had them before the node started")
        if named:
            parts.append(f"{named} of pods that have left, and not ended in the API")
        if elsewhere:
            parts.append(f"{elsewhere} that the network before podplane has given out")
        return ", ".join(parts)

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
    def full(self) -> str:
        """The first block of which no address is free, "" while there are some of each."""
        return next((str(pool.block) for pool in self._pools if pool.free <= 0), "")

    def has(self, owner: Owner) -> bool:
        """Has it addresses?"""
        return owner in self._owned

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

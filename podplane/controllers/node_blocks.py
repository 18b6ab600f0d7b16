"""Which Node has which block, what is in the way of a range, and who else gives blocks. Kept current by observing objects.

A range is a network of the configuration from which Nodes get blocks of one length. The next block is looked for behind the last one that
anybody has, so one that is free again is used last of all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from podplane.controllers.load_balancers import NODES, RANGES, machines_of, networks_of
from podplane.controllers.objects import Key, Object, key_of
from podplane.ipam.blocks import Blocks, number_of
from podplane.services.ranges import Allocated, of_network
from podplane.state.value import IPNetwork

PATIENCE_SECONDS = 2.0
"""A Node without a block is left to others for so long: kube-controller-manager, where it allocates, gives one at once."""
HOLD_SECONDS = 600.0
"""Nobody gets a block for so long after somebody else gave one."""
NOBODY: Key = ("", "")
OTHERS = (
    "blocks of nodes are given by somebody else, too (kube-controller-manager with --allocate-node-cidrs?): "
    "nothing is given, let one of both do it"
)


class BlockRange(msgspec.Struct, frozen=True):
    """A network, and the length of the blocks that it is divided into."""

    network: IPNetwork
    length: int


class NodeBlocks:
    """The blocks of all Nodes. `refusal` says why no block is given at all, "" when some are; `services` are networks of Services, beside
    those of ServiceCIDRs; `clock` is a monotonic one, in seconds."""

    def __init__(
        self,
        ranges: tuple[BlockRange, ...] = (),
        refusal: str = "",
        services: Iterable[IPNetwork] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ranges, self._refusal, self._clock = ranges, refusal, clock
        self.blocks: Blocks[Key] = Blocks()
        self.waiting: dict[Key, float] = {}
        """The Nodes without a block, and since when."""
        self._given: dict[Key, tuple[IPNetwork, ...]] = {}
        """What Nodes were given that were not observed with it yet: it may be theirs, whatever the API answered."""
        self._said: dict[Key, str] = {}
        self._of_others: set[Key] = set()
        """The Nodes that got a block of somebody else while they waited here, until that is said."""
        self._next = [0 for _ in ranges]
        self._full: set[int] = set()
        """The ranges, by place, that have nothing free."""
        self._machines: Allocated[Key] = Allocated()
        self._services: Blocks[Key] = Blocks()
        for network in services:
            self._services.add(network, NOBODY)
        self._others_until = -math.inf

    def observe(self, resource: str, object_: Object, *, add: bool) -> None:
        """An object is there, or is not there any more."""
        key = key_of(object_)
        if resource == NODES:
            self._node(key, object_, add=add)
        elif resource == RANGES:
            for network in networks_of(RANGES, object_):
                (self._services.add if add else self._services.remove)(network, key)

    def _node(self, key: Key, node: Object, *, add: bool) -> None:
        for ip in machines_of(NODES, node):
            (self._machines.add if add else self._machines.remove)(ip, key)
        own = networks_of(NODES, node)
        for network in own:
            if add:
                self.blocks.add(network, key)
                self._pass(network)
            else:
                self._release(network, key)
        if not add:
            return
        if not own:
            self.waiting.setdefault(key, self._clock())
        elif self.waiting.pop(key, None) is not None and not self._is_ours(key, own):
            self._others_until = self._clock() + HOLD_SECONDS
            if self.ranges:
                self._of_others.add(key)

    def _is_ours(self, key: Key, own: list[IPNetwork]) -> bool:
        """Has a Node what it was given here?"""
        given = self._given.pop(key, ())
        for network in given:
            if network not in own:
                self._release(network, key)
        return list(given) == own

    def _release(self, network: IPNetwork, key: Key) -> None:
        self.blocks.remove(network, key)
        self._full.clear()

    def forget(self, resource: str, object_: Object) -> None:
        """An object is gone."""
        if resource == NODES:
            key = key_of(object_)
            for network in self._given.pop(key, ()):
                self._release(network, key)
            self.waiting.pop(key, None)
            self._said.pop(key, None)
            self._of_others.discard(key)

    def take_of_others(self, key: Key) -> bool:
        """Did this Node get a block of somebody else? That is asked once."""
        is_so = key in self._of_others
        self._of_others.discard(key)
        return is_so

    def is_news(self, key: Key, text: str) -> bool:
        """Is it something else than what was said of this Node last? It counts as said."""
        known, self._said[key] = self._said.get(key), text
        return known != text

    def _pass(self, network: IPNetwork) -> None:
        """The next block is behind this one."""
        for place, range_ in enumerate(self.ranges):
            number = number_of(range_.network, range_.length, network)
            if number is not None:
                self._next[place] = max(self._next[place], number + 1)

    def patience(self, key: Key) -> float:
        """Seconds for which a Node is left to others still."""
        return self.waiting.get(key, self._clock()) + PATIENCE_SECONDS - self._clock()

    def obstacle(self) -> str:
        """Why nobody gets a block now; "" when nothing is in the way."""
        if self._refusal:
            return self._refusal
        if self._clock() < self._others_until:
            return OTHERS
        return next(self._overlaps(), "")

    def _overlaps(self) -> Iterator[str]:
        for one in self.ranges:
            for network, _ in self._services.overlapping(one.network):
                yield f"the range {one.network} of node blocks overlaps {network}, which is of Services: choose one apart from it"
            for ip in self._machines.within(of_network(one.network))[:1]:
                (_, node), *_ = sorted(self._machines.owners(ip))
                yield f"the range {one.network} of node blocks has {ip}, the address of the node {node}: choose one apart from it"

    def give(self, key: Key) -> tuple[tuple[IPNetwork, ...], str]:
        """Free blocks for a Node, one of each range; or none, and what there is none of. Asked again for a Node, it gives the same."""
        if key in self._given:
            return self._given[key], ""
        found: list[tuple[int, IPNetwork]] = []
        for place, range_ in enumerate(self.ranges):
            free = None if place in self._full else self.blocks.free(range_.network, range_.length, self._next[place])
            if free is None:
                self._full.add(place)
                return (), f"all blocks of /{range_.length} of {range_.network} are in use: give a larger range"
            found.append(free)
        for place, (number, network) in enumerate(found):
            self._next[place] = number + 1
            self.blocks.add(network, key)
        self._given[key] = given = tuple(network for _, network in found)
        return given, ""

    def twice(self, key: Key, node: Object) -> Iterator[tuple[IPNetwork, IPNetwork, Key]]:
        """(own block, the one that it overlaps, whose that is) for what this Node has and another one, too."""
        for own in networks_of(NODES, node):
            for other, owners in self.blocks.overlapping(own):
                yield from ((own, other, owner) for owner in sorted(owners) if owner != key)

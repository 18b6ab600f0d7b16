"""What of a Node counts: its addresses and blocks without those that make no sense, or that another Node has. Pure.

Whoever plans with a Node gets one without them, so no backend and no other feature needs to know of any of this; the rest of the Node is
planned as ever. What is left out is told: on the Node, by an event that it and a few others write, and in the status of each node.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.state.value import PARSED, network_of

TELLERS = 3
"""So many nodes write the event beside the one that it is about, which may have no agent: in a large cluster all of them would."""
NO_CLAIM_LOST: Mapping[str, str] = {}


class Usable(NamedTuple):
    """A Node as it counts, the same object where all of it does; and why what is left out is."""

    node: Node
    reasons: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """All reasons in one line; "" for none."""
        return f"{self.node.metadata.name}: {'; '.join(self.reasons)}: left out" if self.reasons else ""


def usable(node: Node, config: NetworkConfig, lost: Mapping[str, str] = NO_CLAIM_LOST) -> Usable:
    """What of a Node counts. `lost` are claims that others have (`claims.Claims.lost`)."""
    elsewhere = dict(config.left_out)
    blocks = node.spec.pod_cidrs
    within = {one: why for one in blocks if (why := _in_services(one, config.service_cidrs) or elsewhere.get(one))}
    if not lost and not within:
        return Usable(node, node.senseless)
    gone = {**lost, **within}
    spec = msgspec.structs.replace(node.spec, pod_cidrs=tuple(one for one in node.spec.pod_cidrs if one not in gone))
    addresses = tuple(one for one in node.status.addresses if one.address not in gone)
    status = msgspec.structs.replace(node.status, addresses=addresses)
    return Usable(msgspec.structs.replace(node, spec=spec, status=status), (*node.senseless, *gone.values()))


@functools.lru_cache(PARSED)
def _in_services(block: str, services: tuple[str, ...]) -> str:
    first, last = _ends(block)
    for one in services:
        its_first, its_last = _ends(one)
        if first <= its_last and its_first <= last:
            return f"the block {block} overlaps {one}, which is for Services"
    return ""


@functools.lru_cache(PARSED)
def _ends(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last address, each with its IP version."""
    found = network_of(text)
    first = int(found.network_address)
    return (found.version, first), (found.version, first + (1 << (found.max_prefixlen - found.prefixlen)) - 1)


def is_teller(node: str, about: str, first: Collection[str]) -> bool:
    """Does this node write events about a Node that does not count whole? `first` are the least names of Nodes, TELLERS of them."""
    return node == about or node in first

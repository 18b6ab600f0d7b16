"""Which peers a node watches: all of them in a small cluster, and in a large one some, so that each node is watched by just as many.

Nodes lie on a ring, each where the hash of its name is, and a node watches those that follow it. A node that comes or goes changes one peer
each of those before it, and nobody has to agree with anybody.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
from collections.abc import Collection

MOST = 16
"""Peers that a node watches, and watchers that a node has, in a larger cluster."""
RING = 1 << 64


@functools.lru_cache(1 << 14)
def place(name: str) -> int:
    """Where a node is on the ring."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def watched(own: str, names: Collection[str], most: int = MOST) -> tuple[str, ...]:
    """Of these nodes those that this one watches, the next on the ring first."""
    here = place(own)
    return tuple(heapq.nsmallest(most, (name for name in names if name != own), key=lambda name: (place(name) - here) % RING))


def phase(own: str, seconds: float) -> float:
    """When in a period of so many seconds a node sends its probes: not when all others do."""
    return place(own) / RING * seconds

"""Which Nodes say that they have which addresses and blocks, and who has what several of them claim. Pure; shared by a process' agents.

A claim is a network: a node's own address as a /32 or /128, or a block of its pods. Two claims of different Nodes that overlap can't both
be routed. The Node with precedence keeps its own: one that is ready before one that is not (who replaced a machine has its address, while
the former Node is still there), then the older one, then by name. A claim that lost takes nothing from others.

    put(node) ──► claims by place ──► overlaps? almost never: one look-up says so
                                         └──► touched(name): whose plans may differ by that   lost(name): which claims do not count, and why
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Mapping
from typing import NamedTuple

from podplane.model.objects import Node
from podplane.state.value import address_of, network_of

Rank = tuple[bool, str, str]
"""The lesser one has precedence: is it not ready, since when it is there, its name."""
BITS = {4: 32, 6: 128}


class Claim(NamedTuple):
    """What a Node says that it has: the first `length` bits of `start`, an address of its own or a block of its pods."""

    node: str
    version: int
    start: int
    length: int
    is_block: bool
    text: str


class _Places:
    """Claims of one IP version by place."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._claims: dict[tuple[int, int], list[Claim]] = {}
        self._lengths: dict[int, int] = {}
        self._sorted: list[tuple[int, int]] = []

    def add(self, claim: Claim) -> None:
        """A claim comes."""
        place = claim.start, claim.length
        if (row := self._claims.get(place)) is not None:
            row.append(claim)
            return
        self._claims[place] = [claim]
        self._lengths[claim.length] = self._lengths.get(claim.length, 0) + 1
        bisect.insort(self._sorted, place)

    def remove(self, claim: Claim) -> None:
        """It goes."""
        place = claim.start, claim.length
        row = self._claims[place]
        row.remove(claim)
        if not row:
            del self._claims[place]
            del self._sorted[bisect.bisect_left(self._sorted, place)]
            self._lengths[claim.length] -= 1
            if not self._lengths[claim.length]:
                del self._lengths[claim.length]

    def overlapping(self, start: int, length: int) -> list[Claim]:
        """All that have an address in common with this place, those there included: what holds it, then what it holds."""
        found: list[Claim] = []
        bits, claims = self._bits, self._claims
        for other in self._lengths:
            if other <= length and (row := claims.get((start >> (bits - other) << (bits - other), other))):
                found += row
        if length < bits:
            first = bisect.bisect_left(self._sorted, (start, length + 1))
            last = bisect.bisect_left(self._sorted, (start + (1 << (bits - length)), 0), first)
            for place in self._sorted[first:last]:
                found += claims[place] if place[1] > length else ()
        return found


class Claims:
    """Those of all Nodes; each change is told by `put`."""

    def __init__(self) -> None:
        self._places = {version: _Places(bits) for version, bits in BITS.items()}
        self._of: dict[str, tuple[Claim, ...]] = {}
        self._ranks: dict[str, Rank] = {}
        self._contested: set[str] = set()
        """Nodes with a claim that overlaps another one."""
        self._touched: dict[str, frozenset[str]] = {}

    def put(self, name: str, node: Node | None) -> None:
        """A Node came, changed, or went (None)."""
        before, now = self._of.get(name, ()), tuple(_claims(node)) if node is not None else ()
        rank = (not node.is_ready, node.metadata.creation_timestamp, name) if node is not None else None
        self._touched.pop(name, None)
        if before == now and self._ranks.get(name) == rank:
            return
        for claim in before:
            self._places[claim.version].remove(claim)
        for claim in now:
            self._places[claim.version].add(claim)
        others: dict[str, None] = {}
        for claim in (*before, *now):
            near = self._overlapping(claim)
            if len(near) > 1 or (near and near[0] is not claim):
                others |= dict.fromkeys(other.node for other in near if other is not claim)
        if now and rank is not None:
            self._of[name], self._ranks[name] = now, rank
        else:
            self._of.pop(name, None)
            self._ranks.pop(name, None)
        if others or name in self._contested:
            self._note(name, others)

    def _note(self, name: str, others: Collection[str]) -> None:
        """Claims of these overlap those that this Node has or had."""
        reached, left = {name, *others}, [name, *others]
        looked_at: dict[tuple[int, int, int], None] = {}
        while left:
            for claim in self._of.get(left.pop(), ()):
                if claim[1:4] not in looked_at:
                    looked_at[claim[1:4]] = None
                    near = {other.node for other in self._overlapping(claim)} - reached
                    reached |= near
                    left += near
        self._touched[name] = frozenset(reached - {name})
        for one in reached:
            is_contested = any(other is not claim for claim in self._of.get(one, ()) for other in self._overlapping(claim))
            (self._contested.add if is_contested else self._contested.discard)(one)

    def touched(self, name: str) -> Collection[str]:
        """Other Nodes of which something else may count since the last change of this one."""
        return self._touched.get(name, ())

    def lost(self, name: str, own: str = "") -> Mapping[str, str]:
        """The claims of a Node that do not count, and why, by their texts. On the node `own` its own claims count before all others: its
        pods are there."""
        if name not in self._contested:
            return {}
        reasons = ((claim.text, self._why_lost(claim, own)) for claim in self._of[name])
        return {text: why for text, why in reasons if why}

    def _why_lost(self, claim: Claim, own: str) -> str:
        counts: dict[Claim, bool] = {}
        others = self._others(claim, own)
        return next((_sentence(claim, one) for one in others if self._beats(one, claim, counts, own)), "")

    def _beats(self, other: Claim, claim: Claim, counts: dict[Claim, bool], own: str = "") -> bool:
        """Does the other one count, and keep this one from it?"""
        if other.node == claim.node:
            return claim.is_block and not other.is_block
        if own in (other.node, claim.node):
            return other.node == own and not any(
                self._beats(one, other, counts) for one in self._others(other) if one.node == own
            )
        return self._ranks[other.node] < self._ranks[claim.node] and self._counts(other, counts)

    def _counts(self, claim: Claim, counts: dict[Claim, bool]) -> bool:
        if claim not in counts:
            counts[claim] = not any(self._beats(one, claim, counts) for one in self._others(claim))
        return counts[claim]

    def _others(self, claim: Claim, own: str = "") -> list[Claim]:
        """Those that overlap it. Those with precedence come first: so `_counts` looks at few of them, one within the other."""
        others = [one for one in self._overlapping(claim) if one is not claim]
        return sorted(others, key=lambda one: (one.node != own, self._ranks[one.node], one.length, one.start, one.is_block))

    def _overlapping(self, claim: Claim) -> list[Claim]:
        return self._places[claim.version].overlapping(claim.start, claim.length)


def _claims(node: Node) -> list[Claim]:
    name, found = node.metadata.name, list[Claim]()
    for text in dict.fromkeys(node.internal_ips):
        ip = address_of(text)
        found.append(Claim(name, ip.version, int(ip), BITS[ip.version], False, text))
    for text in dict.fromkeys(node.spec.pod_cidrs):
        block = network_of(text)
        found.append(Claim(name, block.version, int(block.network_address), block.prefixlen, True, text))
    return found


def _sentence(claim: Claim, other: Claim) -> str:
    what, their = ("block" if one.is_block else "address" for one in (claim, other))
    whose = "its own" if claim.node == other.node else f"{other.node}'s"
    if (claim.start, claim.length, what) == (other.start, other.length, their):
        return f"the {what} {claim.text} is that of {other.node}, too"
    if claim.is_block and not other.is_block:
        return f"the block {claim.text} holds {whose} address {other.text}"
    if not claim.is_block:
        return f"the address {claim.text} is in {whose} block {other.text}"
    return f"the block {claim.text} overlaps {whose} block {other.text}"

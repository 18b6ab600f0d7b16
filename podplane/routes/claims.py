"""Which Nodes say that they have which addresses and blocks, and who has what several of them claim. Pure; shared by a process' agents.

A claim is a network: a node's own address as a /32 or /128, or a block of its pods. Two claims of different Nodes that overlap can't both
be routed:

    the same address, or blocks    the Node with precedence has it: one that is ready before one that is not (who replaced a machine has
    that overlap                   its address, while the former Node is still there), then the older one, then by name
    an address at which no node    it loses to whatever another Node claims: a node is reached at its first of each IP version
    is reached
    an address in another's block  the block is kept: a Node's blocks can't be changed, and its addresses can, by its kubelet alone
    a block that holds what more   is none, and takes nothing from others: so nobody has the whole cluster's, and what a change of one
    than HELD Nodes claim          Node may concern is bounded

A claim that lost takes nothing from others.

    put(node) ──► claims by place ──► overlaps? almost never: few look-ups say so
                                         └──► touched(name): whose plans may differ by that   lost(name): which claims do not count, and why
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from podplane.model.objects import Node
from podplane.routes.places import BITS, Claim, Place, Places, Rank
from podplane.state.value import PARSED, address_of, network_of

HELD = 2
"""A block may hold what so many Nodes claim (then precedence decides), itself not counted."""


class _Said(NamedTuple):
    """What one Node says: claims, and blocks that can't be its own, with the reason."""

    claims: tuple[Claim, ...] = ()
    senseless: Mapping[str, str] = {}


NOTHING = _Said()


class Claims:
    """Those of all Nodes; each change is told by `put`."""

    def __init__(self) -> None:
        self._places = {version: Places(version) for version in BITS}
        self._said: dict[str, _Said] = {}
        self._names: list[str] = []
        self._wide: set[Place] = set()
        """Blocks that hold what more than HELD Nodes claim."""
        self._contested: set[str] = set()
        """Nodes of which something may not count."""
        self._last = ""
        """The Node that was put last."""
        self._affected: Sequence[Claim] = ()
        """Claims for which something else may count since then."""

    def put(self, name: str, node: Node | None) -> None:
        """A Node came, changed, or went (None)."""
        before, now = self._said.get(name, NOTHING), _said(node) if node is not None else NOTHING
        self._last, self._affected = name, ()
        self._keep(name, now if node is not None else None)
        if before == now:
            return
        gone: Sequence[Claim] = [claim for claim in before.claims if claim not in now.claims]
        come = [claim for claim in now.claims if claim not in before.claims] if before.claims else now.claims
        if name not in self._contested and not now.senseless and self._is_free(name, gone) and self._is_free(name, come):
            self._replace(gone, come)
            return
        places = {claim.place for claim in (*gone, *come)}
        self._affected = self._affected_by(places, lambda: self._replace(gone, come))
        self._note(name)

    def first(self, count: int) -> Sequence[str]:
        """The least names of Nodes, so many."""
        return self._names[:count]

    def touched(self, name: str) -> Collection[str]:
        """Other Nodes of which something else may count since the last change of any Node, where this one was it."""
        return {claim.node for claim in self._affected} - {name} if name == self._last else ()

    def lost(self, name: str, own: str = "") -> Mapping[str, str]:
        """The claims of a Node that do not count, and why, by their texts. On the node `own` its own claims count before all others: its
        pods are there."""
        if name not in self._contested and not (self._wide and self._is_wide_on(own)):
            return {}
        said, mine = self._said.get(name, NOTHING), self._said.get(own, NOTHING)
        view = _View(self._places, self._wide, mine.claims)
        gone = {} if name == own else {one: why for one in said.claims if (why := view.why_lost(one))}
        unreached = {one.place.version for one in gone if not one.is_block and not one.is_spare}
        spare = [one.text for one in said.claims if one.is_spare and one.place.version in unreached]
        after = {text: f"the address {text} comes after one that is left out" for text in spare}
        return {**said.senseless, **after, **{one.text: why for one, why in gone.items()}}

    def _is_wide_on(self, own: str) -> bool:
        """Has this node a block that counts there alone?"""
        return any(claim.place in self._wide for claim in self._said.get(own, NOTHING).claims)

    def _keep(self, name: str, now: _Said | None) -> None:
        if now is None:
            if self._said.pop(name, None) is not None:
                del self._names[bisect.bisect_left(self._names, name)]
            return
        if name not in self._said:
            bisect.insort(self._names, name)
        self._said[name] = now

    def _is_free(self, name: str, claims: Iterable[Claim]) -> bool:
        return all(self._places[claim.place.version].is_free(claim.place, name) for claim in claims)

    def _replace(self, gone: Iterable[Claim], come: Iterable[Claim]) -> None:
        for claim in gone:
            self._places[claim.place.version].remove(claim)
        for claim in come:
            self._places[claim.place.version].add(claim)

    def _affected_by(self, places: Collection[Place], replace: Callable[[], None]) -> Sequence[Claim]:
        """Replace claims to these places. Returns all for which something else counts then, and maybe others: those beside them in the
        largest block that is no wide one, before or then."""
        firsts = {place: self._row(place)[:2] for place in places}
        counted = {one: one not in self._wide for place in places for one in self._holding(place)}
        replace()
        around = {one for place in places for one in self._holding(place)}
        for one in {*counted, *around}:
            (self._wide.add if one in around and self._is_wide(one) else self._wide.discard)(one)
        tops = {one for one in {*counted, *around} if counted.get(one) or (one in around and one not in self._wide)}
        reached = {one for top in tops for one in (top, *self._places[top.version].within(top))}
        affected = [claim for one in reached for claim in self._row(one)[:2]]
        for name in {claim.node for claim in affected}:
            self._note(name)
        changed = [self._row(place) for place, first in firsts.items() if self._row(place)[:1] != first[:1]]
        return [*affected, *itertools.chain.from_iterable(changed)]

    def _is_wide(self, place: Place) -> bool:
        """Does it hold what more than HELD Nodes claim? As soon as so many are found there is no need for more."""
        names: set[str] = set()
        for one in self._places[place.version].within(place):
            names.update(claim.node for claim in self._row(one)[: HELD + 1])
            if len(names) > HELD:
                return True
        return False

    def _note(self, name: str) -> None:
        said, view = self._said.get(name, NOTHING), _View(self._places, self._wide)
        is_contested = said.senseless or any(view.is_contested(claim) for claim in said.claims)
        (self._contested.add if is_contested else self._contested.discard)(name)

    def _row(self, place: Place) -> list[Claim]:
        return self._places[place.version].row(place)

    def _holding(self, place: Place) -> Iterator[Place]:
        return self._places[place.version].holding(place)


class _View:
    """Who has what, where the claims `mine` count before all others."""

    def __init__(self, places: Mapping[int, Places], wide: Collection[Place], mine: Sequence[Claim] = ()) -> None:
        self._places, self._wide, self._mine = places, wide, mine

    def why_lost(self, claim: Claim) -> str:
        """Why a claim that is none of `mine` does not count; "" when it does."""
        if mine := next((one for one in self._mine if one.place.overlaps(claim.place)), None):
            return _sentence(claim, mine)
        first = self._row(claim.place)[0]
        if first != claim:
            return _sentence(claim, first)
        if claim.place in self._wide:
            return f"the block {claim.text} holds addresses or blocks of more than {HELD} nodes"
        return next((_sentence(claim, one) for one in self._near(claim) if self._beats(one, claim)), "")

    def is_contested(self, claim: Claim) -> bool:
        """Does anything that may count overlap it?"""
        return claim.place in self._wide or len(self._row(claim.place)) > 1 or bool(self._near(claim))

    def _beats(self, other: Claim, claim: Claim) -> bool:
        """Does the other one, of another place, count and keep this one from it? Of two blocks the one with precedence: so this ends."""
        if not other.is_block or (claim.is_block and other.rank > claim.rank):
            return False
        return not self.why_lost(other)

    def _near(self, claim: Claim) -> list[Claim]:
        """What may count of other Nodes and overlaps it, of other places, by precedence: few, for a block that holds more is none."""
        places = self._places[claim.place.version]
        inside = () if claim.place in self._wide else places.within(claim.place)
        found = (
            self._row(one)[0] for one in (*places.holding(claim.place), *inside) if one != claim.place and one not in self._wide
        )
        return sorted(one for one in found if one.node != claim.node)

    def _row(self, place: Place) -> list[Claim]:
        return self._places[place.version].row(place)


def _said(node: Node) -> _Said:
    rank = False, not node.is_ready, node.metadata.creation_timestamp, node.metadata.name
    spare = (True, *rank[1:])
    ips, ranks, senseless = dict[Place, Claim](), dict[int, Rank](), dict[str, str]()
    for text in node.internal_ips:
        place = _place(text)
        if place not in ips:
            ips[place] = Claim(ranks.get(place[0], rank), place, False, text)
            ranks[place[0]] = spare
        elif ips[place].text != text:
            senseless[text] = f"the address {text} is said twice"
    blocks: dict[Place, Claim] = {}
    for text in dict.fromkeys(node.spec.pod_cidrs):
        block = Claim(rank, _place(text), is_block=True, text=text)
        if why := _why_senseless(block, ips.values(), blocks):
            senseless[text] = why
        else:
            blocks[block.place] = block
    return _Said((*ips.values(), *blocks.values()), senseless)


@functools.lru_cache(PARSED)
def _place(text: str) -> Place:
    """That of a block or address."""
    if "/" not in text:
        ip = address_of(text)
        return Place(ip.version, int(ip), BITS[ip.version])
    block = network_of(text)
    return Place(block.version, int(block.network_address), block.prefixlen)


def _why_senseless(block: Claim, ips: Iterable[Claim], blocks: Collection[Place]) -> str:
    """Why a Node can't have a block, whatever others say; "" when it can. `blocks` are those that it has."""
    if block.place in blocks:
        return f"the block {block.text} is said twice"
    version, start, length = block.place
    room = BITS[version] - length
    for ip in ips:
        if ip.place[0] == version and ip.place[1] >> room == start >> room:
            return f"the block {block.text} holds its own address {ip.text}"
    return ""


def _sentence(claim: Claim, other: Claim) -> str:
    what, their = ("block" if one.is_block else "address" for one in (claim, other))
    if (claim.place, what) == (other.place, their):
        return f"the {what} {claim.text} is that of {other.node}, too"
    if claim.is_block and not other.is_block:
        return f"the block {claim.text} holds {other.node}'s address {other.text}"
    return f"the {what} {claim.text} {'overlaps' if claim.is_block else 'is in'} {other.node}'s block {other.text}"

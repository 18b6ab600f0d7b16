"""Which pods of a node are closed, and for which directions, because the kernel refuses what their policies are in nf_tables.

A pod that is closed is led to a drop (`tables.CLOSED`) in place of its policies' chains, which are tried again all the while.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping

from podplane.policy import peers as p
from podplane.policy import tables
from podplane.policy.compiling import SHORT
from podplane.policy.enforced import AllEnforced, Enforced
from podplane.state.nft_members import MEMBERS
from podplane.state.value import Identity

Closed = Mapping[Hashable, frozenset[str]]
"""Pod interfaces and their directions (IN, OUT)."""
SETS = "nft set", MEMBERS
WAYS = {
    f"{name}{version}": direction
    for maps in (tables.MAPS, tables.BELOW_ADMIN)
    for direction, name in maps.items()
    for version in ("", 4, 6)
} | {f"{tables.TO_NODE}{version}": tables.OUT for version in ("", 4, 6)}
"""Chains and maps that lead to the policies of a direction."""


def is_verdict(identity: Identity) -> bool:
    """Is this the element by which a pod is led to a drop, or to its policies?"""
    return identity[0] == "nft element" and str(identity[4]).startswith((*tables.MAPS.values(), tables.TO_NODE))


def closed(enforced: AllEnforced, refused: Iterable[tuple[Identity, Iterable[Hashable]]]) -> dict[Hashable, frozenset[str]]:
    """`refused`: what the kernel refuses of the table of policies, and whose it is: of pod interfaces, or else of sets that are shared."""
    found: dict[Hashable, frozenset[str]] = {}
    sets = set[object]()
    for identity, owners in refused:
        for owner in owners:
            one = enforced.of(owner)
            if one is not None:
                found[owner] = found.get(owner, frozenset()) | directions(one, identity)
            elif identity[0] in SETS:
                sets.add(identity[4])
    for owner, its in enforced.items() if sets else ():
        found[owner] = found.get(owner, frozenset()) | _forbidding(its, sets)
    return {owner: its for owner, its in found.items() if its}


def directions(enforced: Enforced, identity: Identity) -> frozenset[str]:
    """For which directions a pod's policies need this object of its plan. What is of no direction alone both need."""
    under = frozenset(SHORT[one.direction] for one in enforced.programs)
    name = str(identity[-1] if identity[0] != "nft element" else identity[4])
    if name in WAYS:
        return under & {WAYS[name]}
    own = frozenset(SHORT[one.direction] for one in enforced.programs if identity in one.fragment)
    for direction, group in enforced.groups.items():
        if identity in (group.chain.identity, group.denied.identity):
            own |= {direction}
    second = name.split("-")[1:2]
    named = under.intersection(second) if name.startswith(("admin-", "base-")) else frozenset()
    return own or named or under


def _forbidding(enforced: Enforced, sets: Collection[object]) -> frozenset[str]:
    """The directions for which rules that do more than allow look into one of these sets: who is missing there would pass."""
    programs = (one for one in enforced.programs if one.forbidding)
    return frozenset(
        SHORT[one.direction]
        for one in programs
        if any(p.name(peers, version) in sets for peers in one.peers for version in (4, 6))
    )

"""Which peers' routes are withdrawn: of those that the API says are not ready, and that do not answer.

Neither is enough. A node of which the API hears nothing may work as before, and one that does not answer may be on the other side of
something that is broken here. Nothing is withdrawn because of its age, nor while most nodes seem to fail at once, for it is not they who
failed then; nor of a node that was never well, for it is about to begin. What is withdrawn stays so, whatever becomes of the API, until the
node is ready or answers.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from podplane.probes.table import State

MOST = 0.55
"""This share of nodes does not fail at once by chance (kube-controller-manager: --unhealthy-zone-threshold)."""


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that is not ready, or whose routes are withdrawn. `pods`: are its pods reached? `was_well`: it was ready once, or answered.
    `has_answered`: its pods' gateway answered a probe of this node."""

    name: str
    is_ready: bool
    pods: State
    was_well: bool = True
    has_answered: bool = True


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """`nodes` of the cluster, of which so many are `failing`: not ready, or not reached; does any peer answer (`is_answered`); is the API
    there (`is_current`)?"""

    nodes: int
    failing: int
    is_answered: bool
    is_current: bool = True

    @property
    def is_outage(self) -> bool:
        """Do most nodes fail at once?"""
        return self.failing >= MOST * self.nodes


def withdrawn(now: frozenset[str], suspects: Iterable[Suspect], around: Surroundings) -> frozenset[str]:
    """The names of the peers whose routes are withdrawn from now on; `now` are those whose are."""
    may_be_more = around.is_current and not around.is_outage
    return frozenset(
        one.name
        for one in suspects
        if not one.is_ready and (_stays(one) if one.name in now else may_be_more and _begins(one, around))
    )


def _stays(one: Suspect) -> bool:
    return one.pods is not State.REACHED


def _begins(one: Suspect, around: Surroundings) -> bool:
    """An answer that never came proves nothing where no peer answers: the network between nodes may drop what probes send."""
    return one.pods is State.LOST and one.was_well and (one.has_answered or around.is_answered)

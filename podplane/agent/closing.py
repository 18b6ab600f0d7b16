"""Closes the pods of which the kernel refuses policies, and opens them when it takes these: their plans are made anew for that.

What was refused is tried again by the ledger. When it is taken the pod is led to it, and its connections are judged again, as after any
change. Should the kernel refuse nothing but to lead the pod there, that is tried again later and later.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

from podplane.agent.watcher import CONTRADICTIONS
from podplane.policy import closing
from podplane.policy.feature import PolicyMemory
from podplane.policy.tables import TABLE
from podplane.state.ledger import MAX_RETRY_SECONDS, RETRY_SECONDS, Ledger
from podplane.state.operations import Report
from podplane.state.value import Identity

NONE: frozenset[str] = frozenset()


class _Hold(NamedTuple):
    """A pod stays closed until then, whatever the ledger says."""

    directions: frozenset[str]
    tries: int
    until: float


def is_of_policies(identity: Identity) -> bool:
    """Is this an object of the table of policies?"""
    return identity[0].startswith("nft ") and identity[2:4] == TABLE


class Closing:
    """Of one node. `plan_anew` has the plan of a pod interface made anew, `taken` is called when the kernel has taken objects of the
    table that it refused and that are no pod's."""

    def __init__(
        self,
        ledger: Ledger,
        memory: PolicyMemory,
        clock: Callable[[], float],
        plan_anew: Callable[[Any], None],
        taken: Callable[[], None],
    ) -> None:
        self._ledger, self._memory, self._clock = ledger, memory, clock
        self._plan_anew, self._taken = plan_anew, taken
        self._holds: dict[Hashable, _Hold] = {}
        self._held: list[float] = []
        """Until when pods are closed that nothing else closes."""
        self._lacks_common = False

    @property
    def has_due(self) -> bool:
        """Is a pod to be opened, as it was held closed for long enough?"""
        return any(until <= self._clock() for until in self._held)

    def concerns(self, report: Report) -> bool:
        """Is `follow` to be called after this?"""
        operations = [one.operation for one in report.failed]
        if self._memory.closed or self._lacks_common:
            operations += report.applied
        return any(is_of_policies(one.value.identity) for one in operations)

    def follow(self) -> bool:
        """Close and open pods as the ledger has it by now; are there any to be planned anew?"""
        refused = list(self._refused()) if self._ledger.refused else []
        if not refused and not self._memory.closed and not self._lacks_common and not self._holds:
            return False
        self._follow_common(refused)
        found = closing.closed(self._memory.enforced, refused)
        self._hold(found, refused)
        self._keep_held(found)
        before, self._memory.closed = self._memory.closed, found
        changed = [one for one in {**before, **found} if before.get(one, NONE) != found.get(one, NONE)]
        for owner in changed:
            if self._memory.enforced.of(owner) is not None:
                self._plan_anew(owner)
        return bool(changed)

    def _refused(self) -> Iterator[tuple[Identity, tuple[Hashable, ...]]]:
        """What is refused of the table, for reasons that no reading of the kernel explains, and whose it is."""
        for identity, one in self._ledger.refused.items():
            if is_of_policies(identity) and (one.tries > 1 or not isinstance(one.error, CONTRADICTIONS)):
                yield identity, self._ledger.desired.owners(identity)

    def _hold(self, found: dict[Hashable, frozenset[str]], refused: Iterable[tuple[Identity, Iterable[Hashable]]]) -> None:
        """Those whose own elements are refused stay closed for longer each time; after a long time without that it begins anew."""
        now = self._clock()
        self._holds = {one: hold for one, hold in self._holds.items() if now < hold.until + MAX_RETRY_SECONDS}
        for owner in {owner for identity, owners in refused if closing.is_verdict(identity) for owner in owners}:
            if owner in found:
                before = self._holds.get(owner)
                tries = before.tries + 1 if before else 1
                wait = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2 ** min(tries - 1, 16))
                self._holds[owner] = _Hold(found[owner], tries, now + wait)

    def _keep_held(self, found: dict[Hashable, frozenset[str]]) -> None:
        now, self._held = self._clock(), []
        for owner, hold in self._holds.items():
            if now < hold.until and self._memory.enforced.of(owner) is not None:
                if not hold.directions <= found.get(owner, NONE):
                    self._held.append(hold.until)
                found[owner] = found.get(owner, NONE) | hold.directions

    def _follow_common(self, refused: Iterable[tuple[Identity, Iterable[Hashable]]]) -> None:
        """Until the kernel takes what all pods share, nothing is judged."""
        lacks = any(self._memory.enforced.of(owner) is None for _, owners in refused for owner in owners)
        if self._lacks_common and not lacks:
            self._taken()
        self._lacks_common = lacks

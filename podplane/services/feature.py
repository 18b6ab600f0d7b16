"""Services as a feature of a node: one Service in, its kernel objects and effects out. Pure, but for the memory that is handed in.

The memory is read by `plan` and written by `accept`, so that a plan that is given up leaves no trace. Only numbers are assigned by `plan`:
planning again assigns the same ones.

    planned = plan(service, slices, context, memory, taken)
    planned.contested               what another Service has: the caller decides which of the two is planned again without it (`taken`)
    accept(memory, planned)         the fragment is part of the node's desired state
    planned.effects                 carried out in order, once the fragment is in the kernel
    memory.tidy()                   now and then, when no plan waits to be accepted

Why connection tracking is flushed: a TCP connection ends when its endpoint does. One of UDP or SCTP is tracked for as long as its client
sends, and goes where its first packet went: to an endpoint that no longer serves, or past a Service that was created later. An endpoint
that terminates, or that a policy or hint takes new connections away from, keeps the connections that it has.

Source: k8s.io/kubernetes, pkg/proxy/conntrack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from podplane.model.service import EndpointSlice, Service
from podplane.services.elements import encode
from podplane.services.model import NO_TARGETS, Claim, Group, ServiceTable, without
from podplane.services.numbers import Numbers
from podplane.services.resolve import NodeContext, resolve
from podplane.state.conntrack import Allowed, Frontend, Target
from podplane.state.effects import Effect, FlushConntrack, Warn
from podplane.state.value import Fragment, Value

NOTHING_CLAIMED: frozenset[Claim] = frozenset()


class Planned(msgspec.Struct, frozen=True):
    """One Service as it shall be: `contested` names the paths of other Services that have some of its claims now."""

    fragment: Fragment
    effects: tuple[Effect, ...]
    table: ServiceTable
    contested: Mapping[Claim, str] = {}


class ServicesMemory:
    """What is known of the Services of one node: the numbers in use, and what was accepted last for each Service."""

    def __init__(self) -> None:
        self.numbers = Numbers()
        self._tables: dict[str, ServiceTable] = {}
        self._holders: dict[Claim, str] = {}
        self._group_count = 0

    def table(self, path: str) -> ServiceTable:
        """What was accepted last for a Service (`namespace/name`); an empty table when it has nothing."""
        return self._tables.get(path) or ServiceTable(path)

    def holder(self, claim: Claim) -> str:
        """The path of the Service that has this frontend or address; "" when none has."""
        return self._holders.get(claim, "")

    def allowed(self, frontends: Iterable[Frontend]) -> dict[Frontend, frozenset[Target]]:
        """Where connections to these frontends may go now; nowhere when no Service has the frontend."""
        return {key: self.table(self.holder(key)).allowed().get(key, NO_TARGETS) for key in frontends}

    def recover(self, found: Iterable[Value]) -> None:
        """Take over the numbers of an agent before this one, from what is in the kernel."""
        self.numbers.recover(found)

    def tables(self) -> Iterable[ServiceTable]:
        """What was accepted, of all Services."""
        return self._tables.values()

    def replace(self, table: ServiceTable) -> None:
        """`table` is what its Service has now."""
        old = self.table(table.path)
        for claim in old.claims():
            if self._holders.get(claim) == table.path:
                del self._holders[claim]
        self._holders.update(dict.fromkeys(table.claims(), table.path))
        self._group_count += len(_used_groups(table)) - len(_used_groups(old))
        if table.frontends or table.owned or table.unserved:
            self._tables[table.path] = table
        else:
            self._tables.pop(table.path, None)

    def tidy(self) -> None:
        """Free numbers that no Service uses, once there are many. Not between a `plan` and its `accept`: it would lose its numbers."""
        if self.numbers.is_crowded(self._group_count):
            self.numbers.keep([group for table in self._tables.values() for group in _used_groups(table)])


def _used_groups(table: ServiceTable) -> list[Group]:
    return [group for group in table.groups() if group.targets]


def plan(
    service: Service,
    slices: Sequence[EndpointSlice],
    context: NodeContext,
    memory: ServicesMemory,
    taken: frozenset[Claim] = NOTHING_CLAIMED,
) -> Planned:
    """One Service on this node, without what is `taken` by others. NoNumber when the node has no number left for it."""
    table = without(resolve(service, slices, context), taken)
    contested = {claim: holder for claim in table.claims() if (holder := memory.holder(claim)) not in ("", table.path)}
    warnings = tuple(Warn(reason) for reason in table.unserved)
    effects: tuple[Effect, ...] = (*warnings, *_flushes(memory, table))
    return Planned(encode(table, memory.numbers), effects, table, contested)


def removed(path: str, memory: ServicesMemory) -> Planned:
    """A Service that is gone, or that this node does not serve any more."""
    table = ServiceTable(path)
    return Planned({}, _flushes(memory, table), table)


def release(path: str, claims: frozenset[Claim], memory: ServicesMemory) -> Planned:
    """What a Service has, without claims that an older Service comes to have."""
    table = without(memory.table(path), claims)
    return Planned(encode(table, memory.numbers), _flushes(memory, table), table)


def accept(memory: ServicesMemory, planned: Planned) -> None:
    """The fragment is part of the desired state now: remember what the Service has. Of a Service that has nothing, nothing is kept."""
    memory.replace(planned.table)


def repaired(memory: ServicesMemory) -> tuple[FlushConntrack, ...]:
    """What to do after tables were repaired: connections that began meanwhile may go anywhere."""
    allowed = {key: targets for table in memory.tables() for key, targets in table.allowed().items()}
    return (FlushConntrack(allowed),) if allowed else ()


def _flushes(memory: ServicesMemory, table: ServiceTable) -> tuple[FlushConntrack, ...]:
    before, after = memory.table(table.path).allowed(), table.allowed()
    stale = stale_frontends(before, after)
    if not stale:
        return ()
    gone = memory.allowed(key for key in stale if key not in after and memory.holder(key) not in ("", table.path))
    return (FlushConntrack({key: after[key] if key in after else gone.get(key, NO_TARGETS) for key in stale}),)


def stale_frontends(before: Allowed, after: Allowed) -> set[Frontend]:
    """The frontends whose connections may go where they must not: those that came, went, or lost an endpoint."""
    came_or_lost = {key for key, targets in after.items() if key not in before or not set(before[key]) <= set(targets)}
    return came_or_lost | (before.keys() - after.keys())

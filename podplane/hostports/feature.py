"""Host ports as a feature of a node: one pod interface in, its plan out. Pure, but for the memory that is handed in.

The memory is read by `plan` and written by `accept`, so that a plan that is given up leaves no trace.

Why connection tracking is flushed: a connection of UDP or SCTP is tracked for as long as its client sends, and goes where its first
packet went: to a pod that is gone, or to the node itself, though a pod has the port now.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator

from podplane.hostports.model import (
    CONNECTIONLESS,
    LOOPBACK6,
    HostPortClaim,
    HostPortTable,
    Listener,
    others,
    reserved,
    resolve,
    switched_off,
    with_listeners,
    without,
)
from podplane.hostports.settings import HostPortSettings
from podplane.hostports.tables import elements
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.model.view import Sandbox
from podplane.state.conntrack import Frontend, Target
from podplane.state.effects import FlushConntrack, Plan, Warn
from podplane.state.value import IPAddress

TargetOf = Callable[[HostPortClaim], Target | None]
LOOPBACK4 = ipaddress.ip_address("127.0.0.1")
NOTHING_TAKEN: frozenset[Hashable] = frozenset()
EMPTY = HostPortTable()


class HostPortPlan(Plan, frozen=True, kw_only=True):
    """A plan, whose it is, what it has by it, and the node's addresses at that time."""

    owner: Hashable
    table: HostPortTable
    addresses: tuple[IPAddress, ...] = ()


class HostPortMemory:
    """Who has which host port of one node, and where it leads, as it was accepted last. Owners are keys of the agent."""

    def __init__(self) -> None:
        self._tables: dict[Hashable, HostPortTable] = {}
        self._holders: dict[HostPortClaim, Hashable] = {}
        self._addresses: tuple[IPAddress, ...] = ()

    def table(self, owner: Hashable) -> HostPortTable:
        """What an owner has."""
        return self._tables.get(owner, EMPTY)

    def holder(self, claim: HostPortClaim) -> Hashable | None:
        """Who has a port; None when nobody has it."""
        return self._holders.get(claim)

    def target(self, claim: HostPortClaim) -> Target | None:
        """Where a port leads."""
        return self.table(self._holders.get(claim)).targets.get(claim)

    def accept(self, plan: HostPortPlan) -> None:
        """The plan is part of the desired state now."""
        for claim in self.table(plan.owner).targets:
            if self._holders.get(claim) == plan.owner:
                del self._holders[claim]
        self._holders.update(dict.fromkeys(plan.table.targets, plan.owner))
        if plan.table.targets:
            self._tables[plan.owner] = plan.table
            self._addresses = plan.addresses
        else:
            self._tables.pop(plan.owner, None)

    def after_repair(self) -> tuple[FlushConntrack, ...]:
        """What to do after the table was repaired: connections that began meanwhile may go anywhere."""
        return _flush((claim for claim in self._holders if claim.protocol in CONNECTIONLESS), self._addresses, self.target)


def plan(
    owner: Hashable,
    sandbox: Sandbox | None,
    node: Node | None,
    config: NetworkConfig,
    settings: HostPortSettings,
    memory: HostPortMemory,
    taken: frozenset[Hashable] = NOTHING_TAKEN,
    listeners: Collection[Listener] = (),
) -> HostPortPlan:
    """The host ports of one pod interface, without what is `taken` by others; None: it is gone. `listeners` are sockets of the node: a
    pod's port takes precedence, and its users are told of those that nobody reaches any more."""
    table = EMPTY
    if sandbox is not None and node is not None and node.spec.pod_cidrs:
        versions = tuple(ipaddress.ip_network(block).version for block in node.spec.pod_cidrs)
        own = tuple(map(ipaddress.ip_address, node.ips))
        inner = others(node, config)
        found = resolve(sandbox, versions, inner, own, reserved(config)) if settings.enabled else switched_off(sandbox)
        table = with_listeners(without(found, taken), listeners, inner)
    addresses = tuple(node_addresses(node)) if node else ()
    return HostPortPlan(
        owner=owner,
        table=table,
        addresses=addresses,
        fragment=elements(table),
        effects=(*_warnings(table), *_flushes(owner, table, addresses, memory)),
        contested={c: holder for c in table.targets if (holder := memory.holder(c)) not in (None, owner)},
    )


def _warnings(table: HostPortTable) -> Iterator[Warn]:
    yield from map(Warn, table.unserved)
    yield from (Warn(doubt, is_doubt=True) for doubt in table.doubts)


def node_addresses(node: Node) -> Iterator[IPAddress]:
    """The node's addresses by which clients reach its host ports: its own, and those of its loopback."""
    yield from map(ipaddress.ip_address, node.internal_ips)
    versions = {ipaddress.ip_network(block).version for block in node.spec.pod_cidrs}
    yield from (ip for ip in (LOOPBACK4, LOOPBACK6) if ip.version in versions)


def _flushes(
    owner: Hashable, table: HostPortTable, addresses: tuple[IPAddress, ...], memory: HostPortMemory
) -> tuple[FlushConntrack, ...]:
    """What to do when ports of an owner come, go, or lead elsewhere."""
    before, after = memory.table(owner).targets, table.targets
    stale = [c for c in {**before, **after} if before.get(c) != after.get(c) and c.protocol in CONNECTIONLESS]

    def target(claim: HostPortClaim) -> Target | None:
        return after.get(claim) or (memory.target(claim) if memory.holder(claim) != owner else None)

    return _flush(stale, addresses, target)


def _flush(claims: Iterable[HostPortClaim], addresses: Iterable[IPAddress], target: TargetOf) -> tuple[FlushConntrack, ...]:
    own = tuple(addresses)
    allowed: dict[Frontend, frozenset[Target]] = {}
    for claim in claims:
        for ip in (claim.ip,) if claim.ip else (ip for ip in own if ip.version == claim.version):
            general = HostPortClaim(claim.version, claim.protocol, claim.port)
            found = target(HostPortClaim(claim.version, claim.protocol, claim.port, ip)) or target(general)
            allowed[Frontend(claim.protocol, ip, claim.port)] = frozenset((found,)) if found else frozenset()
    return (FlushConntrack(allowed),) if allowed else ()

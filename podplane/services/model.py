"""What one Service is on one node: frontends, the group of endpoints that each leads to, and what else the Service claims. Pure.

`resolve` makes it of API objects, `elements` makes nf_tables elements of it. Reports, checks and flushes of connection tracking read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from podplane.state.conntrack import Frontend, Target
from podplane.state.value import IPAddress, IPNetwork

CLUSTER_IP, NODE_PORT, EXTERNAL_IP, LOAD_BALANCER_IP = "cluster IP", "node port", "external IP", "load balancer IP"
"""Kinds of frontends."""
CONNECTIONLESS = ("udp", "sctp")
"""Protocols whose tracked connections outlive their endpoint: their end is not seen, or seen late."""
NO_TARGETS: frozenset[Target] = frozenset()

Claim = Frontend | IPAddress
"""What only one Service of a node can have: a frontend, or all ports of a load balancer's address."""


class Group(msgspec.Struct, frozen=True, gc=False):
    """The endpoints of one port of a Service for one IP version and traffic policy, sorted; all frontends of the policy share it.

    `affinity_seconds` is how long a client keeps its endpoint; 0 when an endpoint is chosen for each connection.
    """

    name: str
    version: int
    targets: tuple[Target, ...]
    affinity_seconds: int = 0


class ServiceFrontend(msgspec.Struct, frozen=True, gc=False):
    """An address, protocol and port of a Service, and the group that it leads to. Without targets, connections are refused.

    `cluster_group` is the group for clients inside the cluster where that is another one (externalTrafficPolicy Local).
    `serving` are the endpoints to which connections of UDP and SCTP may go on, whether new ones are led there or not.
    """

    key: Frontend
    kind: str
    policy: str
    group: Group
    cluster_group: Group | None = None
    serving: frozenset[Target] = NO_TARGETS

    @property
    def is_refused(self) -> bool:
        """Has it no endpoint?"""
        return not self.group.targets


class SourceGuard(msgspec.Struct, frozen=True, gc=False):
    """A frontend of a load balancer that takes connections from these networks only (loadBalancerSourceRanges); `name` is for comments."""

    key: Frontend
    ranges: tuple[IPNetwork, ...]
    name: str


class Source(msgspec.Struct, frozen=True, gc=False):
    """From where answers of endpoints come: a port of any pod of the cluster, or, of an endpoint that is no pod, of its address."""

    version: int
    protocol: str
    port: int
    ip: IPAddress | None = None


class ServiceTable(msgspec.Struct, frozen=True, gc=False):
    """One Service on one node. `owned` are load balancer addresses that refuse all ports but the frontends.

    `unserved` says in words what the Service asks for in vain; `sources` are those of its endpoints' answers.
    """

    path: str
    frontends: tuple[ServiceFrontend, ...] = ()
    owned: tuple[IPAddress, ...] = ()
    guards: tuple[SourceGuard, ...] = ()
    unserved: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()

    def groups(self) -> Iterator[Group]:
        """The groups that its frontends lead to, each once."""
        seen: set[tuple[str, int]] = set()
        for frontend in self.frontends:
            for group in (frontend.group, frontend.cluster_group):
                if group is not None and (group.name, group.version) not in seen:
                    seen.add((group.name, group.version))
                    yield group

    def claims(self) -> Iterator[Claim]:
        """What no other Service of the node can have."""
        for frontend in self.frontends:
            yield frontend.key
        yield from self.owned

    def allowed(self) -> Mapping[Frontend, frozenset[Target]]:
        """Where tracked connections of UDP and SCTP may go on to."""
        return {one.key: one.serving for one in self.frontends if one.key.protocol in CONNECTIONLESS}


def without(table: ServiceTable, taken: frozenset[Claim]) -> ServiceTable:
    """The table without what another Service has; everything else of it is served."""
    if not taken:
        return table
    return msgspec.structs.replace(
        table,
        frontends=tuple(one for one in table.frontends if one.key not in taken),
        owned=tuple(address for address in table.owned if address not in taken),
        guards=tuple(guard for guard in table.guards if guard.key not in taken),
    )

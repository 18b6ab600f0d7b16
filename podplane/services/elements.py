"""From a Service's table to nf_tables elements, and the chains and sets that these need. Pure, but for the numbers that it assigns."""

from __future__ import annotations

from collections.abc import Iterator

from podplane.model.config import NetworkConfig
from podplane.model.view import Sandbox, View
from podplane.services import tables
from podplane.services.model import CLUSTER_IP, Group, ServiceFrontend, ServiceTable, SourceGuard
from podplane.services.numbers import Numbers
from podplane.services.rules import CHAIN_BITS, CLUSTER_FRONTENDS, FRONTENDS
from podplane.state.nft import GOTO, Element, Verdict, label
from podplane.state.value import Fragment, Value, address_of, fragment


def encode(table: ServiceTable, numbers: Numbers) -> Fragment:
    """All kernel objects of one Service. NoNumber when the node has no number left for a group or one of its endpoints."""
    values: list[Value] = []
    marks: dict[tuple[str, int], int] = {}
    for group in table.groups():
        if group.targets:
            chain = numbers.chain(len(group.targets), group.affinity_seconds)
            first = numbers.groups.of(group.name) << CHAIN_BITS
            marks[group.name, group.version] = first | chain
            values += tables.load_balancing_chains(group.version, len(group.targets), group.affinity_seconds)
            values.append(tables.chain_element(group.version, chain, len(group.targets), group.affinity_seconds))
            values += _affinity_group(group, first, numbers) if group.affinity_seconds else _group(group, first, numbers)
    for frontend in table.frontends:
        values += _frontend(frontend, marks)
    for address in table.owned:
        values.append(tables.element("owned", address.version, (address,), None, label("svc", table.path)))
    for guard in table.guards:
        values += _guard(guard)
    values += [tables.source_element(one.version, one.protocol, one.port, one.ip) for one in table.sources]
    return fragment(values)


def _frontend(frontend: ServiceFrontend, marks: dict[tuple[str, int], int]) -> Iterator[Element]:
    protocol, address, port = frontend.key
    version, key = address.version, (address, protocol, port)
    group, cluster_group = frontend.group, frontend.cluster_group
    if frontend.is_refused:
        yield tables.element("refused", version, key, None, group.name)
    else:
        yield tables.element(FRONTENDS, version, key, (marks[group.name, version],), group.name)
    if cluster_group is not None and cluster_group.targets:
        yield tables.element(CLUSTER_FRONTENDS, version, key, (marks[cluster_group.name, version],), cluster_group.name)
    if frontend.kind != CLUSTER_IP:
        yield tables.element("addresses", version, (address,), None, "Service address")


def _group(group: Group, first: int, numbers: Numbers) -> list[Element]:
    """The endpoints of a group, by the group's mark and their slot."""
    name, endpoints = group.name, tables.name("endpoints", group.version)
    family, table = tables.TABLE
    return [
        Element(family=family, table=table, set=endpoints, key=(first, slot), data=target, comment=name)
        for slot, target in enumerate(numbers.slots(group))
    ]


def _affinity_group(group: Group, first: int, numbers: Numbers) -> Iterator[Value]:
    """As `_group`, for clients that keep their endpoint: what is stored for a client is the member id of its endpoint."""
    version, name = group.version, group.name
    yield from tables.affinity_sets(version)
    slots = numbers.slots(group)
    for slot, (target, member) in enumerate(zip(slots, numbers.member_ids(group, slots), strict=True)):
        mark = first | member
        yield tables.element("targets", version, (mark,), target, name)
        yield tables.element("ids", version, (first, slot), (mark,), name)
        yield tables.element("sticky", version, (mark,), None, name)


def _guard(guard: SourceGuard) -> Iterator[Value]:
    protocol, address, port = guard.key
    version = address.version
    chain = tables.source_ranges_chain(version, guard.ranges)
    yield from (*tables.guard_chains(version), chain)
    yield tables.element("guarded", version, (address, protocol, port), Verdict(GOTO, chain.name), guard.name)


def hairpin(sandbox: Sandbox, view: View, config: NetworkConfig) -> Fragment:
    """A pod of this node as one that may reach itself through a Service."""
    if not config.service_cidrs:
        return {}
    ips = [ip for ip in map(address_of, sandbox.ips) if ip.version in view.versions]
    comment = label(*sandbox.reference)
    return fragment(tables.element("hairpin", ip.version, (ip, ip), None, comment) for ip in ips)

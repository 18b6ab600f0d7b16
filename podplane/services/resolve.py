"""From a Service and its EndpointSlices to what one node serves of it. Pure.

Sources: k8s.io/kubernetes, pkg/proxy (which Services are served, which addresses are frontends); KEP-2086 (internalTrafficPolicy).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from podplane.model.service import CLUSTER, LEFT_TO_OTHERS, LOCAL, EndpointSlice, Service, ServicePort
from podplane.services.addresses import addresses, network
from podplane.services.endpoints import Candidates, Place, candidates
from podplane.services.model import (
    CLUSTER_IP,
    CONNECTIONLESS,
    EXTERNAL_IP,
    LOAD_BALANCER_IP,
    NO_TARGETS,
    NODE_PORT,
    Group,
    ServiceFrontend,
    ServiceTable,
    Source,
    SourceGuard,
)
from podplane.services.rules import MAX_MEMBERS
from podplane.state.conntrack import Frontend
from podplane.state.nft import label
from podplane.state.value import IPAddress, IPNetwork

NAME_SUFFIX_BYTES = len(f":{15 * 'p'}/sctp/local")
"""The longest text that follows a Service's path in the name of a group (a port's name has 15 letters)."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The node: its name and zone, its IP versions, its addresses that serve node ports; and the cluster's Service CIDRs and those of
    its pods."""

    place: Place
    versions: tuple[int, ...]
    addresses: tuple[IPAddress, ...]
    service_cidrs: tuple[IPNetwork, ...] = ()
    cluster_cidrs: tuple[IPNetwork, ...] = ()


class Address(NamedTuple):
    """An address and port at which one port of a Service can be reached."""

    kind: str
    policy: str
    ip: IPAddress
    port: int


def is_served(service: Service) -> bool:
    """Does a node serve this Service? Not without addresses, nor when it is labelled for another proxy."""
    return service.has_addresses and LEFT_TO_OTHERS.isdisjoint(service.metadata.labels)


def resolve(service: Service, slices: Sequence[EndpointSlice], context: NodeContext) -> ServiceTable:
    """What the node serves of a Service; nothing of one that `is_served` denies."""
    metadata, spec = service.metadata, service.spec
    if not is_served(service):
        return ServiceTable(metadata.path)
    found = _Found()
    for version in context.versions:
        for port in spec.ports:
            _add_port(found, service, slices, port, version, context)
    unserved = (*_not_served(service, context), *found.unserved)
    guards = (guard for version in context.versions for guard in _guards(service, version, context))
    owned = (ip for version in context.versions for ip in external(service.load_balancer_ips, version, context) if spec.ports)
    return ServiceTable(
        metadata.path, tuple(found.frontends.values()), tuple(owned), tuple(guards), unserved, tuple(found.sources)
    )


def group_name(service: Service, port: ServicePort, policy: str) -> str:
    """The name of a group, unique on a node for each IP version; kernel objects carry it as a comment."""
    name = f"{label('svc', service.metadata.path, NAME_SUFFIX_BYTES)}:{port.name or port.port}"
    name += f"/{port.protocol.lower()}" if port.protocol != "TCP" else ""
    return f"{name}/local" if policy == LOCAL else name


def port_addresses(service: Service, port: ServicePort, version: int, context: NodeContext) -> Iterator[Address]:
    """All addresses at which a port of a Service is reached on this node; one address may come several times."""
    spec = service.spec
    for ip in addresses(spec.cluster_ips or (spec.cluster_ip,), version):
        yield Address(CLUSTER_IP, spec.internal_traffic_policy, ip, port.port)
    for kind, texts in ((EXTERNAL_IP, spec.external_ips), (LOAD_BALANCER_IP, service.load_balancer_ips)):
        for ip in external(texts, version, context) if texts else ():
            yield Address(kind, spec.external_traffic_policy, ip, port.port)
    if port.node_port:
        for ip in context.addresses:
            if ip.version == version:
                yield Address(NODE_PORT, spec.external_traffic_policy, ip, port.node_port)


def reason_not_served(address: IPAddress, service_cidrs: Iterable[IPNetwork], cluster_cidrs: Iterable[IPNetwork]) -> str:
    """Why an external address can't be a frontend; "" when it can. It must not capture traffic that belongs to others.

    `cluster_cidrs` have the addresses of pods, and those of the nodes' bridges, where name servers answer.
    """
    if address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast:
        return "it is one that every machine uses for itself"
    if any(address in cidr for cidr in service_cidrs):
        return "it lies in the range of cluster IPs"
    if any(address in cidr for cidr in cluster_cidrs):
        return "it lies in the range of pods"
    return ""


def external(texts: Iterable[str], version: int, context: NodeContext) -> Iterator[IPAddress]:
    """Those of these external addresses of a Service, or of its load balancer, that can be frontends."""
    for ip in addresses(texts, version):
        if not reason_not_served(ip, context.service_cidrs, context.cluster_cidrs):
            yield ip


class _Found(msgspec.Struct):
    """The frontends of a Service so far; the first port that names an address and port number has it."""

    frontends: dict[Frontend, ServiceFrontend] = msgspec.field(default_factory=dict)
    unserved: list[str] = msgspec.field(default_factory=list)
    sources: dict[Source, None] = msgspec.field(default_factory=dict)

    def add(self, frontend: ServiceFrontend) -> None:
        known = self.frontends.setdefault(frontend.key, frontend)
        if known.group != frontend.group:
            protocol, ip, port = frontend.key
            self.unserved.append(
                f"{frontend.kind} {ip} {protocol} {port} is not served: the Service has it as {known.kind} already"
            )


def _add_port(
    found: _Found, service: Service, slices: Sequence[EndpointSlice], port: ServicePort, version: int, context: NodeContext
) -> None:
    endpoints = candidates(slices, port, version, context.service_cidrs)
    groups: dict[str, Group] = {}

    def group_of(policy: str) -> Group:
        if policy not in groups:
            groups[policy] = _group(service, port, policy, version, endpoints, context.place)
        return groups[policy]

    protocol = port.protocol.lower()
    serving = (
        frozenset(target for endpoint, target in endpoints.rows if endpoint.serves)
        if protocol in CONNECTIONLESS
        else NO_TARGETS
    )
    for kind, policy, ip, number in port_addresses(service, port, version, context):
        cluster_group = group_of(CLUSTER) if policy == LOCAL and kind != CLUSTER_IP else None
        found.add(ServiceFrontend(Frontend(protocol, ip, number), kind, policy, group_of(policy), cluster_group, serving))
    found.sources |= dict.fromkeys(_sources(groups.values(), protocol, context.cluster_cidrs))


def _group(service: Service, port: ServicePort, policy: str, version: int, endpoints: Candidates, place: Place) -> Group:
    seconds = service.spec.affinity_seconds
    targets = endpoints.chosen(policy, place)
    return Group(group_name(service, port, policy), version, tuple(targets[:MAX_MEMBERS] if seconds else targets), seconds)


def _sources(groups: Iterable[Group], protocol: str, cluster_cidrs: Iterable[IPNetwork]) -> Iterator[Source]:
    """Of pods, the ports alone: they are few, however many endpoints there are."""
    for group in groups:
        spans = [range(int(net[0]), int(net[-1]) + 1) for net in cluster_cidrs if net.version == group.version]
        numbers = [int(target.ip) for target in (*group.targets[:1], *group.targets[-1:])]
        if any(all(number in span for number in numbers) for span in spans):  # targets are sorted: all of them are pods
            for port in dict.fromkeys(target.port for target in group.targets):
                yield Source(group.version, protocol, port)
            continue
        for ip, port in group.targets:
            number = int(ip)
            yield Source(group.version, protocol, port, None if any(number in span for span in spans) else ip)


def _guards(service: Service, version: int, context: NodeContext) -> Iterator[SourceGuard]:
    texts = service.spec.load_balancer_source_ranges
    if not texts:
        return
    ranges = {one for one in map(network, texts) if one is not None and one.version == version}
    for ip in external(service.load_balancer_ips, version, context):
        for port in service.spec.ports:
            key = Frontend(port.protocol.lower(), ip, port.port)
            yield SourceGuard(key, tuple(sorted(ranges)), group_name(service, port, CLUSTER))


def _not_served(service: Service, context: NodeContext) -> Iterator[str]:
    for version in context.versions:
        for kind, texts in ((EXTERNAL_IP, service.spec.external_ips), (LOAD_BALANCER_IP, service.load_balancer_ips)):
            for ip in addresses(texts, version):
                if reason := reason_not_served(ip, context.service_cidrs, context.cluster_cidrs):
                    yield f"{kind} {ip} is not served: {reason}"

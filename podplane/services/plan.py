"""One Service as kernel objects: its frontends, and the groups of endpoints that they share. Pure, but for the numbers.

A group is a choice of endpoints: those of one port for one traffic policy. Everything that leads to that choice (cluster IPs, node
ports, external addresses) is a frontend of the one group.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from podplane.model.config import NetworkConfig
from podplane.model.service import CLUSTER, LOCAL, EndpointSlice, Service, ServicePort
from podplane.model.view import Sandbox, View
from podplane.services import tables
from podplane.services.endpoints import Place, candidates
from podplane.services.numbers import MAX_MEMBERS, Numbers
from podplane.services.rules import CHOICE_BITS, FRONTENDS, INSIDE
from podplane.state.conntrack import Target
from podplane.state.nft import GOTO, Element, Verdict, label
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment

SUFFIX = len(f":{15 * 'p'}/sctp/local")
"""So long is at most what follows a Service's path in the name of a group (a port's name has 15 letters)."""
ENTRIES = {f"{kind}{version}" for kind in (FRONTENDS, INSIDE, "refused", "guarded", "owned") for version in (4, 6)}
"""Sets with what two Services may both want."""
NOT_OURS = {"service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"}
"""Labels of Services that somebody else serves, or nobody."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The node for which it is planned: its place, its IP versions, its addresses that serve node ports; and the Service CIDRs."""

    place: Place
    versions: tuple[int, ...]
    addresses: tuple[IPAddress, ...]
    service_cidrs: tuple[IPNetwork, ...] = ()


def plan(service: Service, slices: Sequence[EndpointSlice], context: NodeContext, numbers: Numbers) -> Fragment:
    """All elements of a Service on one node; nothing for one without addresses."""
    if not is_ours(service):
        return {}
    values: list[Value] = []
    for version in context.versions:
        for port in service.spec.ports:
            values += _port(service, slices, port, version, context, numbers)
    return fragment(values)


def is_ours(service: Service) -> bool:
    """Is there something to serve, and for nobody else to do it?"""
    return service.has_addresses and not NOT_OURS & service.metadata.labels.keys()


def hairpin(sandbox: Sandbox, view: View, config: NetworkConfig) -> Fragment:
    """A pod of this node as one that may reach itself through a Service."""
    if not config.service_cidrs:
        return {}
    ips = [ip for ip in map(ipaddress.ip_address, sandbox.ips) if ip.version in view.versions]
    comment = label("pod", f"{sandbox.namespace}/{sandbox.name}")
    return fragment(tables.element("hairpin", ip.version, (ip, ip), None, comment) for ip in ips)


def group_name(service: Service, port: ServicePort, policy: str) -> str:
    """What a group is called, here and in the comments of the kernel's objects."""
    name = f"{label('svc', service.metadata.path, SUFFIX)}:{port.name or port.port}"
    name += f"/{port.protocol.lower()}" if port.protocol != "TCP" else ""
    return f"{name}/local" if policy == LOCAL else name


def _port(
    service: Service, slices: Sequence[EndpointSlice], port: ServicePort, version: int, context: NodeContext, numbers: Numbers
) -> Iterator[Value]:
    found = candidates(slices, port, version, context.service_cidrs)
    by_policy: dict[str, list[tuple[str, IPAddress, int]]] = {}
    for policy, address, number in frontends(service, port, version, context):
        by_policy.setdefault(policy, []).append((FRONTENDS, address, number))
        is_external = str(address) not in service.spec.cluster_ips
        if policy == LOCAL and is_external:
            by_policy.setdefault(CLUSTER, []).append((INSIDE, address, number))
    for policy, own in by_policy.items():
        targets, seconds = found.chosen(policy, context.place), service.spec.affinity_seconds
        targets = targets[:MAX_MEMBERS] if seconds else targets
        name = group_name(service, port, policy)
        if targets:
            group = numbers.groups.of(name) << CHOICE_BITS
            if seconds:
                yield from _sticky_group(version, group, name, numbers.places(name, version, targets), numbers)
            else:
                yield from _group(version, group, name, numbers.places(name, version, targets))
            way = numbers.way(len(targets), seconds)
            yield from tables.chooser(version, len(targets), seconds)
            yield tables.choice(version, way, len(targets), seconds)
            for kind, address, number in own:
                yield tables.element(kind, version, (address, port.protocol.lower(), number), (group | way,), name)
        else:
            for _, address, number in (row for row in own if row[0] == FRONTENDS):
                yield tables.element("refused", version, (address, port.protocol.lower(), number), None, name)
        for address in {address for _, address, _ in own if str(address) not in service.spec.cluster_ips}:
            yield tables.element("addresses", version, (address,), None, "Service address")
    yield from _balanced(service, port, version)


def _balanced(service: Service, port: ServicePort, version: int) -> Iterator[Value]:
    """Load balancer addresses are the Service's alone, and may be for some clients only."""
    texts = service.spec.load_balancer_source_ranges
    ranges = {network for network in map(_network, texts) if network is not None and network.version == version}
    for address in _addresses(service.load_balancer_ips, version):
        yield tables.element("owned", version, (address,), None, label("svc", service.metadata.path))
        if texts:
            chain = tables.sources(version, tuple(sorted(ranges)))
            yield from (*tables.guard(version), chain)
            key = (address, port.protocol.lower(), port.port)
            yield tables.element("guarded", version, key, Verdict(GOTO, chain.name), group_name(service, port, CLUSTER))


def _group(version: int, group: int, name: str, targets: Sequence[Target]) -> Iterator[Value]:
    for index, target in enumerate(targets):
        yield tables.element("endpoints", version, (group, index), target, name)


def _sticky_group(version: int, group: int, name: str, targets: Sequence[Target], numbers: Numbers) -> Iterator[Value]:
    """As `_group`, for clients that keep their endpoint: each endpoint has a number of its own in the group."""
    yield from tables.memory(version)
    for index, (target, member) in enumerate(zip(targets, numbers.members(name, version, targets), strict=True)):
        number = group | member
        yield tables.element("targets", version, (number,), target, name)
        yield tables.element("ids", version, (group, index), (number,), name)
        yield tables.element("sticky", version, (number,), None, name)


def frontends(service: Service, port: ServicePort, version: int, context: NodeContext) -> Iterator[tuple[str, IPAddress, int]]:
    """(traffic policy, address, port) of all that leads to one port of a Service."""
    spec = service.spec
    for address in _addresses(spec.cluster_ips or (spec.cluster_ip,), version):
        yield spec.internal_traffic_policy, address, port.port
    for address in _addresses((*spec.external_ips, *service.load_balancer_ips), version):
        if not why_not(address, context.service_cidrs):
            yield spec.external_traffic_policy, address, port.port
    if port.node_port:
        for address in context.addresses:
            if address.version == version:
                yield spec.external_traffic_policy, address, port.node_port


def why_not(address: IPAddress, service_cidrs: Iterable[IPNetwork]) -> str:
    """Why an external address is not served: who names it would take what is somebody else's. "" when it is served."""
    if address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast:
        return "it is one that every machine uses for itself"
    if any(address in cidr for cidr in service_cidrs):
        return "it lies in the range of cluster IPs"
    return ""


def unserved(service: Service, context: NodeContext) -> Iterator[str]:
    """What a Service asks for in vain, in words."""
    for address in (ip for version in context.versions for ip in _addresses(service.spec.external_ips, version)):
        if why := why_not(address, context.service_cidrs):
            yield f"external IP {address} is not served: {why}"


def without(planned: Fragment, clash: Value) -> Fragment:
    """Without what this one, that another Service has, leads or belongs to: the rest is served."""
    if not isinstance(clash, Element):
        return planned
    return {i: v for i, v in planned.items() if not (isinstance(v, Element) and v.set in ENTRIES and v.key == clash.key)}


def _network(text: str) -> IPNetwork | None:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def _addresses(texts: Sequence[str], version: int) -> Iterator[IPAddress]:
    for text in dict.fromkeys(texts):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if address.version == version:
            yield address

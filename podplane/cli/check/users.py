"""The users' Services in a check: who is to reach them, and where they must refuse. Pure.

It is only asked whether a connection is taken: what answers there is theirs. Which endpoints a node leads to is planned as its agent plans
it; that packets go there is what is proved.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, NamedTuple, TypeVar

from podplane.cli.check.promises import Party, Probe, family, same_family
from podplane.cli.check.services import FROM_OUTSIDE, REFUSED, SERVICES, Address, Vip
from podplane.model.objects import Node
from podplane.model.service import LOCAL, EndpointSlice, Service, ServicePort
from podplane.services.announce import is_own_load_balancer, may_announce
from podplane.services.endpoints import Candidates, Place, candidates
from podplane.services.resolve import is_served
from podplane.state.conntrack import Target
from podplane.state.value import IPNetwork

MOST_PROBES = 1500
"""Beyond, each Service is probed from some pods and nodes only, in turn; from one at least."""
OPEN = "open"
ANYWHERE = Place("")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Site:
    """Where the Services are: the nodes, the addresses of each that serve node ports, the Service range, the host outside."""

    nodes: Sequence[Node]
    node_ips: Mapping[str, Sequence[str]]
    service_cidrs: Sequence[IPNetwork] = ()
    outside_ips: Sequence[str] = ()

    @property
    def names(self) -> frozenset[str]:
        """The nodes' names."""
        return frozenset(node.metadata.name for node in self.nodes)

    def without(self, names: Collection[str]) -> Site:
        """The others, when these nodes are not to be asked, nor to be reached."""
        nodes = [node for node in self.nodes if node.metadata.name not in names]
        node_ips = {name: ips for name, ips in self.node_ips.items() if name not in names}
        return replace(self, nodes=nodes, node_ips=node_ips)


class Way(NamedTuple):
    """An address of a Service, the endpoints behind it (none: it must refuse), and from where it is asked: nodes, or outside."""

    vip: Vip
    endpoints: tuple[Vip, ...]
    nodes: frozenset[str]
    outside: bool = False


def ways(services: Iterable[Service], slices: Iterable[EndpointSlice], site: Site) -> list[Way]:
    """All ways to TCP ports of Services, but for those that are left to others, and those that are about to go."""
    own: dict[str, list[EndpointSlice]] = defaultdict(list)
    for slice_ in slices:
        own[slice_.service].append(slice_)
    found: list[Way] = []
    for service in services:
        metadata = service.metadata
        if is_served(service) and metadata.deletion_timestamp is None:
            for port in service.spec.ports:
                for version in (4, 6) if port.protocol == "TCP" else ():
                    behind = candidates(own[metadata.path], port, version, site.service_cidrs)
                    found += _inside(service, port, version, behind, site)
                    found += _from_outside(service, port, version, behind, own[metadata.path], site)
    return found


def _inside(service: Service, port: ServicePort, version: int, behind: Candidates, site: Site) -> Iterator[Way]:
    """To cluster IPs, from pods and nodes. With policy Local, from nodes with endpoints; the others must refuse."""
    here = {name: behind.local(Place(name)) for name in site.names}
    for ip in _of_family(service.spec.cluster_ips, version):
        vip = Vip(service.metadata.path, ip, port.port)
        if service.spec.internal_traffic_policy == LOCAL:
            serving = frozenset(name for name, targets in here.items() if targets)
            if serving:
                yield Way(vip, _vips(vip, (target for name in serving for target in here[name])), serving)
            if site.names - serving:
                yield Way(vip, (), site.names - serving)
        else:
            yield Way(vip, _vips(vip, behind.everywhere(ANYWHERE)), site.names)


def _from_outside(
    service: Service, port: ServicePort, version: int, behind: Candidates, slices: Sequence[EndpointSlice], site: Site
) -> Iterator[Way]:
    """To load balancers that let the host outside in, and to node ports; with policy Local of nodes with endpoints."""
    outside = same_family(site.outside_ips, "::" if version == 6 else "0.0.0.0")
    if not outside:
        return
    path, is_local = service.metadata.path, service.spec.external_traffic_policy == LOCAL
    everywhere = behind.everywhere(ANYWHERE)
    answering = [node for node in site.nodes if node.is_ready and may_announce(service, slices, node)]
    if is_own_load_balancer(service) and everywhere and answering and _lets_in(service, outside):
        for ip in _of_family(service.load_balancer_ips, version):
            vip = Vip(path, ip, port.port)
            yield Way(vip, _vips(vip, everywhere), frozenset(), outside=True)
    for node, ips in site.node_ips.items() if port.node_port else ():
        targets = behind.local(Place(node)) if is_local else everywhere
        for ip in _of_family(ips, version) if targets else ():
            vip = Vip(path, ip, port.node_port)
            yield Way(vip, _vips(vip, targets), frozenset(), outside=True)


def _vips(vip: Vip, targets: Iterable[Target]) -> tuple[Vip, ...]:
    return tuple(Vip(vip.service, str(target.ip), target.port) for target in targets)


def _of_family(ips: Iterable[str], version: int) -> list[str]:
    return [ip for ip in ips if ip != "None" and family(ip) == version]


def _lets_in(service: Service, outside: str) -> bool:
    """Is this client in its loadBalancerSourceRanges?"""
    ranges = service.spec.load_balancer_source_ranges
    client = ipaddress.ip_address(outside)
    return not ranges or any(client in ipaddress.ip_network(text.strip(), strict=False) for text in ranges)


# Probes.


def direct(found: Iterable[Way], nodes: Sequence[Party], pods: Iterable[Party] = ()) -> list[Probe]:
    """Is anybody there at all? Asked of the endpoints themselves, of these pods by their own nodes, which policies always permit, and of
    others by the nodes in turn; by nobody when there is no node to ask."""
    if not nodes:
        return []
    ends = dict.fromkeys((one.ip, one.port) for way in found for one in way.endpoints)
    turns, by_name = cycle(nodes), {node.node: node for node in nodes}
    own = {ip: by_name[pod.node] for pod in pods if pod.node in by_name for ip in pod.ips}
    return [_open(SERVICES, own.get(ip) or next(turns), Vip("endpoint", ip, port)) for ip, port in ends]


def behind(found: Iterable[Way]) -> dict[Address, list[Address]]:
    """The endpoints that a connection to an address and port may come to."""
    ends: defaultdict[Address, list[Address]] = defaultdict(list)
    for way in found:
        ends[way.vip.ip, way.vip.port] += [(end.ip, end.port) for end in way.endpoints]
    return ends


def listening(found: Sequence[Way], answers: Mapping[Probe, Mapping[str, Any]]) -> list[Way]:
    """The ways whose endpoints all take connections: of the others, a refusal may be the endpoint's own."""
    return [way for way in found if not _deaf(way, answers)]


def deaf(found: Iterable[Way], answers: Mapping[Probe, Mapping[str, Any]]) -> list[str]:
    """The Services that are left out because endpoints don't take connections, and the first of these."""
    ends = {way.vip.service: _deaf(way, answers) for way in found if _deaf(way, answers)}
    return [f"Service {name} (nobody answers at {_at(some[0])})" for name, some in sorted(ends.items())]


def _deaf(way: Way, answers: Mapping[Probe, Mapping[str, Any]]) -> list[Vip]:
    """Its endpoints that took no connection."""
    open_ones = {(probe.ip, probe.port) for probe, answer in answers.items() if answer.get("ok")}
    return [one for one in way.endpoints if (one.ip, one.port) not in open_ones]


def _at(end: Vip) -> str:
    return f"[{end.ip}]:{end.port}" if family(end.ip) == 6 else f"{end.ip}:{end.port}"


def plan(found: Iterable[Way], pods: Sequence[Party], nodes: Sequence[Party], outside: Party | None) -> list[Probe]:
    """From every pod and node where that are not too many; else each way from some, in turn."""
    kinds: dict[str, list[Way]] = defaultdict(list)
    for way in found:
        kinds[FROM_OUTSIDE if way.outside else SERVICES if way.endpoints else REFUSED].append(way)
    if outside is None:
        kinds.pop(FROM_OUTSIDE, None)
    sources = [*pods, *nodes]
    inside = len(kinds[SERVICES]) + len(kinds[REFUSED])
    each = max(1, min(len(sources), MOST_PROBES // max(1, inside)))
    probes: list[Probe] = []
    for promise in (SERVICES, REFUSED):
        for turn, way in enumerate(kinds[promise]):
            able = [source for source in sources if source.node in way.nodes]
            probes += [_open(promise, source, way.vip) for source in _some(able, each, turn)]
    if outside is not None:
        probes += [_open(FROM_OUTSIDE, outside, way.vip) for way in _thinned(kinds[FROM_OUTSIDE])]
    return probes


def _thinned(found: Sequence[Way]) -> Iterator[Way]:
    """Of each port's ways all, or some in turn."""
    by_port: dict[tuple[str, int, int], list[Way]] = defaultdict(list)
    for way in found:
        by_port[way.vip.service, way.vip.port, family(way.vip.ip)].append(way)
    each = max(1, MOST_PROBES // max(1, len(by_port)))
    for turn, own in enumerate(by_port.values()):
        yield from _some(own, each, turn)


def _some(items: Sequence[Item], count: int, turn: int) -> list[Item]:
    """So many of them, beginning elsewhere at each turn."""
    start = turn * count % max(1, len(items))
    return [*items[start:], *items[:start]][:count]


def _open(promise: str, source: Party, vip: Vip) -> Probe:
    target = vip.service if vip.service == "endpoint" else f"Service {vip.service}"
    return Probe(promise, source.name, target, OPEN, vip.ip, vip.port)


def changed(before: Iterable[Way], after: Iterable[Way]) -> set[str]:
    """The Services that are not what they were: what they answered meanwhile proves nothing."""
    old, new = _by_service(before), _by_service(after)
    return {service for service in old if old[service] != new.get(service)}


def _by_service(found: Iterable[Way]) -> dict[str, set[Way]]:
    by_service: dict[str, set[Way]] = defaultdict(set)
    for way in found:
        by_service[way.vip.service].add(way)
    return dict(by_service)

"""Which nodes may advertise a load balancer's addresses on the nodes' network, and the kernel state of the advertiser. Pure.

The address is on no interface, so no socket of a node listens on it by accident. The elected node answers ARP and neighbour
solicitations for it as a proxy; its route leads to the pods' bridge, where packets end that were not translated.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.model.service import LOCAL, EndpointSlice, Service
from podplane.services import lifetime
from podplane.services.endpoints import usable
from podplane.services.pools import CLASS
from podplane.services.resolve import reason_not_served
from podplane.state.effects import Announce
from podplane.state.network import Proxy, Route, Sysctl
from podplane.state.value import Fragment, IPAddress, Value, fragment

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Label of nodes that never advertise load balancers."""


def is_own_load_balancer(service: Service) -> bool:
    """Is it a load balancer that podplane advertises (its class is podplane's or none), with addresses?"""
    spec = service.spec
    return spec.type == "LoadBalancer" and spec.load_balancer_class in ("", CLASS) and bool(service.load_balancer_ips)


def may_announce(service: Service, slices: Iterable[EndpointSlice], node: Node) -> bool:
    """May this node advertise the Service? With externalTrafficPolicy Local, only a node with endpoints of its own."""
    metadata = node.metadata
    if (
        not is_own_load_balancer(service)
        or EXCLUDED in metadata.labels
        or metadata.deletion_timestamp is not None
        or not node.spec.pod_cidrs
    ):
        return False
    if service.spec.external_traffic_policy != LOCAL:
        return True
    return metadata.name in serving_nodes(slices)


def is_on_its_link(service: Service, node: Node, subnets: Iterable[str]) -> bool:
    """May anybody ask on the node's link for an address of the load balancer? Not for one of another one of these subnets."""
    networks = [*map(ipaddress.ip_network, subnets)]
    ips, own = ([ipaddress.ip_address(ip) for ip in found] for found in (service.load_balancer_ips, node.internal_ips))
    for ip in ips:
        holding = [network for network in networks if ip in network]
        if not holding or any(address in network for network in holding for address in own):
            return True
    return not ips


def serving_nodes(slices: Iterable[EndpointSlice]) -> set[str]:
    """The nodes with ready endpoints; when there is none, those with serving-terminating endpoints (KEP-1669)."""
    endpoints = [endpoint for slice_ in slices for endpoint, _ in usable(slice_) if endpoint.node_name]
    ready = {endpoint.node_name for endpoint in endpoints if endpoint.is_ready}
    return ready or {endpoint.node_name for endpoint in endpoints if endpoint.is_serving_terminating}


def ready_here(slices: Iterable[EndpointSlice], node: str) -> int:
    """The number of ready endpoints of a node. One with an address of each IP version counts once."""
    found: dict[str, set[str]] = {}
    for slice_ in slices:
        own = (str(address) for e, address in usable(slice_) if e.is_ready and e.node_name == node)
        found.setdefault(slice_.address_type, set()).update(own)
    return max(map(len, found.values()), default=0)


def preference(path: str, node: str) -> float:
    """From 0 to 1: the node with the least value is preferred, which spreads Services over nodes (rendezvous hashing)."""
    digest = hashlib.blake2s(f"{path} {node}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / (1 << 32)


def announced_ips(service: Service, versions: Collection[int], config: NetworkConfig) -> Iterator[IPAddress]:
    """The addresses of a load balancer, of these IP versions, that are served."""
    service_cidrs, cluster_cidrs = (
        [*map(ipaddress.ip_network, cidrs)] for cidrs in (config.service_cidrs, config.cluster_cidrs)
    )
    for ip in map(ipaddress.ip_address, service.load_balancer_ips):
        if ip.version in versions and not reason_not_served(ip, service_cidrs, cluster_cidrs):
            yield ip


def effects(service: Service, versions: Collection[int], config: NetworkConfig) -> tuple[Announce, ...]:
    """Announce the addresses to the neighbours: when the node becomes the advertiser, and whenever the election repeats it."""
    ips = tuple(announced_ips(service, versions, config)) if is_own_load_balancer(service) else ()
    return (Announce(config.uplink, ips),) if ips else ()


def plan(service: Service, node: Node, config: NetworkConfig) -> Fragment:
    """The kernel state of the advertiser. Packets of the node itself to the address have the node's own address as their source."""
    values: list[Value] = []
    versions = [ipaddress.ip_network(block).version for block in node.spec.pod_cidrs]
    sources = {ip.version: ip for ip in reversed([ipaddress.ip_address(ip) for ip in node.internal_ips])}
    for ip in announced_ips(service, versions, config) if is_own_load_balancer(service) else ():
        network, family = ipaddress.ip_network(ip), f"ipv{ip.version}"
        values += [
            Sysctl(name=f"net.{family}.neigh.{config.uplink}.proxy_delay", value="0"),
            Route(destination=network, link=config.bridge, source=sources.get(ip.version), protocol=ROUTE_PROTOCOL),
            Proxy(link=config.uplink, ip=ip, protocol=ROUTE_PROTOCOL),
        ]
        if ip.version == 6:
            values.append(Sysctl(name=f"net.ipv6.conf.{config.uplink}.proxy_ndp", value="1"))
        values += lifetime.plan((ip,), service.metadata.path, config)
    return fragment(values)

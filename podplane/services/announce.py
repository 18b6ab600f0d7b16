"""Which node answers for a load balancer's addresses on the nodes' network, and what its kernel needs for that. Pure.

The address stays nobody's own: no socket of a node listens on it by accident. The elected node answers ARP and neighbour
solicitations for it as a proxy; its route leads to the pods' bridge, so what is not translated ends there.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.model.service import LOCAL, EndpointSlice, Service
from podplane.services.pools import CLASS
from podplane.state.network import Proxy, Route, Sysctl
from podplane.state.value import Fragment, IPAddress, Value, fragment

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Label of nodes that never answer."""


def is_ours(service: Service) -> bool:
    """Is it a load balancer of podplane, with addresses?"""
    spec = service.spec
    return spec.type == "LoadBalancer" and spec.load_balancer_class in ("", CLASS) and bool(service.load_balancer_ips)


def may_announce(service: Service, slices: Iterable[EndpointSlice], node: Node) -> bool:
    """Can this node take its connections? With externalTrafficPolicy Local only one that has endpoints of its own for them."""
    metadata = node.metadata
    if (
        not is_ours(service)
        or EXCLUDED in metadata.labels
        or metadata.deletion_timestamp is not None
        or not node.spec.pod_cidrs
    ):
        return False
    if service.spec.external_traffic_policy != LOCAL:
        return True
    return metadata.name in serving_nodes(slices)


def serving_nodes(slices: Iterable[EndpointSlice]) -> set[str]:
    """The nodes with ready endpoints; when there is none, those with endpoints that end and serve still (KEP-1669)."""
    endpoints = [endpoint for slice_ in slices for endpoint in slice_.endpoints or () if endpoint.node_name]
    ready = {endpoint.node_name for endpoint in endpoints if endpoint.is_ready}
    return ready or {endpoint.node_name for endpoint in endpoints if endpoint.is_serving_terminating}


def ready_here(slices: Iterable[EndpointSlice], node: str) -> int:
    """How many ready endpoints a node has; those that end don't count (KEP-1669). One with an address of each family counts once."""
    found: dict[str, set[str]] = {}
    for slice_ in slices:
        own = (e.addresses[0] for e in slice_.endpoints or () if e.is_ready and e.node_name == node and e.addresses)
        found.setdefault(slice_.address_type, set()).update(own)
    return max(map(len, found.values()), default=0)


def preference(path: str, node: str) -> float:
    """From 0 to 1: the node with the least one is preferred, so that Services spread over nodes (rendezvous hashing)."""
    digest = hashlib.blake2s(f"{path} {node}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / (1 << 32)


def announced_ips(service: Service, versions: Collection[int]) -> Iterator[IPAddress]:
    """The addresses of a load balancer, of these IP versions."""
    return (ip for ip in map(ipaddress.ip_address, service.load_balancer_ips) if ip.version in versions)


def plan(service: Service, node: Node, config: NetworkConfig) -> Fragment:
    """What the kernel of the node that answers needs. What the node itself sends there has its own address as the source."""
    values: list[Value] = []
    versions = [ipaddress.ip_network(block).version for block in node.spec.pod_cidrs]
    sources = {ip.version: ip for ip in reversed([ipaddress.ip_address(ip) for ip in node.internal_ips])}
    for ip in announced_ips(service, versions) if is_ours(service) else ():
        network, family = ipaddress.ip_network(ip), f"ipv{ip.version}"
        values += [
            Sysctl(name=f"net.{family}.neigh.{config.uplink}.proxy_delay", value="0"),
            Route(destination=network, link=config.bridge, source=sources.get(ip.version), protocol=ROUTE_PROTOCOL),
            Proxy(link=config.uplink, ip=ip, protocol=ROUTE_PROTOCOL),
        ]
        if ip.version == 6:
            values.append(Sysctl(name=f"net.ipv6.conf.{config.uplink}.proxy_ndp", value="1"))
    return fragment(values)

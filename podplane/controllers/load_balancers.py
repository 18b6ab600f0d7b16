"""Load balancers, their pools and the owners of addresses, as allocation needs them. Kept current by observing writes.

Never allocated are addresses of machines (nodes, the API server), of Services (ServiceCIDRs) and of pods (the nodes' blocks).
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator

from podplane.controllers.objects import Key, Object, key_of, matches
from podplane.services.pools import CLASS, POOLS, WANTED_IPS, AddressRequest, Pool, is_lacking, pool_of
from podplane.services.ranges import Allocated, Range, of_network, overlap
from podplane.state.value import IPAddress, IPNetwork

SERVICES, NODES = "services", "nodes"
SLICES, RANGES = "endpointslices.discovery.k8s.io", "servicecidrs.networking.k8s.io"
OBSTACLES = (NODES, SLICES, RANGES)
"""Resources that tell of addresses that no Service may have."""
WHOSE = {RANGES: "Services", NODES: "pods"}
API_SERVER, NAME_LABEL = ("default", "kubernetes"), "kubernetes.io/service-name"


def is_own_load_balancer(service: Object) -> bool:
    """Is it a load balancer that podplane advertises?"""
    spec = service["spec"]
    return bool(spec["type"] == "LoadBalancer" and spec.get("loadBalancerClass", CLASS) == CLASS)


def ips_of(service: Object) -> list[IPAddress]:
    """The addresses that it has."""
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return list(_addresses(one.get("ip", "") for one in ingress))


def request_of(service: Object) -> AddressRequest:
    """The addresses that a Service requests. ValueError when its text is no address."""
    spec = service["spec"]
    text = service["metadata"].get("annotations", {}).get(WANTED_IPS, "") or spec.get("loadBalancerIP", "")
    wanted = dict.fromkeys(ipaddress.ip_address(part.strip()) for part in text.split(",") if part.strip())
    versions = tuple(int(family[-1]) for family in spec.get("ipFamilies", ()))
    of_family = tuple(ip for ip in wanted if ip.version in versions)
    return AddressRequest(versions, of_family, tuple(ips_of(service)), (SERVICES, key_of(service)))


def machines_of(resource: str, object_: Object) -> list[IPAddress]:
    """Addresses of machines that an object tells of: a node's, or those where the API server is."""
    if resource == NODES:
        addresses = object_.get("status", {}).get("addresses", ())
        return list(_addresses(one["address"] for one in addresses if one["type"] == "InternalIP"))
    metadata = object_["metadata"]
    if resource != SLICES or (metadata["namespace"], metadata.get("labels", {}).get(NAME_LABEL)) != API_SERVER:
        return []
    return list(_addresses(text for endpoint in object_.get("endpoints", ()) for text in endpoint["addresses"]))


def networks_of(resource: str, object_: Object) -> list[IPNetwork]:
    """Networks of Services or pods that an object tells of."""
    spec = object_.get("spec", {})
    texts = spec.get("cidrs", ()) if resource == RANGES else spec.get("podCIDRs", ()) if resource == NODES else ()
    return list(_networks(texts))


def is_indexed_alike(resource: str, old: Object, new: Object) -> bool:
    """Do two versions of an object say the same to indices? Most writes of a Node are heartbeats, those of a pool counts. Of
    Services nobody looks."""
    if resource == POOLS:
        return bool(old["spec"] == new["spec"]) and all(one["metadata"].get("deletionTimestamp") is None for one in (old, new))
    return resource in OBSTACLES and all(of(resource, old) == of(resource, new) for of in (machines_of, networks_of))


def _addresses(texts: Iterable[str]) -> Iterator[IPAddress]:
    """Those that are addresses: names are none, and of what kubelets say nobody has looked whether it can be one."""
    for text in texts:
        with contextlib.suppress(ValueError):
            yield ipaddress.ip_address(text)


def _networks(texts: Iterable[str]) -> Iterator[IPNetwork]:
    """Those that are networks."""
    for text in texts:
        with contextlib.suppress(ValueError):
            yield ipaddress.ip_network(text)


class LoadBalancers:
    """The load balancers of a cluster."""

    def __init__(self) -> None:
        self.allocated: Allocated[tuple[str, Key]] = Allocated()
        """Addresses of Services and machines; an owner is (resource, key)."""
        self.own: Allocated[Key] = Allocated()
        """Those of podplane's load balancers; an owner is its key."""
        self.waiting: set[Key] = set()
        """podplane's load balancers that lack an address."""
        self._networks: dict[str, dict[Key, list[IPNetwork]]] = {}
        self._objects: dict[str, Object] = {}
        self._pools: dict[str, Pool] = {}
        self._ranges: dict[str, tuple[Range, ...]] = {}
        """What pools have, with what can't be allocated."""
        self._of_pools: set[Range] = set()
        """What pools have, or had since the start."""

    def observe(self, resource: str, object_: Object, *, add: bool) -> None:
        """An object is there, or is not there any more."""
        if resource == SERVICES:
            self._service(object_, add=add)
        elif resource == POOLS:
            self._pool(object_["metadata"]["name"], object_ if add else None)
        elif resource in OBSTACLES:
            change = self.allocated.add if add else self.allocated.remove
            for ip in machines_of(resource, object_):
                change(ip, (resource, key_of(object_)))
            self._network(resource, object_, add=add)

    def _pool(self, name: str, object_: Object | None) -> None:
        self._pools.pop(name, None)
        self._objects.pop(name, None)
        self._ranges.pop(name, None)
        if object_ is not None:
            self._objects[name] = object_
            self._ranges[name] = pool_of("", object_["spec"]["addresses"]).ranges
            self._of_pools.update(self._ranges[name])

    def _service(self, service: Object, *, add: bool) -> None:
        key, ours = key_of(service), is_own_load_balancer(service)
        for ip in ips_of(service):
            (self.allocated.add if add else self.allocated.remove)(ip, (SERVICES, key))
            if ours:
                (self.own.add if add else self.own.remove)(ip, key)
        self.waiting.discard(key)
        with contextlib.suppress(ValueError):
            if add and ours and is_lacking(request_of(service)):
                self.waiting.add(key)

    def _network(self, resource: str, object_: Object, *, add: bool) -> None:
        networks = networks_of(resource, object_)
        known, key = self._networks.setdefault(resource, {}), key_of(object_)
        for name in self.pools_over(networks):
            self._pools.pop(name, None)
        if add and networks:
            known[key] = networks
        else:
            known.pop(key, None)

    def pools_over(self, networks: Iterable[IPNetwork]) -> list[str]:
        """The pools that have addresses of these networks."""
        others = [of_network(network) for network in networks]
        return [name for name, own in self._ranges.items() if any(overlap(one, other) for one in own for other in others)]

    def is_of_others(self, service: Object) -> bool:
        """Has it addresses that no pool has, or had since the start? Others gave them, unless it asks for podplane's by its class."""
        ips = ips_of(service)
        if not ips or service["spec"].get("loadBalancerClass") == CLASS:
            return False
        return not any(ip in range_ for ip in ips for range_ in self._of_pools)

    def pool(self, name: str) -> Pool | None:
        """A pool, without the addresses that can't be allocated."""
        if name in self._objects and name not in self._pools:
            networks = {
                whose: [network for key in sorted(known) for network in known[key]]
                for resource, whose in WHOSE.items()
                if (known := self._networks.get(resource))
            }
            self._pools[name] = pool_of(name, self._objects[name]["spec"]["addresses"], networks)
        return self._pools.get(name)

    def pools(self) -> Iterator[Pool]:
        """All of them."""
        return (pool for name in self._objects if (pool := self.pool(name)) is not None)

    def pools_for(self, service: Object) -> list[Pool]:
        """The pools whose addresses it may have: those that choose it, then those for all; by name."""
        labels = service["metadata"].get("labels", {})
        found: list[tuple[bool, str]] = []
        for name, object_ in self._objects.items():
            selector = object_["spec"].get("serviceSelector") or {}
            if "deletionTimestamp" not in object_["metadata"] and matches(selector, labels):
                found.append((not selector, name))
        return [pool for _, name in sorted(found) if (pool := self.pool(name)) is not None]

"""Addresses for Services of type LoadBalancer, from the cluster's pools; how they are reached is the nodes' part (see `agent.election`).
What others gave a Service (a cloud's controller) stays as it is.

A change concerns only the Services that it can give an address or take one from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from podplane.controllers.decision import Action, ControllerOf, Note, Objects, Patch, itself
from podplane.controllers.load_balancers import (
    NODES,
    OBSTACLES,
    RANGES,
    SERVICES,
    SLICES,
    ips_of,
    is_own_load_balancer,
    machines_of,
    networks_of,
    request_of,
)
from podplane.controllers.objects import Key, Object, key_of
from podplane.services import pools
from podplane.services.pools import POOLS, WANTED_IPS
from podplane.services.ranges import of_network

WARNING = "Warning"
COUNT_SECONDS = 1.0
"""A pool says not more often how much of it is in use."""
Concerns = Callable[[Objects, Object], Iterable[Key]]


def _decide(view: Objects, key: Key) -> Iterator[Action]:
    service = view.get(SERVICES, key)
    if service is None or "deletionTimestamp" in service["metadata"] or view.load_balancers().is_of_others(service):
        return
    if not is_own_load_balancer(service):
        if service["spec"]["type"] != "LoadBalancer" and service.get("status", {}).get("loadBalancer", {}).get("ingress"):
            yield Patch(SERVICES, service, {"status": {"loadBalancer": {"ingress": None}}}, "status")
        return
    try:
        request = request_of(service)
    except ValueError as error:
        yield Note(service, "NoLoadBalancerAddress", f"the address that it asks for: {error}", WARNING)
        return
    known = view.load_balancers()
    own_pools = known.pools_for(service)
    if pools.is_settled(request, own_pools, known.allocated):
        return
    ips, problems = pools.allocate(request, own_pools, known.allocated)
    if ips != request.current:
        ingress = [{"ip": ip, "ipMode": "VIP"} for ip in pools.texts(ips)] or None
        yield Patch(SERVICES, service, {"status": {"loadBalancer": {"ingress": ingress}}}, "status")
    if ips and ips != request.current:
        yield Note(service, "AddressAssigned", f"it is reached at {', '.join(pools.texts(ips))}")
    for problem in problems:
        yield Note(service, "NoLoadBalancerAddress", problem, WARNING)


def _itself_and_waiting(view: Objects, service: Object) -> Iterable[Key]:
    """A Service that releases an address concerns those that wait for one."""
    yield key_of(service)
    known = view.load_balancers()
    if any(not known.allocated.owners(ip) for ip in ips_of(service)):
        yield from known.waiting


def _all(view: Objects, _: Object) -> Iterable[Key]:
    return (key_of(service) for service in view.all(SERVICES) if is_own_load_balancer(service))


def _in_the_way(resource: str) -> Concerns:
    """An address or network that is somebody's concerns those that have it, and, once it is gone, those that wait for one."""

    def concerns(view: Objects, object_: Object) -> Iterable[Key]:
        known, machines, networks = view.load_balancers(), machines_of(resource, object_), networks_of(resource, object_)
        for ip in machines:
            yield from known.own.owners(ip)
        for network in networks:
            for ip in known.own.within(of_network(network)):
                yield from known.own.owners(ip)
        if machines or networks:
            yield from known.waiting

    return concerns


def _what_matters(service: Object) -> object:
    metadata, spec = service["metadata"], service["spec"]
    asked = (metadata.get("annotations", {}).get(WANTED_IPS), spec.get("loadBalancerIP"), spec.get("loadBalancerClass"))
    return spec["type"], asked, spec.get("ipFamilies"), metadata.get("labels"), ips_of(service)


def _what_it_says(pool: Object) -> object:
    return pool["spec"], "deletionTimestamp" in pool["metadata"]


CONTROLLER: ControllerOf[Objects] = ControllerOf(
    "load-balancer-controller",
    {SERVICES: _itself_and_waiting, POOLS: _all, **{resource: _in_the_way(resource) for resource in OBSTACLES}},
    _decide,
    {
        SERVICES: _what_matters,
        POOLS: _what_it_says,
        NODES: lambda node: (machines_of(NODES, node), networks_of(NODES, node)),
        SLICES: lambda endpoint_slice: machines_of(SLICES, endpoint_slice),
        RANGES: lambda range_: networks_of(RANGES, range_),
    },
)


def _count(view: Objects, key: Key) -> Iterator[Action]:
    """How many addresses of a pool are in use, and what is wrong with it."""
    object_, known = view.get(POOLS, key), view.load_balancers()
    pool = known.pool(key[1])
    if object_ is None or pool is None:
        return
    status = {"addresses": str(pool.size), "inUse": pool.in_use(known.own), "problems": list(pool.problems)}
    before = object_.get("status", {})
    if before == status:
        return
    yield Patch(POOLS, object_, {"status": status}, "status")
    for problem in pool.problems:
        if problem not in before.get("problems", ()):
            yield Note(object_, "InvalidAddresses", problem, WARNING)


def _pools_with_it(view: Objects, service: Object) -> Iterable[Key]:
    """A Service concerns the pools whose addresses it has."""
    return (("", pool.name) for pool in view.load_balancers().pools() if any(ip in pool for ip in ips_of(service)))


def _pools_over(resource: str) -> Concerns:
    """A network of Services or pods concerns the pools that have addresses of it."""

    def concerns(view: Objects, object_: Object) -> Iterable[Key]:
        return [("", name) for name in view.load_balancers().pools_over(networks_of(resource, object_))]

    return concerns


POOL_CONTROLLER: ControllerOf[Objects] = ControllerOf(
    "load-balancer-pool-controller",
    {POOLS: itself, SERVICES: _pools_with_it, NODES: _pools_over(NODES), RANGES: _pools_over(RANGES)},
    _count,
    {
        SERVICES: lambda service: (is_own_load_balancer(service), ips_of(service)),
        NODES: lambda node: networks_of(NODES, node),
        RANGES: lambda range_: networks_of(RANGES, range_),
    },
    COUNT_SECONDS,
)

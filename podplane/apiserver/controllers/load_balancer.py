"""Addresses for Services of type LoadBalancer, from the cluster's pools; how they are reached is the nodes' part (see `agent.election`).

What is in use stands in the status of the Services, so it is asked for only when an address is to be given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.apiserver.controllers.decision import Action, Controller, Key, Note, Object, Patch, View, itself, key_of
from podplane.apiserver.kinds import names
from podplane.apiserver.service_ips import SERVICES
from podplane.services import pools
from podplane.services.pools import CLASS, POOLS, WANTED_IPS, Claim, Pool
from podplane.state.value import IPAddress

WARNING = "Warning"


def is_balanced(service: Object) -> bool:
    """Is it a load balancer of ours?"""
    spec = service["spec"]
    return bool(spec["type"] == "LoadBalancer" and spec.get("loadBalancerClass", CLASS) == CLASS)


def ips_of(service: Object) -> list[IPAddress]:
    """The addresses that it has."""
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return [ipaddress.ip_address(one["ip"]) for one in ingress if one.get("ip")]


def _decide(view: View, key: Key) -> Iterator[Action]:
    service = view.get(SERVICES, key)
    if service is None or "deletionTimestamp" in service["metadata"]:
        return
    if not is_balanced(service):
        if service["spec"]["type"] != "LoadBalancer" and service.get("status", {}).get("loadBalancer", {}).get("ingress"):
            yield Patch(SERVICES, service, {"status": {"loadBalancer": {"ingress": None}}}, "status")
        return
    try:
        claim = _claim(service)
    except ValueError as error:
        yield Note(service, "NoLoadBalancerAddress", f"the address that it asks for: {error}", WARNING)
        return
    machines, own_pools = _machines(view), _pools(view, service)
    if pools.is_settled(claim, own_pools, machines):
        return
    others = {ip for other in view.all(SERVICES) if other is not service for ip in ips_of(other)}
    ips, problems = pools.grant(claim, own_pools, others | machines)
    if ips != claim.has:
        ingress = [{"ip": ip, "ipMode": "VIP"} for ip in pools.texts(ips)] or None
        yield Patch(SERVICES, service, {"status": {"loadBalancer": {"ingress": ingress}}}, "status")
    if ips and ips != claim.has:
        yield Note(service, "AddressAssigned", f"it is reached at {', '.join(pools.texts(ips))}")
    for problem in problems:
        yield Note(service, "NoLoadBalancerAddress", problem, WARNING)


def _claim(service: Object) -> Claim:
    """What a Service wants. ValueError when it asks for what is no address."""
    spec = service["spec"]
    text = service["metadata"].get("annotations", {}).get(WANTED_IPS, "") or spec.get("loadBalancerIP", "")
    wanted = tuple(ipaddress.ip_address(part.strip()) for part in text.split(",") if part.strip())
    versions = tuple(int(family[-1]) for family in spec.get("ipFamilies", ()))
    return Claim(versions, tuple(ip for ip in wanted if ip.version in versions), tuple(ips_of(service)))


def _pools(view: View, service: Object) -> list[Pool]:
    """The pools whose addresses it may have, by name."""
    labels = service["metadata"].get("labels", {})
    return [
        pools.pool_of(pool["metadata"]["name"], pool["spec"]["addresses"])
        for pool in view.all(POOLS)
        if "deletionTimestamp" not in pool["metadata"] and names.matches(pool["spec"].get("serviceSelector") or {}, labels)
    ]


def _machines(view: View) -> set[IPAddress]:
    """Addresses of nodes: no Service may have them."""
    found: set[IPAddress] = set()
    for node in view.all("nodes"):
        for one in node.get("status", {}).get("addresses", ()):
            if one["type"] == "InternalIP":
                found.add(ipaddress.ip_address(one["address"]))
    return found


def _itself_and_waiting(view: View, service: Object) -> Iterable[Key]:
    """A load balancer concerns those, too, that wait for an address."""
    yield key_of(service)
    if is_balanced(service):
        yield from (key_of(other) for other in view.all(SERVICES) if is_balanced(other) and not ips_of(other))


def _all(view: View, _: Object) -> Iterable[Key]:
    return (key_of(service) for service in view.all(SERVICES) if is_balanced(service))


def _what_matters(service: Object) -> object:
    metadata, spec = service["metadata"], service["spec"]
    asked = (metadata.get("annotations", {}).get(WANTED_IPS), spec.get("loadBalancerIP"), spec.get("loadBalancerClass"))
    return spec["type"], asked, spec.get("ipFamilies"), metadata.get("labels"), ips_of(service)


def _addresses(node: Object) -> object:
    return node.get("status", {}).get("addresses")


CONTROLLER = Controller(
    "load-balancer-controller",
    {SERVICES: _itself_and_waiting, POOLS: _all, "nodes": _all},
    _decide,
    {SERVICES: _what_matters, "nodes": _addresses},
)


def _count(view: View, key: Key) -> Iterator[Action]:
    """How many addresses of a pool are in use, and what is wrong with it."""
    object_ = view.get(POOLS, key)
    if object_ is None:
        return
    pool = pools.pool_of(key[1], object_["spec"]["addresses"])
    in_use = sum(ip in pool for service in view.all(SERVICES) if is_balanced(service) for ip in ips_of(service))
    status = {"addresses": str(pool.size), "inUse": in_use}
    if object_.get("status") != status:
        yield Patch(POOLS, object_, {"status": status}, "status")
        for problem in pool.problems:
            yield Note(object_, "InvalidAddresses", problem, WARNING)


def _every_pool(view: View, service: Object) -> Iterable[Key]:
    return map(key_of, view.all(POOLS)) if is_balanced(service) else ()


POOL_CONTROLLER = Controller(
    "load-balancer-pool-controller", {POOLS: itself, SERVICES: _every_pool}, _count, {SERVICES: _what_matters}
)

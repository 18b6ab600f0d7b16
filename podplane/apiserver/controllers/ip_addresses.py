"""IPAddress objects: one for each cluster IP, naming its Service (KEP-1880); and ServiceCIDRs are ready at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.apiserver.controllers.decision import Action, Controller, Create, Delete, Patch, View, itself
from podplane.apiserver.controllers.objects import Key, Object, key_of
from podplane.apiserver.controllers.pods import condition_of, rfc3339
from podplane.apiserver.service_ips import ADDRESSES, RANGES, SERVICES, ips_of

FAMILY, MANAGED_BY = "ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by"
ALLOCATOR = "ipallocator.k8s.io"


def _of_service(_: View, service: Object) -> Iterable[Key]:
    """A Service concerns each of its addresses: the key is (its path, the address)."""
    path = "/".join(key_of(service))
    return ((path, ip) for ip in ips_of(service))


def _of_address(_: View, address: Object) -> Iterable[Key]:
    """An address concerns the Service that it names."""
    parent = address["spec"].get("parentRef", {})
    if parent.get("resource") == SERVICES:
        yield f"{parent.get('namespace', '')}/{parent.get('name', '')}", address["metadata"]["name"]


def _parent(service: Object) -> Object:
    metadata = service["metadata"]
    return {"group": "", "resource": SERVICES, "namespace": metadata["namespace"], "name": metadata["name"]}


def _decide(view: View, key: Key) -> Iterator[Action]:
    path, ip = key
    there = view.get(ADDRESSES, ("", ip))
    if there is not None and there["metadata"].get("labels", {}).get(MANAGED_BY) != ALLOCATOR:
        return  # a user's own, who keeps the address for something else
    if there is not None and not any(_holds(view, *owner) for owner in _of_address(view, there)):
        yield Delete(ADDRESSES, there)
        there = None
    if there is None and (service := _holds(view, path, ip)) is not None:
        labels = {FAMILY: f"IPv{ipaddress.ip_address(ip).version}", MANAGED_BY: ALLOCATOR}
        yield Create(ADDRESSES, "", {"metadata": {"name": ip, "labels": labels}, "spec": {"parentRef": _parent(service)}})


def _holds(view: View, path: str, ip: str) -> Object | None:
    """The Service at this path, if the address is one of its own."""
    namespace, _, name = path.partition("/")
    service = view.get(SERVICES, (namespace, name))
    return service if service is not None and ip in ips_of(service) else None


CONTROLLER = Controller("service-ip-address-controller", {SERVICES: _of_service, ADDRESSES: _of_address}, _decide)


def _ready(view: View, key: Key) -> Iterator[Action]:
    range_ = view.get(RANGES, key)
    if range_ is not None and condition_of(range_, "Ready") is None:
        condition = {"type": "Ready", "status": "True", "message": "Kubernetes Service CIDR is ready"}
        condition |= {"lastTransitionTime": rfc3339(view.now), "reason": ""}
        yield Patch(RANGES, range_, {"status": {"conditions": [condition]}}, "status")


RANGE_CONTROLLER = Controller("service-cidrs-controller", {RANGES: itself}, _ready)

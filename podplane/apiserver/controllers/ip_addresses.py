"""IPAddress objects: one for each cluster IP, naming its Service (KEP-1880); and ServiceCIDRs are ready at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.apiserver.controllers.decision import Action, Controller, Create, Delete, Key, Object, Patch, View, itself
from podplane.apiserver.controllers.pods import condition_of, rfc3339
from podplane.apiserver.service_ips import ADDRESSES, RANGES, SERVICES, ips_of

FAMILY, MANAGED_BY = "ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by"
ALLOCATOR = "ipallocator.k8s.io"


def _of_service(_: View, service: Object) -> Iterable[Key]:
    """A Service concerns each of its addresses."""
    return (("", ip) for ip in ips_of(service))


def _parent(service: Object) -> Object:
    metadata = service["metadata"]
    return {"group": "", "resource": SERVICES, "namespace": metadata["namespace"], "name": metadata["name"]}


def _decide(view: View, key: Key) -> Iterator[Action]:
    ip, there = key[1], view.get(ADDRESSES, key)
    if there is not None and there["metadata"].get("labels", {}).get(MANAGED_BY) != ALLOCATOR:
        return  # a user's own, who keeps the address for something else
    service = next((s for s in view.all(SERVICES) if ip in ips_of(s)), None)
    if there is not None and (service is None or there["spec"]["parentRef"] != _parent(service)):
        yield Delete(ADDRESSES, there)
        there = None
    if service is not None and there is None:
        labels = {FAMILY: f"IPv{ipaddress.ip_address(ip).version}", MANAGED_BY: ALLOCATOR}
        yield Create(ADDRESSES, "", {"metadata": {"name": ip, "labels": labels}, "spec": {"parentRef": _parent(service)}})


CONTROLLER = Controller("service-ip-address-controller", {SERVICES: _of_service, ADDRESSES: itself}, _decide)


def _ready(view: View, key: Key) -> Iterator[Action]:
    range_ = view.get(RANGES, key)
    if range_ is not None and condition_of(range_, "Ready") is None:
        condition = {"type": "Ready", "status": "True", "message": "Kubernetes Service CIDR is ready"}
        condition |= {"lastTransitionTime": rfc3339(view.now), "reason": ""}
        yield Patch(RANGES, range_, {"status": {"conditions": [condition]}}, "status")


RANGE_CONTROLLER = Controller("service-cidrs-controller", {RANGES: itself}, _ready)

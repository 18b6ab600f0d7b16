"""IPAddress objects: one for each cluster IP, naming its Service; and ServiceCIDRs, which stay while a Service has an address of them.

Sources: KEP-1880; kube-controller-manager, pkg/controller/servicecidrs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.apiserver.controllers.allocated import ALLOCATOR, MANAGED_BY, is_allocated
from podplane.apiserver.controllers.decision import Action, Controller, Create, Delete, Patch, View
from podplane.apiserver.controllers.pods import condition_of, rfc3339
from podplane.apiserver.service_ips import ADDRESSES, RANGES, SERVICES, ips_of
from podplane.controllers.objects import Key, Object, key_of
from podplane.state.value import IPNetwork

FAMILY, PROTECTION = "ipaddress.kubernetes.io/ip-family", "networking.k8s.io/service-cidr-finalizer"


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
    if there is not None and not is_allocated(there):
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


# ServiceCIDRs.


def _ranges_about(view: View, address: Object) -> Iterable[Key]:
    """An address concerns the ranges that wait for it: those that are being deleted and contain it."""
    ip = ipaddress.ip_address(address["metadata"]["name"])
    for range_ in view.all(RANGES):
        if "deletionTimestamp" in range_["metadata"] and any(ip in cidr for cidr in _cidrs(range_)):
            yield key_of(range_)


def _ranges_beside(view: View, range_: Object) -> Iterable[Key]:
    """A range concerns itself, and those that are being deleted: another one may contain their addresses now."""
    yield key_of(range_)
    for other in view.all(RANGES):
        if "deletionTimestamp" in other["metadata"]:
            yield key_of(other)


def _cidrs(range_: Object) -> list[IPNetwork]:
    return [ipaddress.ip_network(cidr) for cidr in range_["spec"].get("cidrs", ())]


def _is_needed(view: View, range_: Object) -> bool:
    """Has a Service an address of it that no other range contains? (canDeleteCIDR)"""
    others = [cidr for other in view.all(RANGES) if key_of(other) != key_of(range_) for cidr in _cidrs(other)]
    return any(view.allocated().is_any_in(cidr, others) for cidr in _cidrs(range_))


def _protect(view: View, key: Key) -> Iterator[Action]:
    range_ = view.get(RANGES, key)
    if range_ is None:
        return
    finalizers = range_["metadata"].get("finalizers", [])
    if "deletionTimestamp" not in range_["metadata"]:
        if PROTECTION not in finalizers:
            yield Patch(RANGES, range_, {"metadata": {"finalizers": [*finalizers, PROTECTION]}})
        yield from _say(view, range_, "True", "", "Kubernetes Service CIDR is ready")
    elif PROTECTION not in finalizers:
        return
    elif _is_needed(view, range_):
        why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
        yield from _say(view, range_, "False", "Terminating", why)
    else:
        yield Patch(RANGES, range_, {"metadata": {"finalizers": [one for one in finalizers if one != PROTECTION]}})


def _say(view: View, range_: Object, status: str, reason: str, message: str) -> Iterator[Action]:
    """Set the condition Ready, unless it says that already."""
    old, said = condition_of(range_, "Ready"), {"status": status, "reason": reason, "message": message}
    if old is not None and all(old.get(field) == value for field, value in said.items()):
        return
    changed = old is None or old["status"] != status
    since = rfc3339(view.now) if changed or old is None else old["lastTransitionTime"]
    others = [one for one in range_.get("status", {}).get("conditions", ()) if one["type"] != "Ready"]
    conditions = [*others, {"type": "Ready", **said, "lastTransitionTime": since}]
    yield Patch(RANGES, range_, {"status": {"conditions": conditions}}, "status")


RANGE_CONTROLLER = Controller("service-cidrs-controller", {RANGES: _ranges_beside, ADDRESSES: _ranges_about}, _protect)

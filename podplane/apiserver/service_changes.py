"""A change of a Service: what it doesn't say of addresses and ports stays, what its new type can't have goes with the old type.

A field goes only if the change leaves it as it was; one that the user changes, too, is for the rules to refuse. Sources: kube-apiserver,
pkg/registry/core/service: patchAllocatedValues, normalizeClusterIPs (storage/storage.go), dropTypeDependentFields (strategy.go),
initIPFamilyFields (storage/alloc.go).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from podplane.apiserver.kinds.services import EXPOSED, EXTERNAL_NAME, LOAD_BALANCER, has_health_check, is_exposed
from podplane.apiserver.problems import Cause

Object = dict[str, Any]
SINGLE = "SingleStack"
FAMILY_FIELDS = ("ipFamilies", "ipFamilyPolicy")
NEEDS: tuple[tuple[str, Callable[[Object], bool]], ...] = (
    ("healthCheckNodePort", has_health_check),
    ("allocateLoadBalancerNodePorts", lambda spec: spec.get("type") == LOAD_BALANCER),
    ("loadBalancerClass", lambda spec: spec.get("type") == LOAD_BALANCER),
    ("externalTrafficPolicy", is_exposed),
)
"""Fields, and which Services can have them."""


def keep_allocated(new: Object, old: Object) -> None:
    """Complete a new version of a Service, whose types are right, by what its former one has; take away what no longer fits."""
    spec, before = new["spec"], old["spec"]
    if _has_addresses(spec) and _has_addresses(before):
        _keep_addresses(spec, before)
    elif _has_addresses(before):
        _drop_addresses(spec, before)
    if spec.get("type") in EXPOSED and before.get("type") in EXPOSED:
        _keep_node_ports(spec, before)
    elif before.get("type") in EXPOSED and _node_ports(spec) <= _node_ports(before):
        for port in spec.get("ports", ()):
            port.pop("nodePort", None)
    if before.get("healthCheckNodePort") and has_health_check(spec) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before["healthCheckNodePort"]
    for name, needs in NEEDS:
        if needs(before) and not needs(spec) and spec.get(name) == before.get(name):
            spec.pop(name, None)
    if spec.get("type") != LOAD_BALANCER and new.get("status", {}).get("loadBalancer"):
        new["status"] = {**new["status"], "loadBalancer": {}}


def check_families(spec: Object, before: Object) -> Iterator[Cause]:
    """A second address or family is given back only by the policy."""
    for field, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        now, then = spec.get(field, []), before.get(field, [])
        if spec.get("ipFamilyPolicy") == SINGLE and len(now) > 1:
            why = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what.replace('family', 'familie')}s are specified"
            yield Cause.invalid("spec.ipFamilyPolicy", SINGLE, why)
        elif spec.get("ipFamilyPolicy") not in (None, SINGLE) and len(then) == 2 and len(now) == 1 and now[0] == then[0]:
            why = f"must be 'SingleStack' to release the secondary {what}"
            yield Cause.invalid("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], why)


def _has_addresses(spec: Object) -> bool:
    return spec.get("type") != EXTERNAL_NAME


def _keep_addresses(spec: Object, before: Object) -> None:
    if not spec.get("clusterIP") and before.get("clusterIP"):
        spec["clusterIP"] = before["clusterIP"]
    for field in ("clusterIPs", "ipFamilies"):
        if not spec.get(field) and before.get(field):
            spec[field] = list(before[field])
    if "ipFamilyPolicy" not in spec and "ipFamilyPolicy" in before:
        spec["ipFamilyPolicy"] = before["ipFamilyPolicy"]
    if spec.get("ipFamilyPolicy") == SINGLE:
        for field in ("clusterIPs", "ipFamilies"):
            if spec.get(field) == before.get(field) and spec.get(field):
                spec[field] = spec[field][:1]


def _drop_addresses(spec: Object, before: Object) -> None:
    if all(spec.get(field) == before.get(field) for field in ("clusterIP", "clusterIPs")):
        spec.pop("clusterIP", None)
        spec.pop("clusterIPs", None)
    for field in FAMILY_FIELDS:
        if spec.get(field) == before.get(field):
            spec.pop(field, None)


def _node_ports(spec: Object) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports", ()) if port.get("nodePort")}


def _keep_node_ports(spec: Object, before: Object) -> None:
    """A port without a node port has that of the former port of its name, unless another port has taken it."""
    taken = _node_ports(spec) & _node_ports(before)
    known = {port.get("name", ""): port.get("nodePort") for port in before.get("ports", ())}
    for port in spec.get("ports", ()):
        number = known.get(port.get("name", ""))
        if number and not port.get("nodePort") and number not in taken:
            port["nodePort"] = number

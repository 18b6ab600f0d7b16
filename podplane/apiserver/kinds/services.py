"""Service: defaults and rules (core, validation.go: ValidateService; what a change drops is `service_changes.keep_allocated`'s)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.addresses import check_cidr, check_common_ip, check_ip
from podplane.apiserver.kinds.statuses import complete_service as complete_status
from podplane.apiserver.problems import Cause

Object = dict[str, Any]
FAMILIES = ("IPv4", "IPv6")
HEADLESS, EXTERNAL_NAME, CLUSTER_IP, LOAD_BALANCER = "None", "ExternalName", "ClusterIP", "LoadBalancer"
EXPOSED = ("NodePort", LOAD_BALANCER)
NONE, CLIENT_IP = "None", "ClientIP"
ALLOWED = {
    "sessionAffinity": (CLIENT_IP, NONE),
    "internalTrafficPolicy": ("Cluster", "Local"),
    "externalTrafficPolicy": ("Cluster", "Local"),
    "trafficDistribution": ("PreferClose", "PreferSameNode", "PreferSameZone"),
}
ONLY_BALANCED = ("loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass")
"""Fields that only load balancers have."""
MAX_AFFINITY_SECONDS = 86400


def is_exposed(spec: Object) -> bool:
    """Do clients outside the cluster reach it?"""
    return spec.get("type") in EXPOSED or (spec.get("type", CLUSTER_IP) == CLUSTER_IP and bool(spec.get("externalIPs")))


def has_health_check(spec: Object) -> bool:
    """Is it asked from outside which nodes have endpoints of it?"""
    return spec.get("type") == LOAD_BALANCER and spec.get("externalTrafficPolicy") == "Local"


def complete_service(service: Object) -> None:
    """Defaults that hang on the type and on each other."""
    spec = service.setdefault("spec", {})
    kind = spec.setdefault("type", CLUSTER_IP)
    spec.setdefault("sessionAffinity", NONE)
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        if "port" in port and port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port["port"]
    if spec["sessionAffinity"] == CLIENT_IP:
        spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {}).setdefault("timeoutSeconds", 10800)
    elif spec["sessionAffinity"] == NONE:
        spec.pop("sessionAffinityConfig", None)
    if kind != EXTERNAL_NAME:
        spec.setdefault("internalTrafficPolicy", "Cluster")
    else:
        spec.pop("internalTrafficPolicy", None)
    if is_exposed(spec):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind == LOAD_BALANCER:
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    if ips:
        spec["clusterIPs"] = ips
        spec.setdefault("clusterIP", ips[0])
    complete_status(service)


def check_service(service: Object, old: Object | None) -> Iterator[Cause]:
    """Service."""
    spec = service["spec"]
    yield from _check_type(spec)
    yield from _check_service_ports(spec.get("ports", []), spec["type"])
    yield from names.check_labels(spec.get("selector", {}), "spec.selector")
    yield from _check_addresses(spec)
    for field, allowed in ALLOWED.items():
        if field in spec and spec[field] not in allowed:
            yield Cause.unsupported(f"spec.{field}", spec[field], allowed)
    yield from _check_affinity(spec)
    yield from _check_balancing(spec, old)
    if old is not None:
        yield from _check_change(spec, old["spec"])


def _check_type(spec: Object) -> Iterator[Cause]:
    """What each type needs, and may not have."""
    kind, ip = spec["type"], spec.get("clusterIP", "")
    if kind == EXTERNAL_NAME:
        if not spec.get("externalName"):
            yield Cause.required("spec.externalName")
        elif why := names.SUBDOMAIN(spec["externalName"].rstrip(".").lower()):
            yield Cause.invalid("spec.externalName", spec["externalName"], why)
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(field):
                yield Cause.forbidden(f"spec.{field}", "may not be set for ExternalName services")
    elif not spec.get("ports") and ip != HEADLESS:
        yield Cause.required("spec.ports")
    if ip == HEADLESS and kind in EXPOSED:
        yield Cause.invalid("spec.clusterIPs[0]", ip, f"may not be set to 'None' for {kind} services")


def _check_addresses(spec: Object) -> Iterator[Cause]:
    for i, one in enumerate(spec.get("clusterIPs", ())):
        if one != HEADLESS:
            yield from check_ip(one, f"spec.clusterIPs[{i}]")
    if spec.get("clusterIPs") and spec.get("clusterIP", "") != spec["clusterIPs"][0]:
        yield Cause.invalid("spec.clusterIPs", spec["clusterIPs"], "first value must match `clusterIP`")
    families: set[str] = set()
    for i, family in enumerate(spec.get("ipFamilies", ())):
        if family not in FAMILIES:
            yield Cause.unsupported(f"spec.ipFamilies[{i}]", family, FAMILIES)
        elif family in families:
            yield Cause.duplicate(f"spec.ipFamilies[{i}]", family)
        families.add(family)
    for i, one in enumerate(spec.get("externalIPs", ())):
        yield from check_common_ip(one, f"spec.externalIPs[{i}]")


def _check_affinity(spec: Object) -> Iterator[Cause]:
    seconds = spec.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds", 1)
    if not 0 < seconds <= MAX_AFFINITY_SECONDS:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        yield Cause.invalid(path, seconds, f"must be greater than 0 and at most {MAX_AFFINITY_SECONDS}")


def _check_balancing(spec: Object, old: Object | None) -> Iterator[Cause]:
    """What is for clients outside, and for load balancers."""
    for field in ONLY_BALANCED if spec["type"] != LOAD_BALANCER else ():
        if spec.get(field) not in (None, []):
            yield Cause.forbidden(f"spec.{field}", "may only be used when `type` is 'LoadBalancer'")
    known = [] if old is None else [one.strip() for one in old["spec"].get("loadBalancerSourceRanges", ())]
    for i, one in enumerate(spec.get("loadBalancerSourceRanges", ())):
        yield from check_cidr(one.strip(), f"spec.loadBalancerSourceRanges[{i}]", known)
    class_ = spec.get("loadBalancerClass")
    if class_ is not None and not names.QUALIFIED_PATTERN.fullmatch(class_):
        yield Cause.invalid("spec.loadBalancerClass", class_, names.NAME_PART)
    policy = spec.get("externalTrafficPolicy")
    if policy and not is_exposed(spec):
        yield Cause.invalid("spec.externalTrafficPolicy", policy, "may only be set for externally-accessible services")
    port = spec.get("healthCheckNodePort")
    if port and not has_health_check(spec):
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield Cause.invalid("spec.healthCheckNodePort", port, why)
    elif port:
        yield from names.check_port(port, "spec.healthCheckNodePort")


def _check_change(spec: Object, before: Object) -> Iterator[Cause]:
    """What stays as long as the type does."""
    ip, ip_before = spec.get("clusterIP", ""), before.get("clusterIP")
    if EXTERNAL_NAME not in (spec["type"], before.get("type")) and ip_before and ip_before != ip:
        yield Cause.immutable("spec.clusterIPs[0]", ip)
    class_, class_before = spec.get("loadBalancerClass"), before.get("loadBalancerClass")
    if spec["type"] == before.get("type") == LOAD_BALANCER and class_ != class_before:
        yield Cause.invalid("spec.loadBalancerClass", class_, "may not change once set")
    port, port_before = spec.get("healthCheckNodePort"), before.get("healthCheckNodePort")
    if has_health_check(spec) and has_health_check(before) and port != port_before:
        yield Cause.forbidden("spec.healthCheckNodePort", "field is immutable")


def _check_service_ports(ports: list[Object], kind: str) -> Iterator[Cause]:
    known: set[str] = set()
    taken: set[tuple[str, Any]] = set()
    for i, port in enumerate(ports):
        where, name = f"spec.ports[{i}]", port.get("name", "")
        if len(ports) > 1 and not name:
            yield Cause.required(f"{where}.name")
        if name and (why := names.LABEL(name)):
            yield Cause.invalid(f"{where}.name", name, why)
        if name in known and name:
            yield Cause.duplicate(f"{where}.name", name)
        known.add(name)
        if "port" in port:
            yield from names.check_port(port["port"], f"{where}.port")
        if "targetPort" in port:
            yield from names.check_port(port["targetPort"], f"{where}.targetPort", named=True)
        if port.get("nodePort"):
            if kind == CLUSTER_IP:
                yield Cause.forbidden(f"{where}.nodePort", f"may not be used when `type` is '{kind}'")
            yield from names.check_port(port["nodePort"], f"{where}.nodePort")
        identity = (port.get("protocol", "TCP"), port.get("port"))
        if identity in taken:
            yield Cause.duplicate(where, {"protocol": identity[0], "port": identity[1]})
        taken.add(identity)

"""Service, Endpoints, EndpointSlice, NetworkPolicy, Ingress, ServiceCIDR, IPAddress: defaults and rules (core, discovery, networking)."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from typing import Any

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.pods import check_cidr, check_ip
from podplane.apiserver.problems import Cause

Object = dict[str, Any]
HEADLESS, EXTERNAL_NAME = "None", "ExternalName"
MAX_ENDPOINTS, MAX_ADDRESSES, MAX_PORTS = 1000, 100, 20000
MAX_AFFINITY_SECONDS = 86400


def complete_service(service: Object) -> None:
    """Defaults that hang on the type and on each other."""
    spec = service.setdefault("spec", {})
    kind = spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        if "port" in port and port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port["port"]
    if spec["sessionAffinity"] == "ClientIP":
        spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {}).setdefault("timeoutSeconds", 10800)
    if kind != EXTERNAL_NAME:
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind in ("NodePort", "LoadBalancer") or spec.get("externalIPs"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    if ips:
        spec["clusterIPs"] = ips
        spec.setdefault("clusterIP", ips[0])
    service.setdefault("status", {}).setdefault("loadBalancer", {})


def check_service(service: Object, old: Object | None) -> Iterator[Cause]:
    """Service."""
    spec = service["spec"]
    kind, ports, ip = spec["type"], spec.get("ports", []), spec.get("clusterIP", "")
    if kind == EXTERNAL_NAME:
        if not spec.get("externalName"):
            yield Cause.required("spec.externalName")
        elif why := names.SUBDOMAIN(spec["externalName"].rstrip(".").lower()):
            yield Cause.invalid("spec.externalName", spec["externalName"], why)
        if ip and ip != HEADLESS:
            yield Cause.forbidden("spec.clusterIPs[0]", "may not be set for ExternalName services")
    elif not ports and ip != HEADLESS:
        yield Cause.required("spec.ports")
    if ip == HEADLESS and kind in ("NodePort", "LoadBalancer"):
        yield Cause.invalid("spec.clusterIPs[0]", ip, f"may not be set to 'None' for {kind} services")
    yield from _check_service_ports(ports, kind)
    yield from names.check_labels(spec.get("selector", {}), "spec.selector")
    for i, one in enumerate(spec.get("clusterIPs", ())):
        if one != HEADLESS:
            yield from check_ip(one, f"spec.clusterIPs[{i}]")
    if spec.get("clusterIPs") and ip != spec["clusterIPs"][0]:
        yield Cause.invalid("spec.clusterIPs", spec["clusterIPs"], "first value must match `clusterIP`")
    for i, one in enumerate(spec.get("externalIPs", ())):
        yield from check_ip(one, f"spec.externalIPs[{i}]")
    for i, one in enumerate(spec.get("loadBalancerSourceRanges", ())):
        yield from check_cidr(one.strip(), f"spec.loadBalancerSourceRanges[{i}]")
    for field in ("internalTrafficPolicy", "externalTrafficPolicy"):
        if spec.get(field, "Cluster") not in ("Cluster", "Local"):
            yield Cause.unsupported(f"spec.{field}", spec[field], ("Cluster", "Local"))
    seconds = spec.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds", 1)
    if not 0 < seconds <= MAX_AFFINITY_SECONDS:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        yield Cause.invalid(path, seconds, f"must be greater than 0 and at most {MAX_AFFINITY_SECONDS}")
    if old is not None and EXTERNAL_NAME not in (kind, old["spec"].get("type")):
        before = old["spec"].get("clusterIP")
        if before and before != ip:
            yield Cause.immutable("spec.clusterIPs[0]", ip)


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
            if kind in ("ClusterIP", EXTERNAL_NAME):
                yield Cause.forbidden(f"{where}.nodePort", f"may not be used when `type` is '{kind}'")
            yield from names.check_port(port["nodePort"], f"{where}.nodePort")
        identity = (port.get("protocol", "TCP"), port.get("port"))
        if identity in taken:
            yield Cause.duplicate(where, {"protocol": identity[0], "port": identity[1]})
        taken.add(identity)


def check_endpoints(endpoints: Object, old: Object | None) -> Iterator[Cause]:
    """Endpoints."""
    for i, subset in enumerate(endpoints.get("subsets", ())):
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield Cause.required(f"subsets[{i}]", "must specify `addresses` or `notReadyAddresses`")
        for field in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(field, ())):
                yield from _check_endpoint_ip(address.get("ip", ""), f"subsets[{i}].{field}[{j}].ip")
        for j, port in enumerate(subset.get("ports", ())):
            if "port" in port:
                yield from names.check_port(port["port"], f"subsets[{i}].ports[{j}].port")


def _check_endpoint_ip(text: str, path: str) -> Iterator[Cause]:
    """An address that can be somebody's: not unspecified, loopback, link-local or multicast."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        yield from check_ip(text, path)
        return
    if ip.is_unspecified or ip.is_loopback or ip.is_link_local or ip.is_multicast:
        yield Cause.invalid(path, text, "may not be unspecified, loopback, link-local or multicast")


def check_endpoint_slice(endpoint_slice: Object, old: Object | None) -> Iterator[Cause]:
    """EndpointSlice."""
    family = endpoint_slice.get("addressType")
    endpoints = endpoint_slice.get("endpoints", [])
    if len(endpoints) > MAX_ENDPOINTS:
        yield Cause("endpoints", "FieldValueTooMany", f"Too many: {len(endpoints)}: must have at most {MAX_ENDPOINTS} items")
        return
    for i, endpoint in enumerate(endpoints):
        addresses = endpoint.get("addresses", [])
        if not addresses:
            yield Cause.required(f"endpoints[{i}].addresses", "must contain at least 1 address")
        if len(addresses) > MAX_ADDRESSES:
            yield Cause(
                f"endpoints[{i}].addresses",
                "FieldValueTooMany",
                f"Too many: {len(addresses)}: must have at most {MAX_ADDRESSES} items",
            )
        for j, address in enumerate(addresses):
            where = f"endpoints[{i}].addresses[{j}]"
            if family == "FQDN":
                if why := names.SUBDOMAIN(address):
                    yield Cause.invalid(where, address, why)
                continue
            yield from _check_endpoint_ip(address, where)
            with contextlib.suppress(ValueError):
                if f"IPv{ipaddress.ip_address(address).version}" != family:
                    yield Cause.invalid(where, address, f"must be an {family} address")
    known: set[str] = set()
    for i, port in enumerate(endpoint_slice.get("ports", ())):
        if port.get("name", "") in known:
            yield Cause.duplicate(f"ports[{i}].name", port.get("name", ""))
        known.add(port.get("name", ""))
        if "port" in port:
            yield from names.check_port(port["port"], f"ports[{i}].port")


def complete_network_policy(policy: Object) -> None:
    """policyTypes: Ingress, and Egress when there are rules for it."""
    spec = policy.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress"] + (["Egress"] if spec.get("egress") else [])
    for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]:
        for port in rule.get("ports", ()):
            port.setdefault("protocol", "TCP")


def check_network_policy(policy: Object, old: Object | None) -> Iterator[Cause]:
    """NetworkPolicy."""
    spec = policy["spec"]
    yield from names.check_selector(spec["podSelector"], "spec.podSelector")
    for i, kind in enumerate(spec["policyTypes"]):
        if kind not in ("Ingress", "Egress"):
            yield Cause.unsupported(f"spec.policyTypes[{i}]", kind, ("Egress", "Ingress"))
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(direction, ())):
            where = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports", ())):
                yield from _check_policy_port(port, f"{where}.ports[{j}]")
            for j, peer in enumerate(rule.get(side, ())):
                yield from _check_peer(peer, f"{where}.{side}[{j}]")


def _check_policy_port(port: Object, path: str) -> Iterator[Cause]:
    if "port" in port:
        yield from names.check_port(port["port"], f"{path}.port", named=True)
    if "endPort" not in port:
        return
    if not isinstance(port.get("port"), int):
        yield Cause.invalid(
            f"{path}.endPort",
            port["endPort"],
            "may not be specified without a numeric `port`",
        )
    elif port["endPort"] < port["port"]:
        yield Cause.invalid(f"{path}.endPort", port["endPort"], "must be greater than or equal to `port`")
    else:
        yield from names.check_port(port["endPort"], f"{path}.endPort")


def _check_peer(peer: Object, path: str) -> Iterator[Cause]:
    if not peer:
        yield Cause.required(path, "must specify a peer")
    if "ipBlock" in peer and len(peer) > 1:
        yield Cause.forbidden(path, "may not specify both ipBlock and another peer")
    for field in ("podSelector", "namespaceSelector"):
        if field in peer:
            yield from names.check_selector(peer[field], f"{path}.{field}")
    block = peer.get("ipBlock", {})
    if "cidr" not in block:
        return
    found = list(check_cidr(block["cidr"], f"{path}.ipBlock.cidr"))
    yield from found
    for i, part in enumerate(block.get("except", ())):
        where = f"{path}.ipBlock.except[{i}]"
        wrong = list(check_cidr(part, where))
        yield from wrong
        if not found and not wrong and not _is_strictly_within(part, block["cidr"]):
            yield Cause.invalid(where, part, "must be a strict subset of `cidr`")


def _is_strictly_within(inner: str, outer: str) -> bool:
    one, other = ipaddress.ip_network(inner, strict=False), ipaddress.ip_network(outer, strict=False)
    return one.version == other.version and one != other and one.subnet_of(other)  # type: ignore[arg-type]  # one family


def check_ingress(ingress: Object, old: Object | None) -> Iterator[Cause]:
    """Ingress."""
    spec = ingress.get("spec", {})
    if not spec.get("rules") and "defaultBackend" not in spec:
        yield Cause.invalid("spec", spec.get("rules", []), "either `defaultBackend` or `rules` must be specified")
    if "defaultBackend" in spec:
        yield from _check_backend(spec["defaultBackend"], "spec.defaultBackend")
    for i, rule in enumerate(spec.get("rules", ())):
        host = rule.get("host", "")
        if host and (why := names.SUBDOMAIN(host.removeprefix("*."))):
            yield Cause.invalid(f"spec.rules[{i}].host", host, why)
        if "http" in rule and not rule["http"].get("paths"):
            yield Cause.required(f"spec.rules[{i}].http.paths")
        for j, path in enumerate(rule.get("http", {}).get("paths", ())):
            where = f"spec.rules[{i}].http.paths[{j}]"
            text = path.get("path", "")
            if path.get("pathType") in ("Exact", "Prefix") and not text.startswith("/"):
                yield Cause.invalid(f"{where}.path", text, "must be an absolute path")
            yield from _check_backend(path.get("backend", {}), f"{where}.backend")


def _check_backend(backend: Object, path: str) -> Iterator[Cause]:
    if ("service" in backend) is ("resource" in backend):
        yield Cause.invalid(path, "", "must specify either a service or a resource backend")
    port = backend.get("service", {}).get("port", {})
    if "service" in backend and bool(port.get("name")) is bool(port.get("number")):
        yield Cause.required(f"{path}.service.port", "port name or number is required, not both")
    if port.get("number"):
        yield from names.check_port(port["number"], f"{path}.service.port.number")


def check_ingress_class(ingress_class: Object, old: Object | None) -> Iterator[Cause]:
    """IngressClass."""
    controller = ingress_class.get("spec", {}).get("controller", "")
    if not controller:
        yield Cause.required("spec.controller")
    elif "/" not in controller or len(controller) > 250:
        yield Cause.invalid("spec.controller", controller, "must be a domain-prefixed path (such as 'acme.io/foo')")


def check_service_cidr(service_cidr: Object, old: Object | None) -> Iterator[Cause]:
    """ServiceCIDR: one network, or one of each family."""
    cidrs = service_cidr.get("spec", {}).get("cidrs", [])
    if not cidrs:
        yield Cause.required("spec.cidrs", "at least one CIDR required")
    for i, cidr in enumerate(cidrs):
        yield from check_cidr(cidr, f"spec.cidrs[{i}]")
    with contextlib.suppress(ValueError):
        versions = [ipaddress.ip_network(cidr, strict=False).version for cidr in cidrs]
        if len(versions) > 2 or len(set(versions)) != len(versions):
            yield Cause.invalid("spec.cidrs", cidrs, "may have at most one CIDR of each IP family")


def ip_name(name: str) -> str:
    """The name of an IPAddress is the address, in its canonical text."""
    try:
        return "" if str(ipaddress.ip_address(name)) == name else "must be an IP address in its canonical form"
    except ValueError:
        return "must be a valid IP address"

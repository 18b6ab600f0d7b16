"""Endpoints, EndpointSlice, Ingress, ServiceCIDR, IPAddress: defaults and rules (core, discovery, networking)."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from typing import Any

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.addresses import check_cidr, check_common_ip
from podplane.apiserver.problems import Cause

Object = dict[str, Any]
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
"""The class of an Ingress, as it was said before there was a field for it."""
MAX_ENDPOINTS, MAX_ADDRESSES, MAX_PORTS = 1000, 100, 20000


def check_endpoints(endpoints: Object, old: Object | None) -> Iterator[Cause]:
    """Endpoints."""
    for i, subset in enumerate(endpoints.get("subsets", ())):
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield Cause.required(f"subsets[{i}]", "must specify `addresses` or `notReadyAddresses`")
        for field in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(field, ())):
                yield from check_common_ip(address.get("ip", ""), f"subsets[{i}].{field}[{j}].ip")
                yield from _check_hostname(address, f"subsets[{i}].{field}[{j}]")
        for j, port in enumerate(subset.get("ports", ())):
            if "port" in port:
                yield from names.check_port(port["port"], f"subsets[{i}].ports[{j}].port")


def complete_endpoint_slice(endpoint_slice: Object) -> None:
    """A port without a name has an empty one: clients follow that pointer (discovery/v1/defaults.go)."""
    for port in endpoint_slice.get("ports", ()):
        port.setdefault("name", "")


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
            yield from check_common_ip(address, where)
            with contextlib.suppress(ValueError):
                if f"IPv{ipaddress.ip_address(address).version}" != family:
                    yield Cause.invalid(where, address, f"must be an {family} address")
        yield from _check_hostname(endpoint, f"endpoints[{i}]")
    known: set[str] = set()
    for i, port in enumerate(endpoint_slice.get("ports", ())):
        if port.get("name", "") in known:
            yield Cause.duplicate(f"ports[{i}].name", port.get("name", ""))
        known.add(port.get("name", ""))
        if "port" in port:
            yield from names.check_port(port["port"], f"ports[{i}].port")


def _check_hostname(endpoint: Object, path: str) -> Iterator[Cause]:
    """It is a label of names in the cluster's DNS."""
    hostname = endpoint.get("hostname")
    if hostname and (why := names.LABEL(hostname)):
        yield Cause.invalid(f"{path}.hostname", hostname, why)


def check_ingress(ingress: Object, old: Object | None) -> Iterator[Cause]:
    """Ingress."""
    spec = ingress.get("spec", {})
    class_, said = spec.get("ingressClassName"), ingress["metadata"].get("annotations", {}).get(CLASS_ANNOTATION)
    if class_ is not None and (why := names.SUBDOMAIN(class_)):
        yield Cause.invalid("spec.ingressClassName", class_, why)
    if old is None and None not in (class_, said) and class_ != said:
        why = "must match `ingressClassName` when both are specified"
        yield Cause.invalid(f"annotations.{CLASS_ANNOTATION}", said, why)
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
    name = backend.get("service", {}).get("name", "")
    if "service" in backend and not name:
        yield Cause.required(f"{path}.service.name")
    elif name and (why := names.LABEL(name)):
        yield Cause.invalid(f"{path}.service.name", name, why)
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
        found = list(check_cidr(cidr, f"spec.cidrs[{i}]"))
        yield from found
        if not found and str(ipaddress.ip_network(cidr, strict=False)) != cidr:
            yield Cause.invalid(
                f"spec.cidrs[{i}]", cidr, "must be in canonical form, with no bits set beyond the prefix length"
            )
    before = old.get("spec", {}).get("cidrs", []) if old is not None else []
    if before and cidrs != before and not (len(before) == 1 and len(cidrs) == 2 and cidrs[0] == before[0]):
        yield Cause.immutable("spec.cidrs", cidrs)  # a second family may come (ValidateServiceCIDRUpdate)
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

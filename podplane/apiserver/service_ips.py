"""Cluster IPs and node ports: given to Services as they are written, refused when they are somebody else's, free again when they go.

What is taken is read off the writes themselves, so a write that fails or was only tried takes nothing. Sources: kube-apiserver,
pkg/registry/core/service (ipallocator, portallocator, storage/alloc.go); KEP-3070 and KEP-3668 (the lower part of a range is left to
explicit requests); KEP-1880 (ServiceCIDR).
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.services import EXPOSED, EXTERNAL_NAME, HEADLESS, LOAD_BALANCER, has_health_check
from podplane.apiserver.problems import Cause, Problem, invalid
from podplane.apiserver.service_changes import SINGLE, check_families
from podplane.apiserver.store import Store
from podplane.state.value import IPNetwork

Object = dict[str, Any]
SERVICES, RANGES, ADDRESSES = "services", "servicecidrs.networking.k8s.io", "ipaddresses.networking.k8s.io"
FIRST_PORT, LAST_PORT, STATIC_PORTS = 30000, 32767, 86
REQUIRE = "RequireDualStack"


class ServiceAddresses:
    """What is taken of the Service ranges and of the node ports."""

    def __init__(self, store: Store, cluster_cidrs: Sequence[IPNetwork] = ()) -> None:
        self._cluster_cidrs = cluster_cidrs
        self._ranges: dict[str, list[IPNetwork]] = {}
        self._closed: set[str] = set()
        """Ranges that are being deleted: nothing new is given of them."""
        self._ips: Counter[str] = Counter()
        self._ports: Counter[tuple[str, int]] = Counter()
        self._next_ip: dict[IPNetwork, int] = {}
        self._next_port = FIRST_PORT + STATIC_PORTS
        for stored in store.all(RANGES):
            self._set_range(stored.object)
        for resource in (SERVICES, ADDRESSES):
            for stored in store.all(resource):
                self._count(resource, stored.object, 1)

    def observe(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """A write."""
        if resource.id == RANGES:
            if new is not None:
                self._set_range(new)
            elif old is not None:
                self._ranges.pop(old["metadata"]["name"], None)
                self._closed.discard(old["metadata"]["name"])
        elif resource.id in (SERVICES, ADDRESSES):
            for object_, sign in ((old, -1), (new, 1)):
                if object_ is not None:
                    self._count(resource.id, object_, sign)

    def _set_range(self, range_: Object) -> None:
        name = range_["metadata"]["name"]
        (self._closed.add if "deletionTimestamp" in range_["metadata"] else self._closed.discard)(name)
        self._ranges[name] = [ipaddress.ip_network(cidr) for cidr in range_["spec"].get("cidrs", ())]

    def _count(self, resource: str, object_: Object, sign: int) -> None:
        if resource == ADDRESSES:
            parent = object_["spec"].get("parentRef", {})
            if parent.get("resource") != SERVICES:
                self._ips[object_["metadata"]["name"]] += sign
            return
        for ip in ips_of(object_):
            self._ips[ip] += sign
        for port in ports_of(object_):
            self._ports[port] += sign

    # Completing a Service.

    def complete(self, service: Object, old: Object | None) -> None:
        """Give a Service that makes sense what it lacks; `old` is its former version. Problem when that can't be."""
        spec = service["spec"]
        self._check_external(service, old)
        if spec["type"] == EXTERNAL_NAME:
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
        elif self._ranges:
            if old is not None and (causes := [*check_families(spec, old["spec"])]):
                raise invalid("Service", service["metadata"]["name"], causes)
            self._families(service)
            self._addresses(service, set(ips_of(old)) if old is not None else set())
        self._node_ports(service, old)

    def _check_external(self, service: Object, old: Object | None) -> None:
        """Problem when a new external IP would take an address from the Service, pod or node's bridge that has it, or gets it one day."""
        before = old["spec"].get("externalIPs", ()) if old is not None else ()
        for number, text in enumerate(service["spec"].get("externalIPs", ())):
            ip = ipaddress.ip_address(text)
            taken = [(cidr, "cluster IPs of Services") for cidr in self._cidrs(f"IPv{ip.version}")]
            taken += [(cidr, "those of pods") for cidr in self._cluster_cidrs]
            for cidr, whose in taken if text not in before else ():
                if ip in cidr:
                    why = f"may not be in {cidr}, whose addresses are {whose}"
                    raise _refusal(service, Cause.invalid(f"spec.externalIPs[{number}]", text, why))

    @property
    def _versions(self) -> list[str]:
        """The families of the cluster, its first one first."""
        ordered = sorted(self._ranges.items(), key=lambda item: (item[0] != "kubernetes", item[0]))
        return list(dict.fromkeys(f"IPv{cidr.version}" for _, cidrs in ordered for cidr in cidrs))

    def _families(self, service: Object) -> None:
        spec, available = service["spec"], self._versions
        asked = [ip for ip in spec.get("clusterIPs", ()) if ip != HEADLESS]
        families: list[str] = spec.get("ipFamilies") or [f"IPv{ipaddress.ip_address(ip).version}" for ip in asked]
        selectorless = spec.get("clusterIP") == HEADLESS and not spec.get("selector")
        default = REQUIRE if len(families) > 1 or len(asked) > 1 or (selectorless and len(available) > 1) else SINGLE
        policy = spec.setdefault("ipFamilyPolicy", default)
        for number, family in enumerate(families):
            if family not in available:
                why = "not configured on this cluster"
                raise _refusal(service, Cause.invalid(f"spec.ipFamilies[{number}]", family, why))
        if policy == REQUIRE and len(available) < 2:
            why = "this cluster is not configured for dual-stack services"
            raise _refusal(service, Cause.invalid("spec.ipFamilyPolicy", policy, why))
        if policy == SINGLE and len(families) > 1:
            why = "when multiple ipFamilies are specified this must be PreferDualStack or RequireDualStack"
            raise _refusal(service, Cause.invalid("spec.ipFamilyPolicy", policy, why))
        families = families or available[:1]
        if policy != SINGLE:
            families = [*families, *(family for family in available if family not in families)]
        spec["ipFamilies"] = families[: 1 if policy == SINGLE else 2]

    def _addresses(self, service: Object, own: set[str]) -> None:
        spec = service["spec"]
        if spec.get("clusterIP") == HEADLESS:
            spec["clusterIPs"] = [HEADLESS]
            return
        asked = list(spec.get("clusterIPs", ()))
        for number, ip in enumerate(asked):
            if number < len(spec["ipFamilies"]) and f"IPv{ipaddress.ip_address(ip).version}" != spec["ipFamilies"][number]:
                why = f"expected an {spec['ipFamilies'][number]} value as indicated by `ipFamilies[{number}]`"
                raise _refusal(service, Cause.invalid(f"spec.clusterIPs[{number}]", ip, why))
            if ip not in own:
                self._check(service, ip)
        ips = [str(ipaddress.ip_address(ip)) for ip in asked[: len(spec["ipFamilies"])]]
        ips += [self._free(service, family) for family in spec["ipFamilies"][len(ips) :]]
        spec["clusterIP"], spec["clusterIPs"] = ips[0], ips

    def _cidrs(self, family: str) -> list[IPNetwork]:
        """The ranges of a family, the cluster's first one first."""
        return [cidr for _, cidr in self._named(family)]

    def _open_cidrs(self, family: str) -> list[IPNetwork]:
        """Those of which addresses are given."""
        return [cidr for name, cidr in self._named(family) if name not in self._closed]

    def _named(self, family: str) -> Iterator[tuple[str, IPNetwork]]:
        ordered = sorted(self._ranges.items(), key=lambda item: (item[0] != "kubernetes", item[0]))
        return ((name, cidr) for name, cidrs in ordered for cidr in cidrs if f"IPv{cidr.version}" == family)

    def _check(self, service: Object, text: str) -> None:
        """Problem unless this address can be the Service's."""
        ip = ipaddress.ip_address(text)
        ranges = self._open_cidrs(f"IPv{ip.version}")
        why = ""
        if not any(ip in cidr and _first(cidr) <= int(ip) <= _last(cidr) for cidr in ranges):
            valid = ", ".join(map(str, ranges)) or "none"
            why = f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {valid}"
        elif self._ips[str(ip)] > 0:
            why = "provided IP is already allocated"
        if why:
            cause = Cause.invalid("spec.clusterIPs", [text], f"failed to allocate IP {text}: {why}")
            raise _refusal(service, cause)

    def _free(self, service: Object, family: str) -> str:
        """The next free address, from the part that is not left to explicit requests while that has some."""
        for cidr in self._open_cidrs(family):
            first, last = _first(cidr), _last(cidr)
            size = last - first + 1
            dynamic = first + min(max(16, size // 16), 256) if size > 16 else first
            start = self._next_ip.get(cidr, dynamic)
            parts = (range(start, last + 1), range(dynamic, start), range(first, dynamic))
            for number in itertools.chain(*parts):
                ip = str(ipaddress.IPv4Address(number) if cidr.version == 4 else ipaddress.IPv6Address(number))
                if self._ips[ip] <= 0:
                    self._next_ip[cidr] = number + 1 if number < last else dynamic
                    return ip
        ranges, name = ", ".join(map(str, self._open_cidrs(family))), service["metadata"]["name"]
        why = f"all of {ranges} are in use" if ranges else "its ServiceCIDRs are being deleted"
        raise Problem("Forbidden", f"Service {name!r} gets no {family} address: {why}: add a ServiceCIDR")

    # Node ports.

    def _node_ports(self, service: Object, old: Object | None) -> None:
        spec = service["spec"]
        if spec["type"] not in EXPOSED:
            return
        own = set(ports_of(old)) if old is not None else set()
        wants = spec["type"] == "NodePort" or (
            spec["type"] == LOAD_BALANCER and spec.get("allocateLoadBalancerNodePorts", True)
        )
        taken_now: set[tuple[str, int]] = set()
        for number, port in enumerate(spec.get("ports", ())):
            if port.get("nodePort"):
                self._check_port(service, f"spec.ports[{number}].nodePort", port, own, taken_now)
                taken_now.add((port["protocol"], port["nodePort"]))
        for port in spec.get("ports", ()):
            if wants and not port.get("nodePort"):
                port["nodePort"] = self._free_port(service, port, spec["ports"], taken_now)
                taken_now.add((port["protocol"], port["nodePort"]))
        if has_health_check(spec):
            check = {"protocol": "TCP", "nodePort": spec.get("healthCheckNodePort", 0)}
            if check["nodePort"]:
                self._check_port(service, "spec.healthCheckNodePort", check, own, taken_now)
            else:
                spec["healthCheckNodePort"] = self._free_port(service, check, (), taken_now)

    def _check_port(
        self, service: Object, path: str, port: Object, own: set[tuple[str, int]], now: set[tuple[str, int]]
    ) -> None:
        number, identity = port["nodePort"], (port["protocol"], port["nodePort"])
        if not FIRST_PORT <= number <= LAST_PORT:
            why = f"provided port is not in the valid range. The range of valid ports is {FIRST_PORT}-{LAST_PORT}"
            raise _refusal(service, Cause.invalid(path, number, why))
        if (self._ports[identity] > 0 and identity not in own) or identity in now:
            raise _refusal(service, Cause.invalid(path, number, "provided port is already allocated"))

    def _free_port(self, service: Object, port: Object, ports: Any, now: set[tuple[str, int]]) -> int:
        """That of the same port number by another protocol, so that both are the same; else the next free one."""
        for other in ports:
            same = other.get("port") == port.get("port") and other.get("nodePort")
            if same and self._ports[port["protocol"], same] <= 0 and (port["protocol"], same) not in now:
                return int(same)
        dynamic = FIRST_PORT + STATIC_PORTS
        parts = (range(self._next_port, LAST_PORT + 1), range(dynamic, self._next_port), range(FIRST_PORT, dynamic))
        for number in itertools.chain(*parts):
            taken = any(self._ports[protocol, number] > 0 or (protocol, number) in now for protocol in ("TCP", "UDP", "SCTP"))
            if not taken:
                self._next_port = number + 1 if number < LAST_PORT else dynamic
                return number
        name = service["metadata"]["name"]
        raise Problem("Forbidden", f"Service {name!r} gets no node port: all of {FIRST_PORT}-{LAST_PORT} are in use")


def ips_of(service: Object) -> Iterator[str]:
    """The cluster IPs of a Service."""
    return (ip for ip in service["spec"].get("clusterIPs", ()) if ip != HEADLESS)


def ports_of(service: Object) -> Iterator[tuple[str, int]]:
    """(protocol, number) of the node ports of a Service."""
    for port in service["spec"].get("ports", ()) if service["spec"].get("type") in EXPOSED else ():
        if port.get("nodePort"):
            yield port.get("protocol", "TCP"), port["nodePort"]
    if service["spec"].get("healthCheckNodePort"):
        yield "TCP", service["spec"]["healthCheckNodePort"]


def _first(cidr: IPNetwork) -> int:
    """The first address that can be given: not that of the network itself."""
    return int(cidr.network_address) + 1


def _last(cidr: IPNetwork) -> int:
    """The last one: of IPv4, not the broadcast address."""
    return int(cidr.broadcast_address) - (1 if cidr.version == 4 and cidr.prefixlen < 31 else 0)


def _refusal(service: Object, cause: Cause) -> Problem:
    return invalid("Service", service["metadata"]["name"], [cause])

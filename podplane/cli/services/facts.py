"""What is known of a Service: objects of the API, and what each node's agent says of its tables and connections. Pure."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Object = dict[str, Any]
Count = tuple[int, int]
"""Connections, bytes."""
SERVICE_NAME = "kubernetes.io/service-name"
LEFT_TO_OTHERS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
"""Labels of Services that podplane does nothing for, and of EndpointSlices that it does not use."""
OUR_CLASS = "podplane.dev/load-balancer"
READY, LAST, ENDING, NOT_READY, IN_RANGE, NO_ADDRESS, OF_OTHERS = (
    "ready",
    "terminating, serves still",
    "terminating",
    "not ready",
    "not used: in the Service range",
    "not used: a name, no address",
    "not used: its EndpointSlice is labelled for others",
)
"""States of endpoints, the best first."""
STATES = (READY, LAST, ENDING, NOT_READY, IN_RANGE, NO_ADDRESS, OF_OTHERS)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint by its first address, and the (name, protocol) of its ports."""

    address: str
    pod: str
    node: str
    zone: str
    state: str
    ports: frozenset[tuple[str, str]] = frozenset()

    @property
    def serves(self) -> bool:
        """May it get connections? One that ends gets them where there is no ready one (KEP-1669)."""
        return self.state in (READY, LAST)


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning about the Service, and how long ago it was said last."""

    reason: str
    message: str
    seconds_ago: float


@dataclass(frozen=True, slots=True)
class Facts:
    """One Service. `nodes` says of each node what it does for it (None: no answer, `silent` says why), `rows` are the nodes' tracked
    connections."""

    service: Object
    slices: Sequence[Object]
    nodes: Mapping[str, Object | None] = field(default_factory=dict)
    rows: Sequence[Object] = ()
    healthy: Mapping[str, bool] = field(default_factory=dict)
    pods: Sequence[Object] = ()
    announced_by: str = ""
    warnings: Sequence[Warned] = ()
    service_cidrs: Sequence[str] = ()
    node_ips: Mapping[str, Sequence[str]] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """`namespace/name`."""
        return path_of(self.service)

    @property
    def spec(self) -> Object:
        """What it is to be."""
        spec: Object = self.service["spec"]
        return spec

    @property
    def left_by(self) -> str:
        """The label that leaves it to others; "" when none does."""
        labels = self.service["metadata"].get("labels", {})
        return next((label for label in LEFT_TO_OTHERS if label in labels), "")

    def has_family(self, ip: str) -> bool:
        """Is this an address of one of its families?"""
        return ("IPv6" if ":" in ip else "IPv4") in (self.spec.get("ipFamilies") or ("IPv4", "IPv6"))

    @property
    def is_served(self) -> bool:
        """Has it addresses that nodes serve?"""
        return not self.left_by and self.spec["type"] != "ExternalName" and not is_headless(self.service)

    def endpoints(self) -> list[Endpoint]:
        """Its endpoints, each once: ready ones first, by family and address."""
        networks = [ipaddress.ip_network(cidr) for cidr in self.service_cidrs]
        found: dict[str, Endpoint] = {}
        others = () if is_headless(self.service) else LEFT_TO_OTHERS  # those of a headless Service are labelled so
        for one in (one for slice_ in self.slices for one in _endpoints(slice_, networks, others)):
            other = found.get(one.address, one)
            state = min(one.state, other.state, key=STATES.index)
            found[one.address] = replace(one, state=state, ports=one.ports | other.ports)
        return sorted(found.values(), key=lambda one: (STATES.index(one.state), *numeric(one.address)))

    def counts(self, *columns: str) -> dict[tuple[Any, ...], Count]:
        """Its connections by these columns: those that were sent to its frontends, and went on to endpoints that it has."""
        ends = set(_ends(self.slices))
        sums: dict[tuple[Any, ...], Count] = defaultdict(lambda: (0, 0))
        for row in self.rows:
            if row["service"] == self.path and (row["endpoint"], row["endpoint_port"], row["protocol"]) in ends:
                key = tuple(row[column] for column in columns)
                connections, octets = sums[key]
                sums[key] = (connections + row["connections"], octets + row["bytes"])
        return dict(sums)

    def node_port_ips(self, port: int, protocol: str) -> dict[str, list[str]]:
        """For each node that serves this node port, the addresses where it does."""
        own = {
            same(ip) for ip in (*cluster_ips(self.service), *self.spec.get("externalIPs", ()), *load_balancer_ips(self.service))
        }
        found: dict[str, list[str]] = {}
        for node, description in self.nodes.items():
            for one in description["frontends"] if description else ():
                is_it = (one["port"], one["protocol"]) == (port, protocol) and one["address"] not in own
                if is_it and self.has_family(one["address"]):
                    found.setdefault(node, []).append(one["address"])
        return found


def path_of(service: Object) -> str:
    """`namespace/name`."""
    return f"{service['metadata']['namespace']}/{service['metadata']['name']}"


def cluster_ips(service: Object) -> list[str]:
    """Its cluster IPs."""
    return [ip for ip in service["spec"].get("clusterIPs", ()) if ip != "None"]


def is_headless(service: Object) -> bool:
    """Has it no address of its own by its own wish?"""
    return "None" in service["spec"].get("clusterIPs", ())


def load_balancer_ips(service: Object, mode: str | None = None) -> list[str]:
    """The addresses of its load balancer, those of one mode or all."""
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return [one["ip"] for one in ingress if one.get("ip") and mode in (None, one.get("ipMode", "VIP"))]


def ready_of(endpoints: Iterable[Endpoint]) -> Count:
    """(ready ones, all), of the family that has more of them: a pod with addresses of both is one."""
    ready, all_ = [0, 0], [0, 0]
    for one in endpoints:
        family = ":" in one.address
        all_[family] += 1
        ready[family] += one.state == READY
    return max(ready), max(all_)


def numeric(address: str) -> tuple[int, int, str]:
    """By what addresses are sorted: family, number; names last."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return 7, 0, address
    return ip.version, int(ip), ""


def same(address: str) -> str:
    """An address as nodes write it: there are many ways to write one of IPv6."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _endpoints(slice_: Object, networks: Sequence[Any], others: Iterable[str]) -> Iterator[Endpoint]:
    ports = frozenset((port.get("name", ""), port.get("protocol", "TCP")) for port in slice_.get("ports") or ())
    for endpoint in slice_.get("endpoints") or ():
        reference = endpoint.get("targetRef", {})
        pod = reference.get("name", "") if reference.get("kind") == "Pod" else ""
        address, state = same(endpoint["addresses"][0]), _state(endpoint.get("conditions", {}))
        if any(label in slice_["metadata"].get("labels", {}) for label in others):
            state = OF_OTHERS
        elif slice_.get("addressType") == "FQDN":
            state = NO_ADDRESS
        elif any(ipaddress.ip_address(address) in network for network in networks):
            state = IN_RANGE
        yield Endpoint(address, pod, endpoint.get("nodeName", ""), endpoint.get("zone", ""), state, ports)


def _state(conditions: Mapping[str, bool]) -> str:
    if conditions.get("terminating"):
        return LAST if conditions.get("serving") is not False else ENDING
    return READY if conditions.get("ready") is not False else NOT_READY


def _ends(slices: Iterable[Object]) -> Iterator[tuple[str, int, str]]:
    """(address, port, protocol) of every port of every endpoint."""
    for slice_ in slices:
        ports = [(port["port"], port.get("protocol", "TCP").lower()) for port in slice_.get("ports") or () if port.get("port")]
        for endpoint in slice_.get("endpoints") or ():
            for port, protocol in ports:
                yield same(endpoint["addresses"][0]), port, protocol

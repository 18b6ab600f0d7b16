"""Addresses of load balancers: pools of them, and which one a Service gets. Pure.

A pool is a cluster-scoped object of the cluster's administrator:

    apiVersion: podplane.dev/v1
    kind: LoadBalancerPool
    metadata: {name: default}
    spec:
      addresses: [192.168.1.239-192.168.1.254, "fd00:192:168:1::f000/120"]
      serviceSelector: {matchLabels: {tier: front}}       # optional: only for Services with these labels
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from podplane.state.value import IPAddress

GROUP, VERSION, KIND, PLURAL = "podplane.dev", "v1", "LoadBalancerPool", "loadbalancerpools"
POOLS = f"{PLURAL}.{GROUP}"
CLASS = "podplane.dev/load-balancer"
"""`spec.loadBalancerClass` of Services that are ours, beside those that name none."""
WANTED_IPS = "podplane.dev/load-balancer-ips"
"""Annotation of a Service: the addresses that it asks for, comma-separated."""


class Range(NamedTuple):
    """All addresses from `first` to `last`, both of them too."""

    first: IPAddress
    last: IPAddress

    def __contains__(self, ip: object) -> bool:
        return isinstance(ip, type(self.first)) and int(self.first) <= int(ip) <= int(self.last)

    @property
    def size(self) -> int:
        """How many those are."""
        return int(self.last) - int(self.first) + 1

    def free(self, used: Collection[IPAddress]) -> IPAddress | None:
        """The first one that nobody uses."""
        candidates = (self.first + n for n in range(min(self.size, len(used) + 1)))
        return next((ip for ip in candidates if ip not in used), None)


def parse(text: str) -> Range:
    """What `192.168.1.240`, `192.168.1.240/28` or `192.168.1.240-192.168.1.250` stands for. ValueError says what is wrong with it."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    if dash:
        ends = Range(ipaddress.ip_address(first), ipaddress.ip_address(last))
        if ends.first.version != ends.last.version or int(ends.first) > int(ends.last):
            raise ValueError(f"{text!r} has no first and last address of one family")
    else:
        network = ipaddress.ip_network(first)
        ends = Range(network.network_address, network.broadcast_address)
    if any(ip.is_loopback or ip.is_multicast or ip.is_unspecified for ip in ends):
        raise ValueError(f"{text!r} has addresses that are loopback, multicast or unspecified")
    return ends


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool by name: the ranges that make sense, and what is wrong with the others."""

    name: str
    ranges: tuple[Range, ...]
    problems: tuple[str, ...] = ()

    def __contains__(self, ip: object) -> bool:
        return any(ip in one for one in self.ranges)

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return sum(one.size for one in self.ranges)

    def free(self, version: int, used: Collection[IPAddress]) -> IPAddress | None:
        """An address of this family that nobody uses."""
        of_family = (one for one in self.ranges if one.first.version == version)
        return next((ip for one in of_family if (ip := one.free(used)) is not None), None)


def pool_of(name: str, addresses: Iterable[str]) -> Pool:
    """A pool of these texts."""
    ranges, problems = [], []
    for text in addresses:
        try:
            ranges.append(parse(text))
        except ValueError as error:
            problems.append(str(error))
    return Pool(name, tuple(ranges), tuple(problems))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a Service wants: an address of each of these families, those that it asks for by name, and those that it has."""

    versions: tuple[int, ...]
    wanted: tuple[IPAddress, ...] = ()
    has: tuple[IPAddress, ...] = ()


class Grant(NamedTuple):
    """What it gets, and why not all of it."""

    ips: tuple[IPAddress, ...]
    problems: tuple[str, ...]


def is_settled(claim: Claim, pools: Sequence[Pool], taken: Collection[IPAddress]) -> bool:
    """Does it have what it wants, all of it from these pools and not `taken` by a machine?"""
    rightful = all(any(ip in pool for pool in pools) and ip not in taken for ip in claim.has)
    if claim.wanted:
        return rightful and set(claim.has) == set(claim.wanted)
    return rightful and sorted(ip.version for ip in claim.has) == sorted(claim.versions)


def grant(claim: Claim, pools: Sequence[Pool], used: Collection[IPAddress]) -> Grant:
    """Addresses for a Service: those that it asks for, those that it has, else free ones; `used` are those of everybody else."""
    ips: list[IPAddress] = []
    problems: list[str] = []
    for version in claim.versions:
        asked = [ip for ip in claim.wanted if ip.version == version]
        kept = [ip for ip in claim.has if ip.version == version and not claim.wanted and _why_not(ip, pools, used) == ""]
        for ip in asked:
            why = _why_not(ip, pools, used)
            (problems if why else ips).append(why or ip)  # type: ignore[arg-type]  # each to its own
        if kept:
            ips.append(kept[0])
        elif not claim.wanted:
            found = next((free for pool in pools if (free := pool.free(version, used)) is not None), None)
            if found is not None:
                ips.append(found)
            else:
                problems.append(_nothing_left(version, pools))
    return Grant(tuple(ips), tuple(problems))


def _why_not(ip: IPAddress, pools: Sequence[Pool], used: Collection[IPAddress]) -> str:
    if not any(ip in pool for pool in pools):
        return f"{ip} is in no pool for this Service: add it to a {KIND}"
    return f"{ip} is in use already: ask for another one" if ip in used else ""


def _nothing_left(version: int, pools: Sequence[Pool]) -> str:
    names = ", ".join(pool.name for pool in pools if any(one.first.version == version for one in pool.ranges))
    if not names:
        return f"there is no {KIND} with IPv{version} addresses for this Service: make one"
    return f"all IPv{version} addresses of {names} are in use: add some to a {KIND}"


def texts(ips: Iterable[IPAddress]) -> Iterator[str]:
    """Addresses as text."""
    return map(str, ips)


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    requirement = {
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": {"type": "string"},
            "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            "values": {"type": "array", "items": {"type": "string"}},
        },
    }
    selector = {
        "type": "object",
        "description": "Only Services with these labels get addresses of this pool; all, when there is none.",
        "properties": {"matchLabels": labels, "matchExpressions": {"type": "array", "items": requirement}},
    }
    addresses = {
        "type": "array",
        "minItems": 1,
        "description": "Addresses that nobody else uses: one, a CIDR, or first-last.",
        "items": {"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3}|-[0-9a-fA-F:.]+)?$"},
    }
    spec = {"type": "object", "required": ["addresses"], "properties": {"addresses": addresses, "serviceSelector": selector}}
    counts = {"type": "object", "properties": {"addresses": {"type": "string"}, "inUse": {"type": "integer"}}}
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": counts}}
    column = {"type": "string", "jsonPath": ".spec.addresses"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": POOLS},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["lbpool"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": "In use", "type": "integer", "jsonPath": ".status.inUse"},
                        {"name": "Of", "type": "string", "jsonPath": ".status.addresses"},
                        {"name": "Addresses", **column},
                    ],
                }
            ],
        },
    }

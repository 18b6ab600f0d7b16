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

import functools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from podplane.services.ranges import Range, Taken, merged, of_network, overlap, parse, without
from podplane.state.value import IPAddress, IPNetwork

GROUP, VERSION, KIND, PLURAL = "podplane.dev", "v1", "LoadBalancerPool", "loadbalancerpools"
POOLS = f"{PLURAL}.{GROUP}"
CLASS = "podplane.dev/load-balancer"
"""`spec.loadBalancerClass` of Services that are ours, beside those that name none."""
WANTED_IPS = "podplane.dev/load-balancer-ips"
"""Annotation of a Service: the addresses that it asks for, comma-separated."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool by name: the ranges whose addresses can be given, and what is wrong with the others."""

    name: str
    ranges: tuple[Range, ...]
    problems: tuple[str, ...] = ()

    def __contains__(self, ip: object) -> bool:
        return any(ip in one for one in self.ranges)

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return sum(one.size for one in merged(self.ranges))

    def in_use(self, taken: Taken[Any]) -> int:
        """How many of them are taken."""
        return sum(taken.count(one) for one in merged(self.ranges))

    def free(self, version: int, taken: Taken[Any]) -> IPAddress | None:
        """An address of this family that nobody has."""
        of_family = (one for one in self.ranges if one.first.version == version)
        return next((ip for one in of_family if (ip := taken.free(one)) is not None), None)


def pool_of(name: str, addresses: Iterable[str], networks: Mapping[str, Sequence[IPNetwork]] | None = None) -> Pool:
    """A pool of these texts, without the addresses of `networks`, which are by whose they are ("pods")."""
    ranges: list[Range] = []
    problems: list[str] = []
    for text in addresses:
        try:
            left = [whole := parse(text)]
        except ValueError as error:
            problems.append(str(error))
            continue
        for whose, theirs in (networks or {}).items():
            others = [network for network in theirs if overlap(whole, of_network(network))]
            left = functools.reduce(_cut, others, left)
            if others:
                problems.append(f"{text!r} has addresses of {others[0]}, which are those of {whose}: they are not given")
        ranges += left
    return Pool(name, tuple(ranges), tuple(problems))


def _cut(ranges: list[Range], network: IPNetwork) -> list[Range]:
    return [rest for one in ranges for rest in without(one, of_network(network))]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a Service wants: an address of each of these families, those that it asks for by name, and those that it has.

    `who` it is among those who have addresses.
    """

    versions: tuple[int, ...]
    wanted: tuple[IPAddress, ...] = ()
    has: tuple[IPAddress, ...] = ()
    who: Hashable = None


class Grant(NamedTuple):
    """What it gets, and why not all of it."""

    ips: tuple[IPAddress, ...]
    problems: tuple[str, ...]


def is_settled(claim: Claim, pools: Sequence[Pool], taken: Taken[Any]) -> bool:
    """Does it have what it wants, all of it from these pools and for itself?"""
    rightful = all(_why_not(ip, claim, pools, taken) == "" for ip in claim.has)
    return rightful and not is_lacking(claim)


def is_lacking(claim: Claim) -> bool:
    """Has it other addresses than it wants, or less?"""
    if claim.wanted:
        return set(claim.has) != set(claim.wanted)
    return sorted(ip.version for ip in claim.has) != sorted(claim.versions)


def grant(claim: Claim, pools: Sequence[Pool], taken: Taken[Any]) -> Grant:
    """Addresses for a Service: those that it asks for, those that it has, else free ones, of the first pool that has one."""
    ips: list[IPAddress] = []
    problems: list[str] = []
    for version in claim.versions:
        asked = [ip for ip in claim.wanted if ip.version == version]
        kept = [ip for ip in claim.has if ip.version == version and not claim.wanted and not _why_not(ip, claim, pools, taken)]
        for ip in asked:
            why = _why_not(ip, claim, pools, taken)
            (problems if why else ips).append(why or ip)  # type: ignore[arg-type]  # each to its own
        if kept:
            ips.append(kept[0])
        elif not claim.wanted:
            found = next((free for pool in pools if (free := pool.free(version, taken)) is not None), None)
            if found is not None:
                ips.append(found)
            else:
                problems.append(_nothing_left(version, pools))
    return Grant(tuple(ips), tuple(problems))


def _why_not(ip: IPAddress, claim: Claim, pools: Sequence[Pool], taken: Taken[Any]) -> str:
    if not any(ip in pool for pool in pools):
        return f"{ip} is in no pool for this Service: add it to a {KIND}"
    return f"{ip} is in use already: ask for another one" if taken.who(ip) - {claim.who} else ""


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
        "description": "Only Services with these labels get addresses of this pool, and rather of it than of one for all.",
        "properties": {"matchLabels": labels, "matchExpressions": {"type": "array", "items": requirement}},
    }
    addresses = {
        "type": "array",
        "minItems": 1,
        "description": "Addresses that nobody else uses: one, a CIDR, or first-last.",
        "items": {"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3}|-[0-9a-fA-F:.]+)?$"},
    }
    spec = {"type": "object", "required": ["addresses"], "properties": {"addresses": addresses, "serviceSelector": selector}}
    problems = {"type": "array", "description": "Why some addresses are not given.", "items": {"type": "string"}}
    counts = {"addresses": {"type": "string"}, "inUse": {"type": "integer"}, "problems": problems}
    status = {"type": "object", "properties": counts}
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": status}}
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

"""Addresses of load balancers: pools, and their allocation to Services. Pure.

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
from typing import Any, NamedTuple

import msgspec

from podplane.services.ranges import Allocated, Range, merged, of_network, overlap, parse, without
from podplane.state.value import IPAddress, IPNetwork

GROUP, VERSION, KIND, PLURAL = "podplane.dev", "v1", "LoadBalancerPool", "loadbalancerpools"
POOLS = f"{PLURAL}.{GROUP}"
CLASS = "podplane.dev/load-balancer"
"""`spec.loadBalancerClass` of the Services that podplane advertises; it also advertises those without a class."""
WANTED_IPS = "podplane.dev/load-balancer-ips"
"""Annotation of a Service: the addresses that it requests, comma-separated."""


class Pool(msgspec.Struct, frozen=True):
    """A pool: the ranges whose addresses can be allocated, and why the others can not."""

    name: str
    ranges: tuple[Range, ...]
    problems: tuple[str, ...] = ()

    def __contains__(self, ip: object) -> bool:
        return any(ip in one for one in self.ranges)

    @property
    def size(self) -> int:
        """The number of its addresses."""
        return sum(one.size for one in merged(self.ranges))

    def in_use(self, allocated: Allocated[Any]) -> int:
        """How many of its addresses are allocated."""
        return sum(allocated.count(one) for one in merged(self.ranges))

    def free(self, version: int, allocated: Allocated[Any]) -> IPAddress | None:
        """The first free address of this IP version; None when there is none."""
        of_family = (one for one in self.ranges if one.first.version == version)
        return next((ip for one in of_family if (ip := allocated.free(one)) is not None), None)


def pool_of(name: str, addresses: Iterable[str], networks: Mapping[str, Sequence[IPNetwork]] | None = None) -> Pool:
    """The pool of these addresses, without those in `networks` (what uses them, "pods" → its networks)."""
    ranges: list[Range] = []
    problems: list[str] = []
    for text in addresses:
        try:
            left = [whole := parse(text)]
        except ValueError as error:
            problems.append(str(error))
            continue
        for user, theirs in (networks or {}).items():
            others = [network for network in theirs if overlap(whole, of_network(network))]
            left = functools.reduce(_cut, others, left)
            if others:
                problems.append(f"{text!r} has addresses of {others[0]}, which are those of {user}: they are not given")
        ranges += left
    return Pool(name, tuple(ranges), tuple(problems))


def _cut(ranges: list[Range], network: IPNetwork) -> list[Range]:
    return [rest for one in ranges for rest in without(one, of_network(network))]


class AddressRequest(msgspec.Struct, frozen=True):
    """What a Service needs: an address of each of these IP versions, or the `wanted` ones; `current` are those that it has.

    `owner` is the Service as an owner of allocated addresses.
    """

    versions: tuple[int, ...]
    wanted: tuple[IPAddress, ...] = ()
    current: tuple[IPAddress, ...] = ()
    owner: Hashable = None


class Allocation(NamedTuple):
    """The addresses that a Service gets, and why it does not get others."""

    ips: tuple[IPAddress, ...]
    problems: tuple[str, ...]


def is_settled(request: AddressRequest, pools: Sequence[Pool], allocated: Allocated[Any]) -> bool:
    """Does the Service have the addresses that it requests, from these pools and shared with no other owner?"""
    are_valid = all(_rejection(ip, request, pools, allocated) == "" for ip in request.current)
    return are_valid and not is_lacking(request)


def is_lacking(request: AddressRequest) -> bool:
    """Does the Service have other addresses than it requests, or too few?"""
    if request.wanted:
        return set(request.current) != set(request.wanted)
    return sorted(ip.version for ip in request.current) != sorted(request.versions)


def allocate(request: AddressRequest, pools: Sequence[Pool], allocated: Allocated[Any]) -> Allocation:
    """Addresses for a Service: those that it requests, or its current ones, or free ones of the first pool that has one."""
    ips: list[IPAddress] = []
    problems: list[str] = []
    for version in request.versions:
        requested = [ip for ip in request.wanted if ip.version == version]
        current = [ip for ip in request.current if ip.version == version and not request.wanted]
        kept = [ip for ip in current if not _rejection(ip, request, pools, allocated)]
        for ip in requested:
            why = _rejection(ip, request, pools, allocated)
            (problems if why else ips).append(why or ip)  # type: ignore[arg-type]  # each to its own
        if kept:
            ips.append(kept[0])
        elif not request.wanted:
            found = next((free for pool in pools if (free := pool.free(version, allocated)) is not None), None)
            if found is not None:
                ips.append(found)
            else:
                problems.append(_exhausted(version, pools))
    return Allocation(tuple(ips), tuple(problems))


def _rejection(ip: IPAddress, request: AddressRequest, pools: Sequence[Pool], allocated: Allocated[Any]) -> str:
    if not any(ip in pool for pool in pools):
        return f"{ip} is in no pool for this Service: add it to a {KIND}"
    return f"{ip} is in use already: ask for another one" if allocated.owners(ip) - {request.owner} else ""


def _exhausted(version: int, pools: Sequence[Pool]) -> str:
    names = ", ".join(pool.name for pool in pools if any(one.first.version == version for one in pool.ranges))
    if not names:
        return f"there is no {KIND} with IPv{version} addresses for this Service: make one"
    return f"all IPv{version} addresses of {names} are in use: add some to a {KIND}"


def texts(ips: Iterable[IPAddress]) -> Iterator[str]:
    """The addresses as text."""
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
        "description": "Only Services with these labels get addresses of this pool; it comes before pools for all Services.",
        "properties": {"matchLabels": labels, "matchExpressions": {"type": "array", "items": requirement}},
    }
    addresses = {
        "type": "array",
        "minItems": 1,
        "description": "Addresses that nothing else uses: one, a CIDR, or first-last.",
        "items": {"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3}|-[0-9a-fA-F:.]+)?$"},
    }
    spec = {"type": "object", "required": ["addresses"], "properties": {"addresses": addresses, "serviceSelector": selector}}
    problems = {"type": "array", "description": "Why some addresses are not allocated.", "items": {"type": "string"}}
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

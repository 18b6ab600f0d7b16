"""ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2): served from the start, as its published definition has it.

The schema is that of the experimental channel of network-policy-api. Its rules in CEL are here in Python; selectors are checked as those of
NetworkPolicies are, and domain names as peers are refused: nodes do not enforce them.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from podplane.apiserver.kinds import custom, names
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.problems import Cause
from podplane.apiserver.wire import DATA

Object = dict[str, Any]
SIDES = (("ingress", "from"), ("egress", "to"))
UNNAMED = ("networks", "nodes", "domainNames")
"""Peers whose ports have no names."""
LENGTH = re.compile("0|[1-9][0-9]{0,2}")


def row() -> Resource:
    """The row of the table of kinds."""
    (found,) = custom.rows(msgspec.json.decode((DATA / "clusternetworkpolicies.json").read_bytes())["definition"])
    return dataclasses.replace(found, check=check)


def check(policy: Object, old: Object | None) -> Iterator[Cause]:
    """What the schema doesn't say."""
    spec = policy["spec"]
    yield from _check_pods(spec["subject"], "spec.subject")
    for direction, side in SIDES:
        for i, rule in enumerate(spec.get(direction, ())):
            where = f"spec.{direction}[{i}]"
            for j, peer in enumerate(rule[side]):
                yield from _check_peer(peer, f"{where}.{side}[{j}]")
            protocols = rule.get("protocols", ())
            for j, protocol in enumerate(protocols):
                yield from _check_range(protocol, f"{where}.protocols[{j}]")
            if any("destinationNamedPort" in one for one in protocols):
                yield from _check_named(rule[side], where)


def _check_named(peers: list[Object], path: str) -> Iterator[Cause]:
    unnamed = next((field for peer in peers for field in UNNAMED if field in peer), None)
    if unnamed is not None:
        why = "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames"
        yield Cause.invalid(path, unnamed, why)


def _check_peer(peer: Object, path: str) -> Iterator[Cause]:
    yield from _check_pods(peer, path)
    if "nodes" in peer:
        yield from names.check_selector(peer["nodes"], f"{path}.nodes")
    for i, cidr in enumerate(peer.get("networks", ())):
        if not _is_cidr(cidr):
            yield Cause.invalid(f"{path}.networks[{i}]", cidr, "Invalid CIDR format provided")
    if "domainNames" in peer:
        yield Cause.forbidden(f"{path}.domainNames", "domain names are not enforced here (yet): say networks instead")


def _check_pods(peer: Object, path: str) -> Iterator[Cause]:
    if "namespaces" in peer:
        yield from names.check_selector(peer["namespaces"], f"{path}.namespaces")
    for field, selector in peer.get("pods", {}).items():
        yield from names.check_selector(selector, f"{path}.pods.{field}")


def _check_range(protocol: Object, path: str) -> Iterator[Cause]:
    for name in ("tcp", "udp", "sctp"):
        numbers = protocol.get(name, {}).get("destinationPort", {}).get("range")
        if numbers is not None and numbers["start"] >= numbers["end"]:
            where = f"{path}.{name}.destinationPort.range"
            yield Cause.invalid(where, f"{numbers['start']}-{numbers['end']}", "Start port must be less than End port")


def _is_cidr(text: str) -> bool:
    """As CEL's isCIDR: bits beyond the length may be set; zones and IPv4-mapped addresses may not be there (apiserver/pkg/cel/library)."""
    address, _, length = text.partition("/")
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if "%" in address or getattr(ip, "ipv4_mapped", None) is not None:
        return False
    return bool(LENGTH.fullmatch(length)) and int(length) <= ip.max_prefixlen

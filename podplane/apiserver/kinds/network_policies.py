"""NetworkPolicy: defaults and rules (networking/v1/defaults.go, apis/networking/validation)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from typing import Any

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.addresses import check_cidr, cidr_warnings
from podplane.apiserver.problems import Cause
from podplane.model.policy import PROTOCOLS, network

Object = dict[str, Any]
TYPES = ("Ingress", "Egress")
SIDES = (("ingress", "from"), ("egress", "to"))


def complete(policy: Object) -> None:
    """policyTypes: Ingress, and Egress when there are rules for it."""
    spec = policy.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress"] + (["Egress"] if spec.get("egress") else [])
    for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]:
        for port in rule.get("ports", ()):
            port.setdefault("protocol", "TCP")


def check(policy: Object, old: Object | None) -> Iterator[Cause]:
    """NetworkPolicy. What was stored before and would be refused today may stay: CIDRs, and values in selectors."""
    spec, known = policy["spec"], frozenset(() if old is None else _cidrs(old["spec"]))
    any_values = old is not None and any(names.check_selector(old["spec"].get("podSelector", {}), ""))
    yield from names.check_selector(spec["podSelector"], "spec.podSelector", any_values=any_values)
    for direction, side in SIDES:
        for i, rule in enumerate(spec.get(direction, ())):
            where = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports", ())):
                yield from _check_port(port, f"{where}.ports[{j}]")
            for j, peer in enumerate(rule.get(side, ())):
                yield from _check_peer(peer, f"{where}.{side}[{j}]", known, any_values=any_values)
    if len(spec["policyTypes"]) > len(TYPES):
        yield Cause.invalid("spec.policyTypes", spec["policyTypes"], "may not specify more than two policyTypes")
        return
    for i, kind in enumerate(spec["policyTypes"]):
        if kind not in TYPES:
            yield Cause.unsupported(f"spec.policyTypes[{i}]", kind, TYPES)


def warnings(policy: Object) -> Iterator[str]:
    """Networks that are valid and written otherwise than they should be (registry/networking/networkpolicy, networkPolicyWarnings)."""
    for direction, side in SIDES:
        for i, rule in enumerate(policy["spec"].get(direction, ())):
            for j, block in enumerate(peer.get("ipBlock") for peer in rule.get(side, ())):
                path = f"spec.{direction}[{i}].{side}[{j}].ipBlock"
                if block is not None:
                    yield from cidr_warnings(block["cidr"], f"{path}.cidr")
                    for k, part in enumerate(block.get("except", ())):
                        yield from cidr_warnings(part, f"{path}.except[{k}]")


def _check_port(port: Object, path: str) -> Iterator[Cause]:
    number, end, where = port.get("port"), port.get("endPort"), f"{path}.endPort"
    if port["protocol"] not in PROTOCOLS:
        yield Cause.unsupported(f"{path}.protocol", port["protocol"], PROTOCOLS)
    if isinstance(number, int):
        yield from names.check_port(number, f"{path}.port")
        if end is not None and end < number:
            yield Cause.invalid(where, end, "must be greater than or equal to `port`")
        if end is not None:
            yield from names.check_port(end, where)
        return
    if end is not None:
        how = "not specified" if number is None else "non-numeric"
        yield Cause.invalid(where, end, f"may not be specified when `port` is {how}")
    if number is not None:
        yield from names.check_port(number, f"{path}.port", named=True)


def _check_peer(peer: Object, path: str, known: Collection[str], *, any_values: bool) -> Iterator[Cause]:
    for field in ("podSelector", "namespaceSelector"):
        if field in peer:
            yield from names.check_selector(peer[field], f"{path}.{field}", any_values=any_values)
    if "ipBlock" in peer:
        yield from _check_block(peer["ipBlock"], f"{path}.ipBlock", known)
    if not peer:
        yield Cause.required(path, "must specify a peer")
    elif "ipBlock" in peer and len(peer) > 1:
        yield Cause.forbidden(path, "may not specify both ipBlock and another peer")


def _check_block(block: Object, path: str, known: Collection[str]) -> Iterator[Cause]:
    cidr = block.get("cidr", "")
    if not cidr:
        yield Cause.required(f"{path}.cidr")
        return
    yield from check_cidr(cidr, f"{path}.cidr", known)
    for i, part in enumerate(block.get("except", ()) if _is_network(cidr) else ()):
        where = f"{path}.except[{i}]"
        yield from check_cidr(part, where, known)
        if _is_network(part) and not _is_strictly_within(part, cidr):
            yield Cause.invalid(where, part, "must be a strict subset of `cidr`")


def _is_network(text: str) -> bool:
    try:
        return bool(network(text))
    except ValueError:
        return False


def _is_strictly_within(inner: str, outer: str) -> bool:
    one, other = ipaddress.ip_network(network(inner)), ipaddress.ip_network(network(outer))
    return one.version == other.version and one != other and one.subnet_of(other)  # type: ignore[arg-type]  # one family


def _cidrs(spec: Object) -> Iterator[str]:
    for direction, side in SIDES:
        for rule in spec.get(direction, ()):
            for peer in rule.get(side, ()):
                yield peer.get("ipBlock", {}).get("cidr", "")
                yield from peer.get("ipBlock", {}).get("except", ())

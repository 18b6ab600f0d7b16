"""Hints of Services with the annotation `service.kubernetes.io/topology-mode: Auto`: each zone gets endpoints by its share of CPUs.

An endpoint is for its own zone first. A zone with more endpoints than its share gives some to zones with fewer. Where a zone would be
overloaded all the same, or too little is known of nodes and endpoints, there are no hints, and an Event says why. Pure; what comes out
depends on nodes and endpoints alone, so that deciding again changes nothing. Source: k8s.io/endpointslice, topologycache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from podplane.apiserver.controllers.pods import is_ready
from podplane.apiserver.controllers.usage import thousandths
from podplane.controllers.objects import Object

ANNOTATIONS = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")
"""The annotation, and its former name, which counts where the first is absent."""
AUTO = ("Auto", "auto")
EXCLUDED = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
"""Nodes with these labels do not count."""
ZONE = "topology.kubernetes.io/zone"
OVERLOAD = Fraction(1, 5)
"""By so much more than its share may an endpoint be loaded."""
DISABLED, ENABLED = "TopologyAwareHintsDisabled", "TopologyAwareHintsEnabled"
Shares = dict[str, Fraction]
"""Zone → its part of all CPUs."""


class Refused(Exception):
    """There can be no hints; the text is that of Kubernetes' Event."""


def is_wanted(service: Object) -> bool:
    """Does this Service ask for it?"""
    annotations = service["metadata"].get("annotations", {})
    said = next((annotations[name] for name in ANNOTATIONS if name in annotations), "")
    return said in AUTO


def what_matters(node: Object) -> object:
    """What of a node hints depend on."""
    labels = node["metadata"].get("labels", {})
    return labels.get(ZONE), [name in labels for name in EXCLUDED], is_ready(node), _cpu(node)


def _cpu(node: Object) -> int:
    return thousandths(node.get("status", {}).get("allocatable", {}).get("cpu", 0))


def shares_of(nodes: Iterable[Object]) -> Shares:
    """The shares of the zones. Refused when they are not known, or when there is only one zone."""
    by_zone: dict[str, int] = {}
    for node in nodes:
        labels = node["metadata"].get("labels", {})
        if not is_ready(node) or any(name in labels for name in EXCLUDED):
            continue
        if not labels.get(ZONE) or not _cpu(node):
            by_zone.clear()
            break
        by_zone[labels[ZONE]] = by_zone.get(labels[ZONE], 0) + _cpu(node)
    if len(by_zone) < 2:
        raise Refused("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes")
    return {zone: Fraction(cpu, sum(by_zone.values())) for zone, cpu in sorted(by_zone.items())}


def wanted_by_zone(shares: Shares, count: int) -> dict[str, Fraction]:
    """How many of so many endpoints each zone is to have. Refused when one would be overloaded."""
    known = f"({count} endpoints, {len(shares)} zones)"
    if len(shares) > count:
        raise Refused(f"Insufficient number of endpoints {known}")
    least = {zone: math.ceil(share * count / (1 + OVERLOAD)) for zone, share in shares.items()}
    if sum(least.values()) > count:
        raise Refused(
            f"Unable to allocate minimum required endpoints to each zone without exceeding overload threshold {known}"
        )
    return {zone: max(share * count, Fraction(least[zone])) for zone, share in shares.items()}


def assign(endpoints: Sequence[Object], nodes: Iterable[Object]) -> None:
    """Give the ready ones of these endpoints, all of one family, their hints. Refused when there can be none; then they have none."""
    ready = [endpoint for endpoint in endpoints if endpoint["conditions"]["ready"]]
    wanted = wanted_by_zone(shares_of(nodes), len(ready))
    if any(not endpoint.get("zone") for endpoint in ready):
        raise Refused("One or more endpoints do not have a zone specified")
    have: dict[str, int] = {}
    for endpoint in ready:
        have[endpoint["zone"]] = have.get(endpoint["zone"], 0) + 1
    gives, gets = exchange(wanted, have)
    for endpoint in ready:
        zone = endpoint["zone"]
        if gives.get(zone, 0) and gets:
            gives[zone] -= 1
            zone = gets.pop(0)
        endpoint["hints"] = {"forZones": [{"name": zone}]}


def exchange(wanted: dict[str, Fraction], have: dict[str, int]) -> tuple[dict[str, int], list[str]]:
    """How many endpoints each zone gives, and the zones that get one, once for each.

    Whoever has most too much gives to whoever lacks most, until one of them has less than half an endpoint to give or to get, or both
    have less than a whole one.
    """
    over = {zone: have.get(zone, 0) - target for zone, target in wanted.items() if have.get(zone, 0) > target}
    under = {zone: target - have.get(zone, 0) for zone, target in wanted.items() if have.get(zone, 0) < target}
    gives: dict[str, int] = {}
    gets: list[str] = []
    while over and under:
        giver, getter = max(over, key=over.__getitem__), max(under, key=under.__getitem__)
        amounts = over[giver], under[getter]
        if min(amounts) < Fraction(1, 2) or max(amounts) < 1:
            break
        gives[giver] = gives.get(giver, 0) + 1
        gets.append(getter)
        over[giver] -= 1
        under[getter] -= 1
    return gives, sorted(gets)

"""The frontends of a Service: every address and port that leads to it, and how. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from podplane.cli.services.facts import Count, Facts, Object, cluster_ips, load_balancer_ips, same

NEAR = {
    "PreferClose": "to endpoints of the same zone first",
    "PreferSameZone": "to endpoints of the same zone first",
    "PreferSameNode": "to endpoints of the same node first",
}
"""Service.spec.trafficDistribution."""


@dataclass(frozen=True, slots=True)
class Frontend:
    """One of them: its addresses (a node port has many: `everywhere` says that these are all of the nodes'), and its connections."""

    kind: str
    addresses: Sequence[str]
    port: int
    protocol: str
    count: Count
    notes: Sequence[str]
    everywhere: bool = False


def frontends(facts: Facts) -> Iterator[Frontend]:
    """All of them, port by port."""
    counts = facts.counts("address", "port", "protocol")
    vips = [(kind, ip, notes) for kind, ips, notes in _kinds(facts) for ip in ips]
    own = {same(ip) for _, ip, _ in vips}
    for port in facts.spec.get("ports", ()):
        number, protocol = port["port"], port.get("protocol", "TCP").lower()
        for kind, ip, notes in vips:
            count = counts.get((same(ip), number, protocol), (0, 0))
            yield Frontend(kind, [ip], number, protocol, count, _notes(facts, kind, ip, notes))
        if node_port := port.get("nodePort"):
            here = facts.node_port_ips(node_port, protocol)
            found = [c for (ip, p, what), c in counts.items() if (p, what) == (node_port, protocol) and ip not in own]
            count = sum(n for n, _ in found), sum(octets for _, octets in found)
            notes = _notes(facts, "node port", "", _outside(facts.spec))
            addresses = [ip for ips in here.values() for ip in ips]
            yield Frontend("node port", addresses, node_port, protocol, count, notes, _is_everywhere(facts, here))


def _kinds(facts: Facts) -> Iterator[tuple[str, Sequence[str], list[str]]]:
    spec = facts.spec
    by = [f"announced by {facts.announced_by}"] if facts.announced_by else []
    yield "cluster IP", cluster_ips(facts.service), _reach(spec, "internalTrafficPolicy")
    yield "external IP", spec.get("externalIPs", ()), _outside(spec)
    yield "load balancer", load_balancer_ips(facts.service), [*_outside(spec), *by]


def _outside(spec: Object) -> list[str]:
    return _reach(spec, "externalTrafficPolicy")


def _reach(spec: Object, policy: str) -> list[str]:
    """To which endpoints, and for how long a client keeps its own."""
    if spec.get(policy) == "Local":
        which = "to endpoints of the same node"
    else:
        which = NEAR.get(spec.get("trafficDistribution", ""), "to all endpoints")
    if spec.get("sessionAffinity") != "ClientIP":
        return [which]
    seconds = spec.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds", 10800)
    return [which, f"keeps a client's endpoint for {seconds} s"]


def _notes(facts: Facts, kind: str, ip: str, notes: list[str]) -> list[str]:
    """What is said of one address."""
    if facts.left_by:
        return ["left to others"]
    if kind != "load balancer":
        return notes
    if ip not in load_balancer_ips(facts.service, "VIP"):
        return ["not served by nodes: its ipMode is Proxy"]
    ranges = facts.spec.get("loadBalancerSourceRanges") or ()
    own = [text for text in ranges if _version(text) == ipaddress.ip_address(ip).version]
    if ranges and not own:
        return ["nobody gets in: loadBalancerSourceRanges names none of this family"]
    return [*notes, f"only from {', '.join(own)}"] if own else notes


def _version(cidr: str) -> int:
    return 6 if ":" in cidr else 4


def _is_everywhere(facts: Facts, here: dict[str, list[str]]) -> bool:
    """Are these all addresses of the nodes, in the Service's families? So it counts where no node could be asked, too."""
    answering = [node for node, description in facts.nodes.items() if description and description["frontends"]]
    return all(
        {same(ip) for ip in facts.node_ips.get(node, ()) if facts.has_family(ip)} <= set(here.get(node, ()))
        for node in answering
    )

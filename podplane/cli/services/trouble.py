"""What keeps connections from arriving at a Service, in plain words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from podplane.cli.services.facts import (
    IN_RANGE,
    NO_ADDRESS,
    OF_OTHERS,
    OUR_CLASS,
    Endpoint,
    Facts,
    Object,
    cluster_ips,
    is_headless,
    load_balancer_ips,
    ready_of,
    same,
)
from podplane.cli.tables import is_ready
from podplane.model.words import counted

RECENT_SECONDS = 150.0
"""A warning that still holds is said again within this time."""


def trouble(facts: Facts) -> Iterator[str]:
    """One line for each."""
    if facts.spec["type"] == "ExternalName":
        return
    if facts.left_by:
        yield f"its label {facts.left_by} leaves it to others: no node serves it"
        return
    endpoints = facts.endpoints()
    yield from _no_endpoint(facts, endpoints)
    yield from _not_used(endpoints)
    yield from _ports_that_lead_nowhere(facts, endpoints)
    yield from _policies(facts, endpoints)
    if facts.spec["type"] == "LoadBalancer":
        yield from _no_address(facts)
    yield from _node_ports(facts)
    yield from _not_applied(facts)
    for why, nodes in _by_reason(facts.silent).items():
        yield f"{names(nodes)} {_verb(nodes, 'does', 'do')} not answer: {why}"


def _by_reason(silent: Mapping[str, str]) -> dict[str, list[str]]:
    """Nodes with the same reason are named together."""
    found: dict[str, list[str]] = {}
    for node, why in silent.items():
        found.setdefault(why, []).append(node)
    return found


def names(nodes: Sequence[str]) -> str:
    """Names, the first and the last of many."""
    return ", ".join(nodes) if len(nodes) <= 4 else f"{nodes[0]} … {nodes[-1]} ({len(nodes)})"


def _verb(nodes: Sequence[str], one: str, many: str) -> str:
    return one if len(nodes) == 1 else many


def _no_endpoint(facts: Facts, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    then = "its name leads nowhere" if is_headless(facts.service) else "connections are refused"
    if any(one.serves for one in endpoints):
        return
    if endpoints:
        _, count = ready_of(endpoints)
        which = "its only endpoint is not ready" if count == 1 else f"none of its {count:,} endpoints is ready"
        if facts.pods:
            yield f"{which}: {_states(facts.pods)}"
        elif not all(one.state in (IN_RANGE, NO_ADDRESS, OF_OTHERS) for one in endpoints):
            yield f"{which}: {then}"
    elif not facts.spec.get("selector"):
        yield f"it has no selector and nobody made endpoints for it: {then}"
    elif not facts.pods:
        yield f"its selector matches no pod of its namespace: {then}"
    else:
        none = "which has no address" if len(facts.pods) == 1 else "none of which has an address"
        yield f"its selector matches {counted(len(facts.pods), 'pod')}, {none}: {_states(facts.pods)}"


def _states(pods: Iterable[Object]) -> str:
    """The first pods that don't serve, and their phases."""
    bad = [
        f"{p['metadata']['name']} is {p.get('status', {}).get('phase', 'Pending')}, not ready" for p in pods if not is_ready(p)
    ]
    return ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "") or "their pods say so"


def _not_used(endpoints: Iterable[Endpoint]) -> Iterator[str]:
    for state, one_is, they_are in (
        (IN_RANGE, "it lies in the Service range, where no pod is", "they lie in the Service range, where no pod is"),
        (NO_ADDRESS, "it is a name, no address", "they are names, no addresses"),
        (
            OF_OTHERS,
            "the labels of its EndpointSlice leave it to others",
            "the labels of their EndpointSlices leave them to others",
        ),
    ):
        found = [one.address for one in endpoints if one.state == state]
        if found:
            yield f"{names(found)} {_verb(found, f'is not used: {one_is}', f'are not used: {they_are}')}"


def _ports_that_lead_nowhere(facts: Facts, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    """Ports whose targetPort is a name that pods don't have, and ports that no EndpointSlice has."""
    serving = [one for one in endpoints if one.serves]
    for port in facts.spec.get("ports", ()):
        key = (port.get("name", ""), port.get("protocol", "TCP"))
        without = [one for one in serving if key not in one.ports]
        if not without:
            continue
        which, target = f"port {port['port']}/{key[1].lower()}", port.get("targetPort")
        if facts.spec.get("selector") and isinstance(target, str):
            if len(without) == len(serving):
                yield f"{which} leads to the port named {target!r}, which no pod has: connections are refused"
            else:
                pods = list(dict.fromkeys(one.pod or one.address for one in without))
                yield f"{which} leads to the port named {target!r}, which {names(pods)} {_verb(pods, 'lacks', 'lack')}"
        elif len(without) == len(serving):
            yield (
                f"no EndpointSlice has {which}" + (f" with the name {key[0]!r}" if key[0] else "") + ": connections are refused"
            )


def _policies(facts: Facts, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    here = {one.node for one in endpoints if one.serves}
    without = [node for node in facts.nodes if node not in here]
    if not without or not here:
        return
    for policy, whose in (
        ("externalTrafficPolicy", "clients from outside"),
        ("internalTrafficPolicy", "clients in the cluster"),
    ):
        if facts.spec.get(policy) == "Local" and not is_headless(facts.service):
            none = f"{_verb(without, 'has', 'have')} no ready endpoint"
            yield f"{policy} is Local, and {names(without)} {none}: {whose} are refused there"


def _no_address(facts: Facts) -> Iterator[str]:
    class_, has = facts.spec.get("loadBalancerClass", ""), load_balancer_ips(facts.service)
    if class_ not in ("", OUR_CLASS):
        if not has:
            yield f"its load balancer is left to class {class_}, which has given it no address yet"
        return
    said = [one.message for one in facts.warnings if one.reason == "NoLoadBalancerAddress"]
    if said and len(has) < max(1, len(facts.spec.get("ipFamilies", ()))):
        yield f"it waits for an address: {said[-1]}"
    elif not has:
        yield "it waits for an address: `kubectl describe service` says why, `kubectl get lbpool` shows the pools"


def _node_ports(facts: Facts) -> Iterator[str]:
    answering = [d for d in facts.nodes.values() if d and d["frontends"]]
    for port in facts.spec.get("ports", ()):
        number, protocol = port.get("nodePort"), port.get("protocol", "TCP").lower()
        if number and answering and not facts.node_port_ips(number, protocol):
            yield f"node port {number}/{protocol} is served nowhere: no node has an address in --node-port-addresses"


def _not_applied(facts: Facts) -> Iterator[str]:
    """What the agents warned of, while it holds: a conflict until all nodes have all frontends, all else while it is said again."""
    missing = _is_something_missing(facts)
    for one in facts.warnings:
        is_recent = one.seconds_ago < RECENT_SECONDS and " belongs to " not in one.message
        if one.reason == "NotApplied" and (missing or is_recent):
            yield f"{one.message} (said {_ago(one.seconds_ago)} ago)"


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _is_something_missing(facts: Facts) -> bool:
    addresses = [*cluster_ips(facts.service), *facts.spec.get("externalIPs", ()), *load_balancer_ips(facts.service, "VIP")]
    wanted = {
        (same(ip), port["port"], port.get("protocol", "TCP").lower())
        for ip in addresses
        for port in facts.spec.get("ports", ())
    }
    for description in facts.nodes.values():
        if description and wanted - {(one["address"], one["port"], one["protocol"]) for one in description["frontends"]}:
            return True
    return False

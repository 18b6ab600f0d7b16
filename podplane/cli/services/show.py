"""Services as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from podplane.cli.services.facts import Facts, Object
from podplane.cli.tables import is_ready, table

NONE = "<none>"


def overview(all_facts: Sequence[Facts]) -> str:
    """A line for each Service."""
    rows = [["NAMESPACE", "NAME", "TYPE", "ADDRESSES", "PORTS", "READY", "CONNECTIONS"]]
    for facts in all_facts:
        metadata, spec = facts.service["metadata"], facts.service["spec"]
        endpoints = facts.endpoints
        ready = sum(one.state == "ready" for one in endpoints)
        addresses = [*cluster_ips(facts.service), *spec.get("externalIPs", ()), *balanced_ips(facts.service)]
        open_ones = facts.connections(addresses)[0] if addresses else 0
        ports = ",".join(port_text(port) for port in spec.get("ports", ())) or NONE
        shown = ",".join(addresses) or spec.get("externalName") or "headless"
        rows.append(
            [metadata["namespace"], metadata["name"], spec["type"], shown, ports, f"{ready}/{len(endpoints)}", str(open_ones)]
        )
    return table(rows)


def cluster_ips(service: Object) -> list[str]:
    """Its cluster IPs."""
    return [ip for ip in service["spec"].get("clusterIPs", ()) if ip != "None"]


def balanced_ips(service: Object) -> list[str]:
    """The addresses of its load balancer."""
    return [one["ip"] for one in service.get("status", {}).get("loadBalancer", {}).get("ingress", ()) if one.get("ip")]


def port_text(port: Object) -> str:
    """`80/TCP`, with its node port where it has one: `80:30080/TCP`."""
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}"


def detail(facts: Facts) -> str:
    """Everything about one Service."""
    metadata, spec = facts.service["metadata"], facts.service["spec"]
    selector = ",".join(f"{k}={v}" for k, v in (spec.get("selector") or {}).items())
    lines = [f"Service {metadata['namespace']}/{metadata['name']}: {spec['type']}, selector {selector or NONE}"]
    for title, rows in (("Frontends", _frontends(facts)), ("Endpoints", _endpoints(facts)), ("Nodes", _nodes(facts))):
        found = list(rows)
        lines += ["", title, *("  " + line for line in (table(found) if found else NONE).splitlines())]
    problems = list(trouble(facts))
    if problems:
        lines += ["", "What is wrong", *(f"  {problem}" for problem in problems)]
    return "\n".join(lines)


def _frontends(facts: Facts) -> Iterator[list[str]]:
    spec = facts.service["spec"]
    sticky = f"keeps a client's endpoint for {_affinity_seconds(spec)} s" if spec.get("sessionAffinity") == "ClientIP" else ""
    inside = _policy(spec.get("internalTrafficPolicy"))
    outside = _policy(spec.get("externalTrafficPolicy"))
    sources = spec.get("loadBalancerSourceRanges")
    only = f"only from {','.join(sources)}" if sources else ""
    by = f"announced by {facts.announced_by}" if facts.announced_by else ""
    for port in spec.get("ports", ()):
        number, protocol = port["port"], port.get("protocol", "TCP").lower()
        for kind, addresses, words in (
            ("cluster IP", cluster_ips(facts.service), (inside, sticky)),
            ("external IP", spec.get("externalIPs", ()), (outside, sticky)),
            ("load balancer", balanced_ips(facts.service), (outside, sticky, only, by)),
        ):
            for address in addresses:
                traffic = _traffic(*facts.connections([address], number))
                yield [kind, f"{_host(address)}:{number}/{protocol}", traffic, ", ".join(filter(None, words))]
        if port.get("nodePort"):
            node_port = port["nodePort"]
            traffic = _traffic(*facts.connections(port=node_port))
            yield ["node port", f"every node:{node_port}/{protocol}", traffic, ", ".join(filter(None, (outside, sticky)))]


def _affinity_seconds(spec: Object) -> int:
    found: int = spec.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds", 10800)
    return found


def _policy(policy: str | None) -> str:
    return "to endpoints of the same node" if policy == "Local" else "to all endpoints"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _traffic(count: int, octets: int) -> str:
    """`3 connections, 1.2 MB`."""
    size, unit = float(octets), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    amount = f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
    return f"{count} connection{'s' if count != 1 else ''}, {amount}" if count else "no connections"


def _endpoints(facts: Facts) -> Iterator[list[str]]:
    for one in facts.endpoints:
        where = f"{one.node or 'no node'}" + (f" ({one.zone})" if one.zone else "")
        yield [one.address, one.pod or "no pod", where, one.state, _traffic(*facts.connections(endpoint=one.address))]


def _nodes(facts: Facts) -> Iterator[list[str]]:
    """What each node does; nodes that do the same are one line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for node, description in facts.nodes.items():
        alike.setdefault(tuple(_does(description, facts.healthy.get(node))), []).append(node)
    for what, nodes in alike.items():
        yield [_names(nodes), "; ".join(what)]


def _names(nodes: Sequence[str]) -> str:
    return ", ".join(nodes) if len(nodes) <= 4 else f"{nodes[0]} … {nodes[-1]} ({len(nodes)})"


def _does(description: Object | None, healthy: bool | None) -> Iterator[str]:
    if description is None:
        yield "does not answer"
        return
    if not description["frontends"]:
        yield "serves no address of it"
    for group, endpoints in sorted(description["groups"].items()):
        which = ", ".join(f"{_host(ip)}:{port}" for ip, port in endpoints[:4]) + (" …" if len(endpoints) > 4 else "")
        yield f"{group.partition(':')[2]} → {len(endpoints)} endpoint{'s' if len(endpoints) != 1 else ''}: {which}"
    refused = sorted({f"{one['port']}/{one['protocol']}" for one in description["frontends"] if not one["group"]})
    if refused and not description["groups"]:
        yield f"refuses {', '.join(refused)}"
    if healthy is not None:
        yield f"health check {'passes' if healthy else 'fails'}"


def trouble(facts: Facts) -> Iterator[str]:
    """What keeps connections from arriving, in plain words."""
    spec, endpoints = facts.service["spec"], facts.endpoints
    if spec["type"] == "ExternalName":
        return
    if not endpoints:
        yield from _no_endpoints(facts)
    elif not any(one.state.endswith(("ready", "still")) and not one.state.startswith("not") for one in endpoints):
        yield f"none of its {len(endpoints)} endpoints is ready: {_states(facts.pods)}"
    here = {one.node for one in endpoints if one.state == "ready"}
    for policy, whose in (
        ("externalTrafficPolicy", "clients from outside"),
        ("internalTrafficPolicy", "clients in the cluster"),
    ):
        without = [node for node in facts.nodes if node not in here]
        if spec.get(policy) == "Local" and without and endpoints:
            yield f"{policy} is Local, and {_names(without)} {_has(without)} no ready endpoint: {whose} are refused there"
    if spec["type"] == "LoadBalancer" and not balanced_ips(facts.service):
        yield "it waits for an address: `kubectl describe service` says why, `kubectl get lbpool` shows the pools"
    silent = [node for node, description in facts.nodes.items() if description is None]
    if silent:
        yield f"{_names(silent)} {'do' if len(silent) > 1 else 'does'} not answer: the agent there does not run"


def _has(nodes: Sequence[str]) -> str:
    return "have" if len(nodes) > 1 else "has"


def _no_endpoints(facts: Facts) -> Iterator[str]:
    if not facts.service["spec"].get("selector"):
        yield "it has no selector and nobody made endpoints for it: connections are refused"
    elif not facts.pods:
        yield "its selector matches no pod of its namespace: connections are refused"
    else:
        yield f"its selector matches {len(facts.pods)} pods, none of which has an address: {_states(facts.pods)}"


def _states(pods: Iterable[Object]) -> str:
    """The first pods that don't serve, and their phases."""
    bad = [
        f"{p['metadata']['name']} is {p.get('status', {}).get('phase', 'Pending')}, not ready" for p in pods if not is_ready(p)
    ]
    return ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "") or "their pods say so"

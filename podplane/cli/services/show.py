"""Services as text and as documents. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from podplane.cli.services.facts import Count, Facts, Object, cluster_ips, load_balancer_ips, ready_of
from podplane.cli.services.frontends import Frontend, frontends
from podplane.cli.services.trouble import names, trouble
from podplane.cli.tables import plain, table
from podplane.model.words import counted

NONE = "<none>"
ENDPOINTS_SHOWN = 20


def overview(all_facts: Sequence[Facts]) -> str:
    """A line for each Service."""
    rows = [["NAMESPACE", "NAME", "TYPE", "ADDRESSES", "PORTS", "READY", "CONNECTIONS"]]
    for facts in all_facts:
        spec, one = facts.spec, summary(facts)
        shown = ",".join(one["addresses"]) or spec.get("externalName") or "headless"
        ready = f"{one['ready']}/{one['total']}" if spec["type"] != "ExternalName" else "-"
        ports = ",".join(one["ports"]) or NONE
        rows.append([one["namespace"], one["name"], one["type"], shown, ports, ready, str(one["connections"])])
    return table(rows)


def summary(facts: Facts) -> dict[str, Any]:
    """One Service of an overview, for programs."""
    metadata, spec = facts.service["metadata"], facts.spec
    ready, total = ready_of(facts.endpoints())
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "type": spec["type"],
        "addresses": [*cluster_ips(facts.service), *spec.get("externalIPs", ()), *load_balancer_ips(facts.service)],
        "ports": [port_text(port) for port in spec.get("ports", ())],
        "ready": ready,
        "total": total,
        "connections": facts.counts().get((), (0, 0))[0],
    }


def document(facts: Facts) -> dict[str, Any]:
    """Everything about one Service, for programs."""
    counts = facts.counts("endpoint")
    return {
        **summary(facts),
        "frontends": [
            {
                "kind": one.kind,
                "addresses": list(one.addresses),
                "port": one.port,
                "protocol": one.protocol,
                **_count(one.count),
                "notes": list(one.notes),
            }
            for one in frontends(facts)
        ],
        "endpoints": [
            {"address": e.address, "pod": e.pod, "node": e.node, "zone": e.zone, "state": e.state}
            | _count(counts.get((e.address,), (0, 0)))
            for e in facts.endpoints()
        ],
        "nodes": dict(facts.nodes),
        "problems": list(trouble(facts)),
    }


def _count(count: Count) -> dict[str, int]:
    return {"connections": count[0], "bytes": count[1]}


def port_text(port: Object) -> str:
    """`80/TCP`, with its node port where it has one: `80:30080/TCP`."""
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}"


def detail(facts: Facts) -> str:
    """Everything about one Service."""
    selector = ",".join(f"{k}={v}" for k, v in (facts.spec.get("selector") or {}).items())
    lines = [f"Service {facts.path}: {facts.spec['type']}, selector {selector or NONE}"]
    for title, rows in (
        ("Frontends", list(map(_frontend, frontends(facts)))),
        ("Endpoints", list(_endpoints(facts))),
        ("Nodes", list(_nodes(facts))),
    ):
        lines += ["", title, *("  " + line for line in (table(rows) if rows else NONE).splitlines())]
    if (more := len(facts.endpoints()) - ENDPOINTS_SHOWN) > 0:
        lines.insert(lines.index("Nodes") - 1, f"  … and {more:,} more")
    problems = list(trouble(facts))
    if problems:
        lines += ["", "What is wrong", *(f"  {problem}" for problem in problems)]
    return "\n".join(map(plain, lines))


def _frontend(one: Frontend) -> list[str]:
    if one.kind != "node port":
        where = _host(one.addresses[0])
    elif one.everywhere:
        where = "every node"
    else:
        where = names([_host(ip) for ip in one.addresses]) or "no node"
    return [one.kind, f"{where}:{one.port}/{one.protocol}", _traffic(one.count), ", ".join(one.notes)]


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _traffic(count: Count) -> str:
    """`3 connections, 1.2 MB`."""
    connections, octets = count
    size, unit = float(octets), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    amount = f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
    return f"{counted(connections, 'connection')}, {amount}" if connections else "no connections"


def _endpoints(facts: Facts) -> Iterator[list[str]]:
    counts = facts.counts("endpoint")
    for one in facts.endpoints()[:ENDPOINTS_SHOWN]:
        where = f"{one.node or 'no node'}" + (f" ({one.zone})" if one.zone else "")
        yield [one.address, one.pod or "no pod", where, one.state, _traffic(counts.get((one.address,), (0, 0)))]


def _nodes(facts: Facts) -> Iterator[list[str]]:
    """What each node does, a line for each port; nodes that do the same are said once."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for node, description in facts.nodes.items():
        alike.setdefault(tuple(_does(facts, node, description)), []).append(node)
    for what, nodes in alike.items():
        for number, line in enumerate(what):
            yield ["" if number else names(nodes), line]


def _does(facts: Facts, node: str, description: Object | None) -> Iterator[str]:
    if description is None:
        yield "no answer"
        return
    if not facts.is_served:
        yield "nothing to do"
    elif not description["frontends"]:
        yield "no address of it"
    for group, endpoints in sorted(description["groups"].items()):
        for family in (False, True):
            yield from _leads(group, [_host(ip) + f":{port}" for ip, port in endpoints if (":" in ip) == family])
    inside = set(cluster_ips(facts.service))
    for is_inside, where in ((True, ""), (False, "from outside, ")):
        refused = {
            f"{one['port']}/{one['protocol']}"
            for one in description["frontends"]
            if not one["group"] and (one["address"] in inside) == is_inside and facts.has_family(one["address"])
        }
        if refused:
            yield f"{where}{', '.join(sorted(refused))} → refused"
    if node in facts.healthy:
        yield f"health check at port {facts.spec['healthCheckNodePort']} → {'passes' if facts.healthy[node] else 'fails'}"


def _leads(group: str, endpoints: Sequence[str]) -> Iterator[str]:
    """Where one port leads, in one family."""
    if endpoints:
        port = group.partition(":")[2].replace("/local", " on this node")
        more = f" … and {len(endpoints) - 4:,} more" if len(endpoints) > 4 else ""
        yield f"{port} → {counted(len(endpoints), 'endpoint')}: {', '.join(endpoints[:4])}{more}"

"""A cluster's state for humans, in one screen; and for programs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from podplane.cli import tables
from podplane.cli.cluster.facts import ClusterNode, Facts, Object
from podplane.cli.cluster.problems import age_of
from podplane.cli.cluster.reads import DNS, SYSTEM
from podplane.cli.cluster.said import Problem
from podplane.cli.names import some
from podplane.kubeapi.errors import ApiError
from podplane.model.words import counted, lasting
from podplane.routes import ways

ROWS, PROBLEMS, WARNINGS = 40, 25, 5
"""So many nodes, problems and warnings are printed, unless all are asked for."""
SLOW_SECONDS = 2.0
"""A list of Nodes that takes longer is told of."""
COLUMNS = ["NODE", "STATUS", "AGENT", "VERSION", "DONE", "PENDING", "REFUSED", "REPAIRED", "AUDIT", "BLOCKS", "BACKENDS"]


def text(facts: Facts, found: Sequence[Problem], *, everything: bool) -> str:
    """One screen."""
    lines = [_headline(facts, found), *_problems(found, everything)]
    chosen = rows_of(facts, found, everything)
    if chosen:
        lines += ["", tables.table([COLUMNS, *(_row(facts, facts.nodes[name]) for name in chosen)])]
    if left := len(facts.nodes) - len(chosen):
        lines.append(
            f"and {counted(left, 'more node')}, of which nothing is told above: --all shows {'it' if left == 1 else 'them'}"
        )
    return "\n".join([*lines, "", *(f"  {name:12} {tables.plain(said)}" for name, said in _facts(facts))])


def _headline(facts: Facts, found: Sequence[Problem]) -> str:
    ready = sum(node.is_ready for node in facts.nodes.values())
    wrong = f"{counted(len(found), 'thing is', 'things are')} wrong" if found else "all is well"
    return f"{counted(len(facts.nodes), 'node')}, {ready:,} of them ready: {wrong}"


def _problems(found: Sequence[Problem], everything: bool) -> Iterator[str]:
    most = len(found) if everything else PROBLEMS
    for one in found[:most]:
        who = f"{some(list(one.nodes))}: " if one.nodes else ""
        yield f"  {tables.plain(f'{who}{one.text}')}"
        if one.todo:
            yield f"      → {one.todo}"
    if len(found) > most:
        yield f"  and {len(found) - most:,} more: --all shows them"


def rows_of(facts: Facts, found: Iterable[Problem], everything: bool) -> list[str]:
    """The nodes that have a row: all of few; of many those with something wrong, and no more than ROWS."""
    if everything or len(facts.nodes) <= ROWS:
        return list(facts.nodes)
    wrong = {name for one in found for name in one.nodes}
    return [name for name in facts.nodes if name in wrong][:ROWS]


def _row(facts: Facts, node: ClusterNode) -> list[str]:
    answer = facts.answers.get(node.name)
    figures = ["-"] * 6 if answer is None or isinstance(answer, ApiError) else _figures(answer)
    status = "Ready" if node.is_ready else "NotReady"
    blocks, backends = ",".join(node.spec.pod_cidrs) or "none", ",".join(sorted(ways.reached_by(node) or ())) or "any"
    return [node.name, status, agent_state(facts, node), *figures, blocks, backends]


def agent_state(facts: Facts, node: ClusterNode) -> str:
    """Of a node, in a few words."""
    pods, answer = facts.pods_of(node.name), facts.answers.get(node.name)
    if len(pods) > 1:
        return f"{len(pods)} agents"
    if pods and not pods[0].is_ready:
        return "not ready"
    if not pods and facts.daemon_set is not None and (answer is None or isinstance(answer, ApiError)):
        return "none"
    if isinstance(answer, ApiError):
        return "no answer"
    return "ready" if pods else "answers" if answer is not None else "not asked"


def _figures(status: Object) -> list[str]:
    counts = (sum(one[key] for one in status["objects"]) for key in ("done", "pending", "refused"))
    ages = [one["age"] for one in status["audits"]]
    audit = f"{lasting(max(ages))} ago" if ages else "-"
    return [status.get("version") or "?", *(f"{one:,}" for one in counts), f"{sum(status['repaired'].values()):,}", audit]


def _facts(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "agents", _agents(facts)
    yield "backend", _backend(facts)
    yield "names", _names(facts)
    if facts.controllers is not None and facts.controllers.holder:
        age = age_of(facts, facts.controllers.spec.renew_time)
        yield (
            "controllers",
            f"led by {facts.controllers.holder}" + (f", who said so {lasting(age)} ago" if age is not None else ""),
        )
    slow = f": slow, {facts.took:.1f} s for the list of Nodes" if facts.took > SLOW_SECONDS else ""
    yield "API", f"https://{facts.address}, {facts.version or 'of an unknown version'}{slow}"
    for one in facts.warnings[:WARNINGS]:
        when = lasting(max(0.0, (facts.now - one.last).total_seconds()))
        yield (
            "warned",
            f"{when} ago of {one.node}: {one.reason}: {one.message}" + (f" ({one.count} times)" if one.count > 1 else ""),
        )
    if len(facts.warnings) > WARNINGS:
        yield "", f"and {counted(len(facts.warnings) - WARNINGS, 'more warning')} of the last hour: kubectl get events"


def _agents(facts: Facts) -> str:
    told = facts.told()
    asked = f"{len(told):,} of {counted(len(facts.answers), 'agent')} that {'was' if len(facts.answers) == 1 else 'were'} asked answered"
    versions = Counter(status.get("version") or "an older version" for status in told.values())
    named = ", ".join(f"{count:,} with {version}" for version, count in versions.most_common(3))
    return asked + (f": {named}" if named else "") + _rollout(facts)


def _rollout(facts: Facts) -> str:
    if facts.daemon_set is None:
        return ""
    status = facts.daemon_set.get("status") or {}
    wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    return f"; {ready:,} of {counted(wanted, 'pod')} of the DaemonSet ready"


def _backend(facts: Facts) -> str:
    counts = Counter(",".join(sorted(ways.reached_by(node) or ())) or "any" for node in facts.nodes.values())
    wanted = (facts.network or {}).get("backend")
    named = ", ".join(f"{counted(count, 'node')} by {name}" for name, count in counts.most_common(3))
    return f"{wanted or 'host-gw, as nobody says another one'}; reached are {named or 'none'}"


def _names(facts: Facts) -> str:
    if facts.name_servers is None:
        return f"there is no Service {SYSTEM}/{DNS}, or it can't be seen: pods have no name server of the cluster's"
    return f"Service {SYSTEM}/{DNS}: {counted(facts.name_servers, 'ready endpoint')}"


def document(facts: Facts, found: Sequence[Problem], *, everything: bool) -> dict[str, Any]:
    """For programs: all nodes with `everything`, or else those that have a row."""
    lease = facts.controllers
    return {
        "api": {"address": facts.address, "version": facts.version, "listSeconds": round(facts.took, 3)},
        "problems": [{"nodes": list(one.nodes), "problem": one.text, "todo": one.todo} for one in found],
        "summary": {
            "nodes": len(facts.nodes),
            "ready": sum(node.is_ready for node in facts.nodes.values()),
            "asked": len(facts.answers),
            "answered": len(facts.told()),
            "nameServers": facts.name_servers,
            "leader": None if lease is None else lease.holder,
        },
        "nodes": [_node(facts, facts.nodes[name]) for name in rows_of(facts, found, everything)],
        "warnings": [
            {"node": one.node, "reason": one.reason, "message": one.message, "last": one.last.isoformat(), "count": one.count}
            for one in facts.warnings
        ],
    }


def _node(facts: Facts, node: ClusterNode) -> dict[str, Any]:
    answer = facts.answers.get(node.name)
    return {
        "node": node.name,
        "ready": node.is_ready,
        "agent": agent_state(facts, node),
        "pods": [
            {"name": pod.name, "ready": pod.is_ready, "image": pod.image, "restarts": pod.restarts}
            for pod in facts.pods_of(node.name)
        ],
        "addresses": list(node.internal_ips),
        "blocks": list(node.spec.pod_cidrs),
        "backends": sorted(ways.reached_by(node) or ()),
        "error": str(answer) if isinstance(answer, ApiError) else "",
        "status": None if answer is None or isinstance(answer, ApiError) else answer,
    }

"""What is wrong with a cluster, in words, with what to do. Pure.

CHECKS has a row for each kind of trouble. What follows from something that is told already is not told once more: of a node without an
agent nobody wonders that it does not answer.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from podplane.cli.cluster.blocks import block_problems
from podplane.cli.cluster.facts import ClusterNode, Facts, Object
from podplane.cli.cluster.reads import AGENTS, DNS, NETWORK, SYSTEM, UNINSTALL
from podplane.cli.cluster.said import NODE, POD, Problem
from podplane.cli.cluster.saying import agent_problems
from podplane.cli.cluster.workload import pod_problems, rollout_problems
from podplane.cli.dns import show_status
from podplane.model.config import NetworkConfig
from podplane.model.words import counted
from podplane.routes import ways
from podplane.routes.cluster_settings import ClusterSettingsError, applied

REMOVE = "podplane cluster uninstall, which says why nodes are not clean and ends it; or agents again: docs/install.md#removal"
INSTALL = "install it as docs/install.md says"
NO_LEADER = "no replica of the controllers leads: nodes get no blocks of theirs, and load balancers no addresses"
TAINT = "node.podplane.io/not-ready"
ALIKE = 3
"""So many of one kind are told one by one."""
LEASE_SECONDS = 30.0
"""Controllers renew their Lease much more often."""


def problems(facts: Facts) -> list[Problem]:
    """All of them, those that concern the whole cluster first; equal ones of several nodes are one, and so are many of one kind."""
    if is_being_removed(facts):
        return [Problem(f"podplane is being removed: {_cleaned(facts.removal or {})}", todo=REMOVE)]
    if not is_installed(facts):
        return [Problem(_not_installed(facts), todo=INSTALL)]
    together: dict[Problem, list[str]] = {}
    for check in CHECKS:
        for one in check(facts):
            together.setdefault(one._replace(nodes=()), []).extend(one.nodes)
    told = (one._replace(nodes=tuple(dict.fromkeys(nodes))) for one, nodes in together.items())
    return [_filled_in(facts, one) for one in _folded(list(told))]


def _folded(told: Sequence[Problem]) -> Iterator[Problem]:
    """With one in place of many of a kind, where the first of them was: it has their nodes, and that one's text."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for one in told:
        kinds.setdefault((one.kind, one.todo), []).append(one)
    for one in told:
        alike = kinds[one.kind, one.todo]
        if not one.kind or len(alike) <= ALIKE:
            yield one
        elif one is alike[0]:
            nodes = dict.fromkeys(name for each in alike for name in each.nodes)
            yield Problem(f"{one.kind}; {', '.join(one.nodes)}: {one.text}", tuple(nodes), one.todo)


def _filled_in(facts: Facts, problem: Problem) -> Problem:
    if len(problem.nodes) != 1:
        return problem
    name = problem.nodes[0]
    pods = facts.pods_of(name)
    return problem._replace(todo=problem.todo.replace(NODE, name).replace(POD, pods[0].name if len(pods) == 1 else POD))


def is_installed(facts: Facts) -> bool:
    """Is there anything of podplane's, as far as can be seen?"""
    hidden = any(AGENTS in one.what or "daemonsets" in one.what for one in facts.unread)
    return hidden or facts.daemon_set is not None or bool(facts.pods) or bool(facts.told())


def is_being_removed(facts: Facts) -> bool:
    """Has what cleans nodes taken the agents' place? Where there are agents, too, it is for some nodes alone."""
    return facts.removal is not None and facts.daemon_set is None


def _cleaned(removal: Object) -> str:
    status = removal.get("status") or {}
    clean, wanted = status.get("numberReady", 0), status.get("desiredNumberScheduled", 0)
    return f"{clean:,} of {counted(wanted, 'node')} are clean by the DaemonSet {SYSTEM}/{UNINSTALL}"


def _not_installed(facts: Facts) -> str:
    if not facts.nodes:
        return "the cluster has no Node"
    return f"podplane is not installed: there is no DaemonSet {SYSTEM}/{AGENTS}, and no node's agent answers"


def _unread(facts: Facts) -> Iterator[Problem]:
    for one in facts.unread:
        yield Problem(f"{one.without} is not known: {one.what}: {one.why}")


def _settings(facts: Facts) -> Iterator[Problem]:
    """The ConfigMap of the cluster, and nodes that are not reached by its backend yet."""
    try:
        config = applied(facts.network or {}, NetworkConfig(cluster_cidrs=()))
    except ClusterSettingsError as error:
        yield Problem(
            f"the ConfigMap {SYSTEM}/{NETWORK} does not count, and nodes go on with what they had: {error}",
            todo=f"kubectl -n {SYSTEM} edit configmap {NETWORK}",
        )
        return
    if facts.network and "backend" in facts.network:
        late = [
            name
            for name in _with_agent(facts)
            if config.backend not in (ways.reached_by(facts.nodes[name]) or {config.backend})
        ]
        if late:
            yield Problem(
                f"can't be reached by the backend {config.backend}, which the cluster wants: the former one goes on",
                tuple(late),
            )


def _with_agent(facts: Facts) -> Iterator[str]:
    """Nodes that can follow: where no agent is ready, that is told instead. (Whose pods are not known counts.)"""
    told, ready = facts.told(), {pod.node for pod in facts.pods if pod.is_ready}
    return (name for name in facts.nodes if not facts.pods or name in ready or name in told)


def _taints(facts: Facts) -> Iterator[Problem]:
    """A node is given this taint before podplane is there, and its agent takes it off."""
    for name, node in facts.nodes.items():
        if TAINT in node.spec.taint_keys:
            yield Problem(
                f"takes no pods because of the taint {TAINT}, which its agent takes off when pods can be attached", (name,)
            )


CONDITIONS: Mapping[str, Callable[[ClusterNode], str]] = {
    "Ready": lambda node: "" if node.is_ready else f"is not ready: {_why_not_ready(node)}",
    "NetworkUnavailable": lambda node: _said(node, "NetworkUnavailable", "says that its network is not available"),
}
"""Condition → what is wrong by it, "" for nothing."""


def _nodes(facts: Facts) -> Iterator[Problem]:
    for node in facts.nodes.values():
        for why in (judge(node) for judge in CONDITIONS.values()):
            if why:
                yield Problem(why, (node.name,), f"kubectl describe node {NODE}")


def _why_not_ready(node: ClusterNode) -> str:
    found = node.condition("Ready")
    if found.status == "Unknown":
        return "its kubelet says nothing any more"
    return found.message or found.reason or "its kubelet has not said that it is"


def _said(node: ClusterNode, kind: str, otherwise: str) -> str:
    found = node.condition(kind)
    return f"{kind}: {found.message or otherwise}" if found.status == "True" else ""


def _names(facts: Facts) -> Iterator[Problem]:
    if facts.name_servers == 0 and not any(DNS in one.what or "endpointslices" in one.what for one in facts.unread):
        yield Problem(
            f"no name server is ready: the Service {SYSTEM}/{DNS} has no ready endpoint", todo="kubectl -n kube-system get pods"
        )


def _servers(facts: Facts) -> Iterator[Problem]:
    """Of nodes whose agent answers: where it does not, neither does its name server."""
    told = facts.told()
    for text, nodes in show_status.troubles(one for one in facts.servers if one["node"] in told).items():
        yield Problem(f"its name server: {text}", tuple(nodes), f"podplane dns status --node {NODE}")


def _controllers(facts: Facts) -> Iterator[Problem]:
    """Are the replicas ready, and does one of them lead?"""
    lease, found = facts.controllers, facts.deployment
    if found is not None:
        wanted, ready = _replicas(facts, found.get("spec") or {}), (found.get("status") or {}).get("readyReplicas", 0)
        if ready < wanted:
            yield Problem(
                f"{ready} of {counted(wanted, 'replica')} of the controllers ready", todo=f"kubectl -n {SYSTEM} get pods"
            )
    if lease is None:
        if found is not None and not any("leases" in one.what for one in facts.unread):
            yield Problem(NO_LEADER)
    elif not lease.holder:
        yield Problem(NO_LEADER)
    elif (age := age_of(facts, lease.spec.renew_time)) is not None and age > LEASE_SECONDS:
        yield Problem(f"{lease.holder} leads the controllers, and has not said so for {age:.0f} s")


def _replicas(facts: Facts, spec: Mapping[str, Any]) -> int:
    """As many as there can be: each has a node of its own, and where there is no other one, the next replica waits for it."""
    pod = (spec.get("template") or {}).get("spec") or {}
    labels = (pod.get("nodeSelector") or {}).items()
    tolerated = {one.get("key", "") for one in pod.get("tolerations") or ()}
    places = [
        name
        for name, node in facts.nodes.items()
        if node.is_linux and labels <= node.metadata.labels.items() and not node.spec.taint_keys - tolerated
    ]
    wanted: int = spec.get("replicas", 1)
    return min(wanted, max(len(places), 1))


def age_of(facts: Facts, time: str | None) -> float | None:
    """Seconds since a time of the API's, 0 for one to come; None where it says none."""
    return None if not time else max(0.0, (facts.now - datetime.datetime.fromisoformat(time)).total_seconds())


CHECKS: tuple[Callable[[Facts], Iterable[Problem]], ...] = (
    _unread,
    _settings,
    rollout_problems,
    _names,
    _servers,
    _controllers,
    _nodes,
    _taints,
    pod_problems,
    block_problems,
    agent_problems,
)
"""What is looked at, in the order in which it is told."""

"""The facts about a cluster: the API is read, then agents are asked, both within seconds whatever does not answer.

Of a large cluster not all agents are asked: those of nodes that look wrong go first, then some that are spread over the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from podplane.cli.cluster import parsed
from podplane.cli.cluster.facts import ClusterNode, Facts, Object, Unread
from podplane.cli.cluster.reads import READS, Done, read_all
from podplane.cli.dns import statuses
from podplane.cli.errors import ClusterError
from podplane.cli.nodes import NOT_ASKED, Question, ask, port_said, why_silent
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import NodeStatus
from podplane.model.config import AGENT_PORT

API_SECONDS, AGENT_SECONDS, AGENTS_SECONDS = 10.0, 1.5, 1.8
"""The API has so long to be read, one agent to answer, and all agents, whoever of them is silent (`patience`)."""
LEAST_A_SECOND = 100
"""Where more than ASKED are asked, they have 1 s more for each so many of them."""
ASKED = 250
"""So many agents are asked, unless all are."""
FORBIDDEN = 403
BAD = ("PeersUnreachable", "NetworkUnavailable")
"""Conditions of Nodes that are True when something is wrong."""


def facts(client: Any, *, everything: bool) -> Facts:
    """Of the cluster that `client` asks; `everything`: all agents are asked. ClusterError when the Nodes can't be read."""
    done = read_all(client, API_SECONDS)
    _check(done)
    values = {key: None if isinstance(one.value, ApiError) else one.value for key, one in done.items()}
    client.viewer = values["viewer"] or ""
    nodes = {node.name: node for node in sorted(values["nodes"] or (), key=lambda node: (len(node.name), node.name))}
    pods = tuple(map(parsed.agent_pod, values["pods"] or ()))
    cluster, service = parsed.networks_of(values)
    found = Facts(
        address=client.access.address,
        now=parsed.clock(one.date for one in (done["controllers"], *done.values())),
        nodes=nodes,
        version=values["version"] or "",
        took=done["nodes"].took,
        daemon_set=values["daemon_set"],
        removal=values["removal"],
        pods=pods,
        network=(values["network"] or {}).get("data") or {},
        cluster_cidrs=cluster,
        service_cidrs=service,
        name_servers=None if values["dns"] is None else parsed.ready_endpoints(values["slices"] or ()),
        has_name_servers=any(map(parsed.is_podplanes, values["slices"] or ())),
        deployment=values["deployment"],
        controllers=parsed.lease(values["controllers"]),
        warnings=tuple(parsed.warned(values["events"] or ())),
        unread=tuple(_unread(done)),
    )
    return _with_answers(found, client, everything)


def _check(done: Mapping[str, Done]) -> None:
    """ClusterError when nothing can be said: which right is missing, or why the API does not answer."""
    error = done["nodes"].value
    if isinstance(error, ApiError):
        right = f" (the right to {READS['nodes'].right} is missing)" if error.code == FORBIDDEN else ""
        raise ClusterError(f"the Nodes of the cluster can't be read: {error}{right}")


def _unread(done: Mapping[str, Done]) -> Iterable[Unread]:
    for key, one in done.items():
        if isinstance(one.value, ApiError):
            why = "this right is missing" if one.value.code == FORBIDDEN else str(one.value)
            yield Unread(READS[key].right, why, READS[key].without)


def _with_answers(found: Facts, client: Any, everything: bool) -> Facts:
    """The facts with what agents and name servers say, and why those that are not ready are not."""
    names = chosen(found, everything)
    asked = {name: Question(name, _port(found.nodes[name]), "status", NodeStatus) for name in names}
    not_ready = {pod.node for pod in found.pods if not pod.is_ready} & asked.keys()
    unready = {name: Question(name, _port(found.nodes[name]), "readyz") for name in not_ready}
    servers = statuses.questions(names if found.has_name_servers else ())
    seconds = patience(len(names), found.took)
    answers = ask(client, [*asked.values(), *unready.values(), *servers], seconds, seconds, AGENT_SECONDS)
    return dataclasses.replace(
        found,
        answers={
            name: _answer(found.nodes[name], answers[one]) for name, one in asked.items() if not _is_unasked(answers[one])
        },
        not_ready={name: why for name, one in unready.items() if (why := _why_not_ready(answers[one]))},
        servers=[_of_server(one, answers[one]) for one in servers if not _is_unasked(answers[one])],
    )


def patience(count: int, took: float) -> float:
    """Seconds that so many agents have; and what the list of Nodes took, as who is slow with that is slow with questions, too."""
    return AGENTS_SECONDS + max(0, count - ASKED) / LEAST_A_SECOND + took


def _port(node: ClusterNode) -> int:
    """Where its agent answers: beside kube-proxy it says another port."""
    return port_said(node.metadata.annotations) or AGENT_PORT


def _of_server(question: Question, answer: Any) -> Object:
    """What a name server says, as `dns status` reads it."""
    return {"node": question.node, "error": str(answer)} if isinstance(answer, ApiError) else answer


def _is_unasked(answer: Any) -> bool:
    return isinstance(answer, ApiError) and answer.reason == NOT_ASKED


def _answer(node: ClusterNode, answer: Any) -> Object | ApiError:
    if not isinstance(answer, ApiError):
        return dict(answer)
    return ApiError(
        answer.code, answer.reason, why_silent(msgspec.to_builtins(node), answer, f"podplane fault {node.name} --clear")
    )


def _why_not_ready(answer: Any) -> str:
    """An agent that is ready answers `ok`, which is no JSON."""
    return str(answer) if isinstance(answer, ApiError) and answer.code == 503 else ""


def chosen(found: Facts, everything: bool) -> Sequence[str]:
    """The nodes whose agents are asked: those that look well first, because the others may hold up who asks."""
    names = [name for name, node in found.nodes.items() if node.is_linux]
    bad = suspects(found)
    if everything or len(names) <= ASKED:
        return sorted(names, key=lambda name: name in bad)
    others = [name for name in names if name not in bad]
    room = min(len(others), max(ASKED - len(bad), ASKED // 5))
    spread = [others[number * len(others) // room] for number in range(room)]
    return [*spread, *sorted(bad & {*names})[: ASKED - room]]


def suspects(found: Facts) -> set[str]:
    """Nodes that look wrong by what the API says."""
    ready = {pod.node for pod in found.pods if pod.is_ready}
    bad = {
        name
        for name, node in found.nodes.items()
        if not node.is_ready or any(node.condition(one).status == "True" for one in BAD)
    }
    without = {name for name, node in found.nodes.items() if found.pods and name not in ready and node.is_linux}
    return bad | without | {one.node for one in found.warnings if one.node in found.nodes}

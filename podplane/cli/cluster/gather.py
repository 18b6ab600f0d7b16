"""The facts about a cluster: the API is read, then agents are asked, both within seconds whatever does not answer.

Of a large cluster not all agents are asked: those of nodes that look wrong go first, then some that are spread over the others.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from podplane.cli import tables
from podplane.cli.cluster.facts import AgentPod, ClusterNode, Facts, Object, Unread, Warned
from podplane.cli.cluster.reads import READS, Done, read_all
from podplane.cli.dns import statuses
from podplane.cli.nodes import NOT_ASKED, Question, ask, why_silent
from podplane.dns.node import MANAGED_BY, PODPLANE
from podplane.kubeapi.errors import ApiError
from podplane.lab.errors import LabError
from podplane.machine.cidrs import networks, of_kubeadm
from podplane.model.answers import NodeStatus
from podplane.model.config import AGENT_PORT, AGENT_PORT_SAID
from podplane.model.lease import Lease

API_SECONDS, AGENT_SECONDS = 10.0, 3.0
"""The API has so long to be read, and one agent to answer; all of those that are asked have as long, 1 s more for each LEAST_A_SECOND of
them, and what the list of Nodes took: who is slow with that is slow with questions, too."""
LEAST_A_SECOND = 100
ASKED = 250
"""So many agents are asked, unless all are."""
COMPONENT = "podplane"
FORBIDDEN = 403
BAD = ("PeersUnreachable", "NetworkUnavailable")
"""Conditions of Nodes that are True when something is wrong."""


def facts(client: Any, *, everything: bool) -> Facts:
    """Of the cluster that `client` asks; `everything`: all agents are asked. LabError when the Nodes can't be read."""
    done = read_all(client, API_SECONDS)
    _check(done)
    values = {key: None if isinstance(one.value, ApiError) else one.value for key, one in done.items()}
    client.viewer = values["viewer"] or ""
    nodes = {node.name: node for node in sorted(values["nodes"] or (), key=lambda node: (len(node.name), node.name))}
    pods = tuple(map(_pod, values["pods"] or ()))
    cluster, service = _networks(values)
    found = Facts(
        address=client.access.address,
        now=datetime.datetime.now(datetime.UTC),
        nodes=nodes,
        version=values["version"] or "",
        took=done["nodes"].took,
        daemon_set=values["daemon_set"],
        pods=pods,
        network=(values["network"] or {}).get("data") or {},
        cluster_cidrs=cluster,
        service_cidrs=service,
        name_servers=None if values["dns"] is None else _ready_endpoints(values["slices"] or ()),
        has_name_servers=any(map(_is_podplanes, values["slices"] or ())),
        deployment=values["deployment"],
        controllers=_lease(values["controllers"]),
        warnings=tuple(_warned(values["events"] or ())),
        unread=tuple(_unread(done)),
    )
    return _with_answers(found, client, everything)


def _check(done: Mapping[str, Done]) -> None:
    """LabError when nothing can be said: which right is missing, or why the API does not answer."""
    error = done["nodes"].value
    if isinstance(error, ApiError):
        right = f" (the right to {READS['nodes'].right} is missing)" if error.code == FORBIDDEN else ""
        raise LabError(f"the Nodes of the cluster can't be read: {error}{right}")


def _unread(done: Mapping[str, Done]) -> Iterable[Unread]:
    for key, one in done.items():
        if isinstance(one.value, ApiError):
            why = "this right is missing" if one.value.code == FORBIDDEN else str(one.value)
            yield Unread(READS[key].right, why, READS[key].without)


def _pod(pod: Object) -> AgentPod:
    status = (pod.get("status", {}).get("containerStatuses") or [{}])[0]
    ended = status.get("lastState", {}).get("terminated", {}).get("finishedAt")
    return AgentPod(
        pod["metadata"]["name"],
        pod.get("spec", {}).get("nodeName") or "",
        tables.is_ready(pod) and "deletionTimestamp" not in pod["metadata"],
        _why(pod),
        pod["spec"]["containers"][0].get("image") or "",
        status.get("imageID") or "",
        status.get("restartCount") or 0,
        datetime.datetime.fromisoformat(ended) if ended else None,
    )


def _why(pod: Object) -> str:
    """What is wrong with it: what it waits for, else the condition that does not hold."""
    if "deletionTimestamp" in pod["metadata"]:
        return "it ends"
    if tables.is_ready(pod):
        return ""
    state = tables.pod_state(pod)
    return ": ".join(filter(None, ("" if state in ("Running", "Pending") else state, tables.trouble(pod))))


def _networks(values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of pods and of Services that the cluster names: agents' own configuration before kubeadm's."""
    named, kubeadm = _configured(values["config"] or {}).get("cluster_cidrs"), of_kubeadm(values["kubeadm"] or {})
    ranges = networks(text for one in values["ranges"] or () for text in one.get("spec", {}).get("cidrs") or ())
    return networks(map(str, named if isinstance(named, list) else ())) or kubeadm.cluster, ranges or kubeadm.service


def _configured(config_map: Object) -> Mapping[str, Any]:
    """The networks in the configuration of agents; {} where it names none, or makes no sense."""
    import yaml

    try:
        content = yaml.load(str((config_map.get("data") or {}).get("config", "")), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        return {}
    found = content.get("network") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _ready_endpoints(slices: Iterable[Object]) -> int:
    endpoints = (one for slice_ in slices for one in slice_.get("endpoints") or ())
    return sum((one.get("conditions") or {}).get("ready") is not False for one in endpoints)


def _is_podplanes(slice_: Object) -> bool:
    """Does a node offer its name server by it?"""
    return (slice_["metadata"].get("labels") or {}).get(MANAGED_BY) == PODPLANE


def _lease(found: Object | None) -> Lease | None:
    return None if found is None else msgspec.convert(found, Lease)


def _warned(events: Iterable[Object]) -> Iterable[Warned]:
    """Those of podplane, the latest first."""
    own = (one for one in events if COMPONENT in (one.get("reportingComponent"), (one.get("source") or {}).get("component")))
    found = [
        Warned(
            one["involvedObject"].get("name") or "",
            one.get("reason") or "",
            one.get("message") or "",
            datetime.datetime.fromisoformat(_last(one)),
            one.get("count") or 1,
        )
        for one in own
    ]
    return sorted(found, key=lambda one: one.last, reverse=True)


def _last(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


def _with_answers(found: Facts, client: Any, everything: bool) -> Facts:
    """The facts with what agents and name servers say, and why those that are not ready are not."""
    names = chosen(found, everything)
    asked = {name: Question(name, _port(found.nodes[name]), "status", NodeStatus) for name in names}
    not_ready = {pod.node for pod in found.pods if not pod.is_ready} & asked.keys()
    unready = {name: Question(name, _port(found.nodes[name]), "readyz") for name in not_ready}
    servers = statuses.questions(names if found.has_name_servers else ())
    seconds = AGENT_SECONDS + len(names) / LEAST_A_SECOND + found.took
    answers = ask(client, [*asked.values(), *unready.values(), *servers], seconds, seconds, AGENT_SECONDS)
    return dataclasses.replace(
        found,
        answers={
            name: _answer(found.nodes[name], answers[one]) for name, one in asked.items() if not _is_unasked(answers[one])
        },
        not_ready={name: why for name, one in unready.items() if (why := _why_not_ready(answers[one]))},
        servers=[_of_server(one, answers[one]) for one in servers if not _is_unasked(answers[one])],
    )


def _port(node: ClusterNode) -> int:
    """Where its agent answers: beside kube-proxy it says another port."""
    said = node.metadata.annotations.get(AGENT_PORT_SAID, "")
    return int(said) if said.isdecimal() else AGENT_PORT


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

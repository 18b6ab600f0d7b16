"""Facts about Services, asked of the API and of the nodes."""

from __future__ import annotations

import contextlib
import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from podplane.cli import tables
from podplane.cli.nodes import Question, ask, why_silent
from podplane.cli.services.facts import SERVICE_NAME, Facts, Object, Warned, path_of
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.model.answers import Description, Traffic
from podplane.model.config import AGENT_PORT

SLICES, LEASES, RANGES = (
    "endpointslices.discovery.k8s.io",
    "leases.coordination.k8s.io",
    "servicecidrs.networking.k8s.io",
)


def of_all(client: Any, namespace: str) -> list[Facts]:
    """What an overview needs, of the Services of a namespace, or of all ("")."""
    found = client.objects("services", namespace)
    traffic = [_traffic(_name(node)) for node in _nodes(client)]
    rows = _rows(ask(client, traffic))
    slices, cidrs = _by_service(client.objects(SLICES, namespace)), _service_cidrs(client)
    return [Facts(s, slices[path_of(s)], rows=rows[path_of(s)], service_cidrs=cidrs) for s in found]


def of_service(client: Any, namespace: str, name: str, undo: Callable[[str], str]) -> Facts:
    """All about one Service; `undo` is the command that ends a node's faults. ApiError when there is no such Service."""
    service = client.get("services", namespace, name)
    nodes = {_name(n): n for n in _nodes(client)}
    selector = service["spec"].get("selector") or {}
    pods = [
        p for p in client.objects("pods", namespace) if selector and selector.items() <= p["metadata"].get("labels", {}).items()
    ]
    port = service["spec"].get("healthCheckNodePort", 0)
    described = {node: Question(node, AGENT_PORT, f"services/{namespace}/{name}", Description) for node in nodes}
    health = {node: Question(node, port, "") for node in nodes if port}
    answers = ask(client, [*described.values(), *health.values(), *map(_traffic, nodes)])
    leases = [x["spec"] for x in client.objects(LEASES, namespace) if x["metadata"]["name"] == f"load-balancer-{name}"]
    return Facts(
        service,
        _by_service(client.objects(SLICES, namespace))[f"{namespace}/{name}"],
        {node: None if isinstance(a := answers[one], ApiError) else a for node, one in described.items()},
        _rows(answers)[f"{namespace}/{name}"],
        {node: not isinstance(answers[one], ApiError) for node, one in health.items()},
        pods,
        leases[0].get("holderIdentity", "") if leases else "",
        _warnings(client, service),
        _service_cidrs(client),
        {name: _ips(node) for name, node in nodes.items()},
        {
            node: why_silent(nodes[node], error, undo(node))
            for node, one in described.items()
            if isinstance(error := answers[one], ApiError)
        },
    )


def _name(node: Object) -> str:
    return str(node["metadata"]["name"])


def _nodes(client: Any) -> list[Object]:
    """The nodes, in the order of their numbers."""
    return sorted(client.objects("nodes"), key=lambda n: (len(_name(n)), _name(n)))


def _ips(node: Object) -> list[str]:
    return tables.internal_ips(node)


def _traffic(node: str) -> Question:
    return Question(node, AGENT_PORT, "traffic", list[Traffic])


def _rows(answers: Mapping[Question, Any]) -> defaultdict[str, list[Object]]:
    """The tracked connections of all nodes that answer, by Service."""
    found: defaultdict[str, list[Object]] = defaultdict(list)
    for question, answer in answers.items():
        if question.path == "traffic" and not isinstance(answer, ApiError):
            for row in answer:
                found[row["service"]].append(row)
    return found


def _by_service(slices: Iterable[Object]) -> defaultdict[str, list[Object]]:
    found: defaultdict[str, list[Object]] = defaultdict(list)
    for slice_ in slices:
        metadata = slice_["metadata"]
        found[f"{metadata['namespace']}/{metadata.get('labels', {}).get(SERVICE_NAME, '')}"].append(slice_)
    return found


def _service_cidrs(client: Any) -> list[str]:
    """Those that there are; none is known of an API that does not serve ServiceCIDRs (Kubernetes before 1.33)."""
    with contextlib.suppress(NotFound):
        return [cidr for range_ in client.objects(RANGES) for cidr in range_["spec"].get("cidrs", ())]
    return []


def _warnings(client: Any, service: Object) -> list[Warned]:
    """The warnings about it, each text once; the oldest first."""
    metadata, now = service["metadata"], datetime.datetime.now(datetime.UTC)
    selector = f"type=Warning,involvedObject.uid={metadata['uid']}"
    found: dict[str, Warned] = {}
    for event in client.objects("events", metadata["namespace"], fieldSelector=selector):
        last = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
        seconds = max(0.0, (now - datetime.datetime.fromisoformat(last)).total_seconds())
        message = event.get("message", "")
        found[message] = Warned(event.get("reason", ""), message, seconds)
    return sorted(found.values(), key=lambda one: -one.seconds_ago)

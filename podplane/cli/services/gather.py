"""Facts about Services, asked of the API and of the nodes."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from podplane.cli.services.facts import SERVICE_NAME, Facts, Object, Warned, path_of
from podplane.kubeapi.errors import ApiError
from podplane.model.config import AGENT_PORT

SLICES, LEASES, RANGES = (
    "endpointslices.discovery.k8s.io",
    "leases.coordination.k8s.io",
    "servicecidrs.networking.k8s.io",
)


def of_all(client: Any, namespace: str) -> list[Facts]:
    """What an overview needs, of the Services of a namespace, or of all ("")."""
    found = client.objects("services", namespace)
    slices, rows, cidrs = _by_service(client.objects(SLICES, namespace)), _rows(client), _service_cidrs(client)
    return [Facts(s, slices[path_of(s)], rows=rows[path_of(s)], service_cidrs=cidrs) for s in found]


def of_service(client: Any, namespace: str, name: str) -> Facts:
    """All about one Service. ApiError when there is none."""
    service = client.get("services", namespace, name)
    nodes = {n["metadata"]["name"]: n for n in _nodes(client)}
    selector = service["spec"].get("selector") or {}
    pods = [
        p for p in client.objects("pods", namespace) if selector and selector.items() <= p["metadata"].get("labels", {}).items()
    ]
    port = service["spec"].get("healthCheckNodePort", 0)
    leases = [x["spec"] for x in client.objects(LEASES, namespace) if x["metadata"]["name"] == f"load-balancer-{name}"]
    return Facts(
        service,
        _by_service(client.objects(SLICES, namespace))[f"{namespace}/{name}"],
        {node: _ask(client, node, AGENT_PORT, f"services/{namespace}/{name}") for node in nodes},
        _rows(client)[f"{namespace}/{name}"],
        {node: _ask(client, node, port, "") is not None for node in nodes} if port else {},
        pods,
        leases[0].get("holderIdentity", "") if leases else "",
        _warnings(client, service),
        _service_cidrs(client),
        {name: _ips(node) for name, node in nodes.items()},
    )


def _nodes(client: Any) -> list[Object]:
    """The nodes, in the order of their numbers."""
    return sorted(client.objects("nodes"), key=lambda n: (len(n["metadata"]["name"]), n["metadata"]["name"]))


def _ips(node: Object) -> list[str]:
    return [one["address"] for one in node.get("status", {}).get("addresses", ()) if one["type"] == "InternalIP"]


def _ask(client: Any, node: str, port: int, path: str) -> Any:
    """A node's answer; None when there is none."""
    try:
        return client.of_node(node, port, path)
    except ApiError:
        return None


def _rows(client: Any) -> defaultdict[str, list[Object]]:
    """The tracked connections of all nodes that answer, by Service."""
    found: defaultdict[str, list[Object]] = defaultdict(list)
    for node in _nodes(client):
        for row in _ask(client, node["metadata"]["name"], AGENT_PORT, "traffic") or ():
            found[row["service"]].append(row)
    return found


def _by_service(slices: Iterable[Object]) -> defaultdict[str, list[Object]]:
    found: defaultdict[str, list[Object]] = defaultdict(list)
    for slice_ in slices:
        metadata = slice_["metadata"]
        found[f"{metadata['namespace']}/{metadata.get('labels', {}).get(SERVICE_NAME, '')}"].append(slice_)
    return found


def _service_cidrs(client: Any) -> list[str]:
    return [cidr for range_ in client.objects(RANGES) for cidr in range_["spec"].get("cidrs", ())]


def _warnings(client: Any, service: Object) -> list[Warned]:
    """The warnings about it, each text once; the oldest first."""
    metadata, now = service["metadata"], datetime.datetime.now(datetime.UTC)
    selector = f"type=Warning,involvedObject.uid={metadata['uid']}"
    found: dict[str, Warned] = {}
    for event in client.objects("events", metadata["namespace"], fieldSelector=selector):
        last = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
        seconds = max(0.0, (now - datetime.datetime.fromisoformat(last)).total_seconds())
        found[event["message"]] = Warned(event.get("reason", ""), event["message"], seconds)
    return sorted(found.values(), key=lambda one: -one.seconds_ago)

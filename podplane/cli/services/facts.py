"""What is known of Services: objects of the API, and what each node's agent says of its tables and connections."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podplane.cluster.errors import ApiError

Object = dict[str, Any]
PORT = 10256
"""Where agents answer."""
SERVICE_NAME = "kubernetes.io/service-name"
SLICES, LEASES = "endpointslices.discovery.k8s.io", "leases.coordination.k8s.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint, by its first address."""

    address: str
    pod: str
    node: str
    zone: str
    state: str


@dataclass(frozen=True, slots=True)
class Facts:
    """One Service. `nodes` says of each node what it does for the Service (None: it doesn't answer)."""

    service: Object
    slices: Sequence[Object]
    nodes: Mapping[str, Object | None] = field(default_factory=dict)
    traffic: Mapping[str, Sequence[Object]] = field(default_factory=dict)
    healthy: Mapping[str, bool] = field(default_factory=dict)
    pods: Sequence[Object] = ()
    announced_by: str = ""

    @property
    def endpoints(self) -> list[Endpoint]:
        """Its endpoints, each once, by state and address."""
        found = {one.address: one for slice_ in self.slices for one in _endpoints(slice_)}
        return sorted(found.values(), key=lambda one: (one.state != "ready", ":" in one.address, one.address))

    def connections(self, addresses: Collection[str] = (), port: int = 0, endpoint: str = "") -> tuple[int, int]:
        """(connections, bytes) over all nodes: to these addresses, this port, this endpoint, or whichever of its own."""
        own = (
            set() if addresses else {(one["address"], one["port"]) for d in self.nodes.values() if d for one in d["frontends"]}
        )
        rows = [
            row
            for rows in self.traffic.values()
            for row in rows
            if (row["address"] in addresses if addresses else (row["address"], row["port"]) in own)
            and port in (0, row["port"])
            and endpoint in ("", row["endpoint"])
        ]
        return sum(row["connections"] for row in rows), sum(row["bytes"] for row in rows)


def _endpoints(slice_: Object) -> Iterator[Endpoint]:
    for endpoint in slice_.get("endpoints") or ():
        reference = endpoint.get("targetRef", {})
        pod = reference.get("name", "") if reference.get("kind") == "Pod" else ""
        yield Endpoint(endpoint["addresses"][0], pod, endpoint.get("nodeName", ""), endpoint.get("zone", ""), _state(endpoint))


def _state(endpoint: Object) -> str:
    conditions = endpoint.get("conditions", {})
    if conditions.get("terminating"):
        return "terminating, serves still" if conditions.get("serving", True) else "terminating"
    return "ready" if conditions.get("ready") is not False else "not ready"


def slices_of(slices: Iterable[Object], service: Object) -> list[Object]:
    """The slices of a Service."""
    metadata = service["metadata"]
    return [
        s
        for s in slices
        if s["metadata"]["namespace"] == metadata["namespace"]
        and s["metadata"].get("labels", {}).get(SERVICE_NAME) == metadata["name"]
    ]


def traffic(client: Any) -> dict[str, list[Object]]:
    """The connections of each node that answers."""
    found: dict[str, list[Object]] = {}
    for node in node_names(client):
        rows = ask(client, node, PORT, "traffic")
        if rows is not None:
            found[node] = rows
    return found


def node_names(client: Any) -> list[str]:
    """The nodes, in the order of their numbers."""
    return sorted((n["metadata"]["name"] for n in client.objects("nodes")), key=lambda name: (len(name), name))


def ask(client: Any, node: str, port: int, path: str) -> Any:
    """A node's answer; None when there is none."""
    try:
        return client.of_node(node, port, path)
    except ApiError:
        return None


def of_service(client: Any, namespace: str, name: str) -> Facts:
    """All about one Service. ApiError when there is none."""
    service = client.get("services", namespace, name)
    nodes = node_names(client)
    selector = service["spec"].get("selector") or {}
    pods = [
        p for p in client.objects("pods", namespace) if selector and selector.items() <= p["metadata"].get("labels", {}).items()
    ]
    port = service["spec"].get("healthCheckNodePort", 0)
    leases = [x["spec"] for x in client.objects(LEASES, namespace) if x["metadata"]["name"] == f"load-balancer-{name}"]
    return Facts(
        service,
        slices_of(client.objects(SLICES, namespace), service),
        {node: ask(client, node, PORT, f"services/{namespace}/{name}") for node in nodes},
        traffic(client),
        {node: ask(client, node, port, "") is not None for node in nodes} if port else {},
        pods,
        leases[0].get("holderIdentity", "") if leases else "",
    )

"""Who takes part in a check: the lab's pods, and what the check adds so that every promise has somebody to prove it.

In a namespace of its own, which it deletes in the end, the check runs: on each node a pod in the node's own network, which
speaks for the node; one on the host outside, which speaks for the world; a pod of two containers; and pods where the lab has
too few of them to show anything.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cli.tables import is_ready
from podplane.kubeapi.errors import AlreadyExists, NotFound
from podplane.lab.errors import LabError
from podplane.lab.underlay import OUTSIDE

Object = dict[str, Any]
NAMESPACE = "podplane-check"
CONTAINERS = ("first", "second")
SLEEP = ("sleep", "infinity")
WAIT_SECONDS = 60.0
NODES_TO_FILL = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A container that a prober runs in; `kind` is "pod", "node" or "container"."""

    name: str
    kind: str
    namespace: str
    pod: str
    container: str
    node: str
    ips: tuple[str, ...]


def _pod(name: str, node: str, containers: Sequence[str] = CONTAINERS[:1], *, host_network: bool = False) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "containers": [{"name": c, "image": "host/sleep", "command": list(SLEEP)} for c in containers],
        },
    }


def additions(nodes: Sequence[str], pods: Sequence[Object]) -> list[Object]:
    """The pods that the check adds to these."""
    on = Counter(pod["spec"].get("nodeName", "") for pod in pods)
    wanted = [_pod(f"in-{node}", node, host_network=True) for node in nodes]
    empty = [node for node in nodes[:NODES_TO_FILL] if not on[node]]
    wanted += [_pod(f"on-{node}", node) for node in empty]
    on.update(empty)
    busiest = max(nodes, key=lambda node: on[node])
    if on[busiest] < 2:
        wanted.append(_pod(f"also-on-{busiest}", busiest))
    return [*wanted, _pod("two-containers", nodes[0], CONTAINERS), _pod(f"at-{OUTSIDE}", OUTSIDE, host_network=True)]


def runs(pod: Object) -> bool:
    """Ready, with addresses, and not about to end."""
    return is_ready(pod) and bool(pod["status"].get("podIPs")) and "deletionTimestamp" not in pod["metadata"]


@contextlib.contextmanager
def gathered(client: Any) -> Iterator[tuple[list[Member], list[str]]]:
    """All members, and the pods that were left out because they don't run; what was added goes again in the end."""
    nodes = sorted((n["metadata"]["name"] for n in client.objects("nodes")), key=lambda name: (len(name), name))
    dismiss(client)
    pods = [pod for pod in client.objects("pods") if not pod["spec"].get("hostNetwork")]
    able, unable = [p for p in pods if runs(p)], [p for p in pods if not runs(p)]
    wanted = additions(nodes, able)
    try:
        with contextlib.suppress(AlreadyExists):
            client.create("namespaces", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for pod in wanted:
            client.create("pods", NAMESPACE, pod)
        *_, added = client.poll("pods", NAMESPACE, lambda found: all(map(runs, found)), WAIT_SECONDS)
        waiting = [pod["metadata"]["name"] for pod in added if not runs(pod)]
        if waiting:
            raise LabError(f"the check's own pods do not run: {', '.join(waiting[:3])}; see `podplane get pods -n {NAMESPACE}`")
        yield members([*able, *added]), [_name(pod) for pod in unable]
    finally:
        dismiss(client)


def dismiss(client: Any) -> None:
    """Delete the check's namespace with all that is in it, and wait until it is gone."""
    try:
        for pod in client.objects("pods", NAMESPACE):
            client.delete("pods", NAMESPACE, pod["metadata"]["name"], grace=0)
        client.delete("namespaces", "", NAMESPACE)
    except NotFound:
        return
    for _ in client.poll("namespaces", "", lambda found: NAMESPACE not in {n["metadata"]["name"] for n in found}, WAIT_SECONDS):
        pass


def _name(pod: Object) -> str:
    meta = pod["metadata"]
    return str(meta["name"]) if meta["namespace"] == "default" else f"{meta['namespace']}/{meta['name']}"


def members(pods: Sequence[Object]) -> list[Member]:
    """Who speaks for what: for a pod its first container, for a node the pod in its network."""
    found: list[Member] = []
    for pod in pods:
        ips = tuple(ip["ip"] for ip in pod["status"]["podIPs"])
        place = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        node = pod["spec"]["nodeName"]
        first, *others = [c["name"] for c in pod["spec"]["containers"]]
        if pod["spec"].get("hostNetwork"):
            found.append(Member(node, OUTSIDE if node == OUTSIDE else "node", *place, first, node, ips))
        else:
            found.append(Member(_name(pod), "pod", *place, first, node, ips))
            found += [Member(f"{_name(pod)}:{c}", "container", *place, c, node, ips) for c in others]
    return found

"""A large cluster with policies, as one of its nodes sees it.

Pods are those of `slim_pods`. Each workload is under two policies, each with two peers that are workloads and one that is all backends of
some namespaces. The node has a pod of each of the first workloads: for 250 of them 500 policies, some 1,000 selectors and 120,000
addresses of peers in each family concern it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from bench.slim_pods import NAMESPACES, REPLICAS, pod, pods
from podplane.model.pod_info import Labels, NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy

TEAMS, INSTANCE = 20, "app.kubernetes.io/instance"


def labels_of(workload: int) -> dict[str, str]:
    """What selects the pods of a workload."""
    return {INSTANCE: f"shop-checkout-{workload}"}


def namespace_of(workload: int) -> str:
    """Where they are."""
    return f"team-{workload % NAMESPACES}"


def namespaces() -> Iterator[NamespaceInfo]:
    """All of them, 20 teams."""
    for number in range(NAMESPACES):
        metadata = {"name": f"team-{number}", "labels": {"team": str(number % TEAMS)}}
        yield NamespaceInfo.from_json(json.dumps({"metadata": metadata}).encode())


def batches(count: int, size: int = 1000) -> Iterator[list[bytes]]:
    """So many pods as JSON, some at a time: they are not all kept."""
    batch: list[bytes] = []
    for raw in pods(count):
        batch.append(raw)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def peers_of(number: int, workloads: int) -> list[int]:
    """The workloads that policy `number` names as peers, in its own namespace."""
    return [(number % workloads + NAMESPACES * (1 + 2 * (number // workloads) + k)) % workloads for k in range(2)]


def policy_json(number: int, workloads: int, name: str = "p") -> bytes:
    """Policy `number`, of a workload."""
    workload = number % workloads
    backends = {"matchLabels": {"tier": "backend"}}
    peers: list[dict[str, Any]] = [
        *({"podSelector": {"matchLabels": labels_of(peer)}} for peer in peers_of(number, workloads)),
        {"namespaceSelector": {"matchLabels": {"team": str((number + number // workloads) % TEAMS)}}, "podSelector": backends},
    ]
    rules = [{"from": peers, "ports": [{"port": "http"}]}]
    metadata = {"name": f"{name}{number}", "namespace": namespace_of(workload), "uid": f"{name}{number}"}
    spec = {"podSelector": {"matchLabels": labels_of(workload)}, "ingress": rules}
    return json.dumps({"metadata": metadata, "spec": spec}).encode()


def policy(number: int, workloads: int, name: str = "p") -> NetworkPolicy:
    """The same, decoded."""
    return NetworkPolicy.from_json(policy_json(number, workloads, name))


def path_of(number: int) -> str:
    """`namespace/name` of a pod."""
    metadata = pod(number)["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


def workload_of(path: str) -> int:
    """The workload that a pod was made for."""
    return int(path.split("/")[1].split("-")[2])


def free_pod(number: int) -> PodInfo:
    """A pod that no policy selects."""
    metadata = {"name": f"free-{number}", "namespace": "free", "uid": f"free-{number}"}
    return PodInfo.from_json(json.dumps({"metadata": metadata, "status": {"phase": "Running"}}).encode())


def local_pods(count: int) -> list[int]:
    """The numbers of the pods that are on the node."""
    return [number * REPLICAS for number in range(count)]


def relabelled(pod: PodInfo, workload: int) -> PodInfo:
    """The pod as one of another workload; it stays in its namespace."""
    labels = Labels({**pod.metadata.labels, **labels_of(workload)})
    return msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, labels=labels))

"""An index over JSON objects, and short ways to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.objects import Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.policy.ends import End
from podplane.policy.index import PolicyIndex
from podplane.policy.match import Flow, Verdict, verdict

Object = dict[str, Any]


def index_of(objects: Iterable[Object]) -> PolicyIndex:
    index = PolicyIndex()
    for one in objects:
        raw = json.dumps(one).encode()
        path = "/".join(filter(None, (one["metadata"].get("namespace"), one["metadata"]["name"])))
        match one["kind"]:
            case "Pod":
                index.set_pod(path, PodInfo.from_json(raw))
            case "Namespace":
                index.set_namespace(path, NamespaceInfo.from_json(raw))
            case "NetworkPolicy":
                index.set_policy(path, NetworkPolicy.from_json(raw))
            case "ClusterNetworkPolicy":
                index.set_policy(path, ClusterNetworkPolicy.from_json(raw))
            case "Node":
                index.set_node(path, msgspec.json.decode(raw, type=Node))
            case _:
                raise AssertionError(one["kind"])
    return index


def pod(
    path: str,
    labels: Mapping[str, str] = {},
    ip: str = "10.244.1.2",
    node: str = "node1",
    ports: list[Object] | None = None,
    **more: Any,
) -> Object:
    namespace, name = path.split("/")
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": ports or []}]} | more,
        "status": {"phase": "Running", "podIPs": [{"ip": one} for one in ip.split(",")]},
    }


def namespace(name: str, **labels: str) -> Object:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def policy(path: str, **spec: Any) -> Object:
    space, name = path.split("/")
    return {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": space}, "spec": spec}


def cluster_policy(name: str, tier: str = "Admin", priority: int = 10, **spec: Any) -> Object:
    spec = {"tier": tier, "priority": priority, "subject": {"namespaces": {}}} | spec
    return {"kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec}


def node(name: str, labels: Mapping[str, str] = {}, *ips: str) -> Object:
    addresses = [{"type": "InternalIP", "address": ip} for ip in ips] + [{"type": "Hostname", "address": name}]
    return {"kind": "Node", "metadata": {"name": name, "labels": dict(labels)}, "status": {"addresses": addresses}}


def end(index: PolicyIndex, text: str, version: int = 4) -> End:
    """`namespace/name` of a pod, the name of a node, or an address."""
    if "/" not in text:
        return End("192.168.1.10", node=text) if text.startswith("node") else End(text)
    found = index.pod(text)
    assert found is not None
    return End(next(ip for ip in found.ips if (":" in ip) is (version == 6)), found)


def ask(
    index: PolicyIndex, source: str, destination: str, port: int | None = 80, protocol: str = "TCP", version: int = 4
) -> Verdict:
    return verdict(Flow(end(index, source, version), end(index, destination, version), protocol, port), index)

"""The objects of the API that policies are about, kept current one by one: pods, nodes and Services, and the index over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.objects import Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.policy.index import PolicyIndex
from podplane.policy.name_servers import PATH, SERVICE, behind

Object = dict[str, Any]
NODES, SERVICES, NAMESPACES, PODS = "nodes", "services", "namespaces", "pods"
POLICIES, CLUSTER_POLICIES = "networkpolicies.networking.k8s.io", "clusternetworkpolicies.policy.networking.k8s.io"
RESOURCES = (NODES, SERVICES, NAMESPACES, POLICIES, CLUSTER_POLICIES, PODS)
"""All that is read; an index takes pods in faster once it has the others."""


class World:
    """Objects by path, and the index of policies over them."""

    def __init__(self) -> None:
        self.index = PolicyIndex()
        self.nodes: dict[str, Node] = {}
        self.services: dict[str, Object] = {}
        self._pods: dict[str, PodInfo] = {}
        self._dns: PodInfo | None = None

    def pods(self) -> Iterator[PodInfo]:
        """All of them, and the peer that has the addresses of the cluster's DNS."""
        yield from self._pods.values()
        if self._dns is not None:
            yield self._dns

    @property
    def dns(self) -> PodInfo | None:
        """That peer; None when it has pods of its own."""
        return self._dns

    def set(self, resource: str, path: str, object_: Object | None) -> None:
        """An object came, changed or went (None). msgspec.MsgspecError when it is none of its kind; then it counts as gone."""
        try:
            self._set(resource, path, object_)
        except msgspec.MsgspecError:
            self._set(resource, path, None)
            raise

    def _set(self, resource: str, path: str, object_: Object | None) -> None:
        raw = b"" if object_ is None else msgspec.json.encode(object_)
        match resource:
            case "pods":
                pod = PodInfo.from_json(raw) if raw else None
                _put(self._pods, path, pod)
                self.index.set_pod(path, pod)
            case "namespaces":
                self.index.set_namespace(path, NamespaceInfo.from_json(raw) if raw else None)
            case "nodes":
                node = msgspec.json.decode(raw, type=Node) if raw else None
                _put(self.nodes, path, node)
                self.index.set_node(path, node)
            case "services":
                _put(self.services, path, object_)
                if path == SERVICE:
                    self._dns = behind(object_)
                    self.index.set_pod(PATH, self._dns)
            case _:
                kind = NetworkPolicy if resource == POLICIES else ClusterNetworkPolicy
                self.index.set_policy(path, kind.from_json(raw) if raw else None)


def _put(where: dict[str, Any], path: str, value: object) -> None:
    if value is None:
        where.pop(path, None)
    else:
        where[path] = value

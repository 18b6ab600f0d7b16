"""What the API says about who may talk to whom: everything that a verdict needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from podplane.cli.tables import plain, pod_state
from podplane.kubeapi.errors import NotFound
from podplane.lab.errors import LabError
from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.objects import Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.policy.ends import Ends
from podplane.policy.index import PolicyIndex
from podplane.policy.name_servers import PATH, SERVICE, behind

Object = dict[str, Any]
DNS_SERVICE = "kube-system/kube-dns"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Objects by path, the index of policies over them, and whose each address is."""

    index: PolicyIndex
    ends: Ends
    pods: Mapping[str, PodInfo]
    nodes: Mapping[str, Node]
    services: Mapping[str, Object]
    states: Mapping[str, str]
    """Of pods: the word that kubectl has for how they are."""
    dns: PodInfo | None
    """The peer that has the addresses of the cluster's DNS."""


def check_namespace(index: PolicyIndex, namespace: str) -> None:
    """LabError when there is no such namespace."""
    if index.namespace(namespace) is None:
        raise LabError(f"there is no namespace {plain(namespace)}")


def cluster(client: Any) -> Cluster:
    """Ask the API for all of it."""
    found, services, nodes = client.objects("pods"), client.objects("services"), client.objects("nodes")
    namespaces, policies = client.objects("namespaces"), client.objects("networkpolicies.networking.k8s.io")
    return of(found, services, nodes, namespaces, policies, _cluster_policies(client))


def of(
    found: Sequence[Object],
    services_found: Iterable[Object],
    nodes_found: Iterable[Object],
    namespaces: Iterable[Object],
    policies: Iterable[Object],
    cluster_policies: Iterable[Object] = (),
) -> Cluster:
    """A cluster of these objects: pods first."""
    services = {_path(one): one for one in services_found}
    pods = {_path(one): PodInfo.from_json(msgspec.json.encode(one)) for one in found}
    nodes = {_path(one): msgspec.convert(one, Node) for one in nodes_found}
    index = PolicyIndex()
    for one in namespaces:
        index.set_namespace(_path(one), NamespaceInfo.from_json(msgspec.json.encode(one)))
    for one in policies:
        index.set_policy(_path(one), NetworkPolicy.from_json(msgspec.json.encode(one)))
    for one in cluster_policies:
        index.set_policy(_path(one), ClusterNetworkPolicy.from_json(msgspec.json.encode(one)))
    for path, node in nodes.items():
        index.set_node(path, node)
    dns = behind(services.get(SERVICE))
    for path, pod in [*pods.items(), *([] if dns is None else [(PATH, dns)])]:
        index.set_pod(path, pod)
    ends = Ends([*pods.values(), *([] if dns is None else [dns])], nodes.values())
    return Cluster(index, ends, pods, nodes, services, {_path(one): pod_state(one) for one in found}, dns)


def _cluster_policies(client: Any) -> list[Object]:
    """None where the API does not serve them."""
    try:
        found: list[Object] = client.objects("clusternetworkpolicies.policy.networking.k8s.io")
    except NotFound:
        return []
    return found


def _path(one: Object) -> str:
    namespace, name = one["metadata"].get("namespace"), one["metadata"]["name"]
    return f"{namespace}/{name}" if namespace else str(name)

"""The caches of one process: each object of the API is decoded once, for all agents of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from podplane.agent.arrivals import Arrivals, AskedAhead
from podplane.agent.feature import Kind
from podplane.agent.leases import LEASES, MANAGED
from podplane.kubeapi.cache import Cache, M
from podplane.kubeapi.client import Client
from podplane.kubeapi.informer import Informer, Keeper
from podplane.kubeapi.retry import Backoff
from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.config_map import ConfigMap
from podplane.model.lease import Lease
from podplane.model.objects import Model, Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.model.service import EndpointSlice, Service
from podplane.policy.ends import node_ips
from podplane.policy.index import NOTHING, Change, PolicyIndex
from podplane.policy.name_servers import PATH as NAME_SERVERS
from podplane.policy.name_servers import name_servers
from podplane.routes import cluster_settings
from podplane.routes.claims import Claims

NODES, SERVICES, PODS, NAMESPACES, CONFIG_MAPS = "nodes", "services", "pods", "namespaces", "configmaps"
SLICES = "endpointslices.discovery.k8s.io"
POLICIES, CLUSTER_POLICIES = "networkpolicies.networking.k8s.io", "clusternetworkpolicies.policy.networking.k8s.io"
KEPT = (NODES, SERVICES, SLICES, PODS, NAMESPACES, POLICIES, CLUSTER_POLICIES, CONFIG_MAPS)
"""What is kept for an agent that starts while the API is away."""
HIGHEST_SECONDS = 8.0
"""The longest wait between two tries to list: so soon what was missed is caught up with."""
Changed = Callable[[Kind, Any, Any], None]
"""(kind, old, new): None as old for an object that came, None as new for one that went. Of pods, namespaces and policies what their changes
mean is told (`policy.index.Change`), and of most of them that is nothing."""


class Caches:
    """Objects by path, and indices over them. Made by `watching` for a cluster, or of objects for a test."""

    def __init__(
        self,
        nodes: Cache[Node] | None = None,
        services: Cache[Service] | None = None,
        slices: Cache[EndpointSlice] | None = None,
        leases: Cache[Lease] | None = None,
        pods: Cache[PodInfo] | None = None,
        namespaces: Cache[NamespaceInfo] | None = None,
        policies: Cache[NetworkPolicy] | None = None,
        cluster_policies: Cache[ClusterNetworkPolicy] | None = None,
        network_settings: Cache[ConfigMap] | None = None,
    ) -> None:
        self.nodes = nodes or Cache[Node]("nodes")
        self.services = services or Cache[Service]("services")
        self.slices = slices or Cache[EndpointSlice]("endpointslices")
        self.leases = leases or Cache[Lease]("leases")
        self.pods = pods or Cache[PodInfo]("pods")
        self.namespaces = namespaces or Cache[NamespaceInfo]("namespaces")
        self.policies = policies or Cache[NetworkPolicy]("networkpolicies")
        self.cluster_policies = cluster_policies or Cache[ClusterNetworkPolicy]("clusternetworkpolicies")
        self.network_settings = network_settings or Cache[ConfigMap]("configmaps")
        """The one ConfigMap that says how nodes reach each other (`routes.cluster_settings`)."""
        self.policy_index = PolicyIndex()
        """Who selects whom, of these four and the nodes."""
        self.pods_by_ip = self.pods.index(lambda pod: pod.ips)
        """`get(address)` → the pods that have it, by path: those that ended, and those on their node's network, too."""
        self.nodes_by_ip = self.nodes.index(node_ips)
        self.arrivals, self.ahead = Arrivals(self.pods), AskedAhead(self.pods)
        self.claims = Claims()
        """Of nodes: which addresses and blocks of theirs count."""
        self._policies_changed: list[Changed] = []
        self._follow_claims()
        self._fill_index()
        self.informers: Mapping[str, Informer[Any]] = {}
        """What keeps them current, by resource; nothing for caches of a test."""
        self.slices_by_service = self.slices.index(_service_of)
        """`get(path of a Service)` → its slices, by path."""

    def subscribe(self, changed: Changed) -> None:
        """Tell of every change from now on."""
        for kind, cache in self.by_kind():
            _subscribe(cache, kind, changed)
        self._policies_changed.append(changed)

    def by_kind(self) -> Iterable[tuple[type[Model], Cache[Any]]]:
        """The caches whose changes are told as they are, each with the kind of its objects."""
        return (
            (Node, self.nodes),
            (Service, self.services),
            (EndpointSlice, self.slices),
            (Lease, self.leases),
            (ConfigMap, self.network_settings),
        )

    def every(self) -> Iterable[Cache[Any]]:
        """All caches."""
        return (*(cache for _, cache in self.by_kind()), self.namespaces, self.policies, self.cluster_policies, self.pods)

    def _follow_claims(self) -> None:
        for path, one in self.nodes.objects.items():
            self.claims.put(path, one)
        self.nodes.subscribe(lambda old, new: self.claims.put((new or old).metadata.name, new))  # type: ignore[union-attr]  # one is there

    def _fill_index(self) -> None:
        index = self.policy_index
        setters: tuple[tuple[Cache[Any], Callable[[str, Any], Change]], ...] = (
            (self.nodes, index.set_node),
            (self.namespaces, index.set_namespace),
            (self.policies, index.set_policy),
            (self.cluster_policies, index.set_policy),
            (self.pods, index.set_pod),
        )
        for cache, set_ in setters:
            for path, one in cache.objects.items():
                set_(path, one)
            self._follow(cache, set_)

    def _follow(self, cache: Cache[Any], set_: Callable[[str, Any], Change]) -> None:
        def changed(old: Any, new: Any) -> None:
            self._tell(set_((new or old).metadata.path, new))

        cache.subscribe(changed)

    def _tell(self, change: Change) -> None:
        if change is not NOTHING:
            for tell in self._policies_changed:
                tell(Change, None, change)

    def add_name_servers(self, ips: tuple[str, ...]) -> None:
        """The cluster's DNS has these addresses: to policies it is a pod. Nobody is told: it is said before anything is planned."""
        if ips:
            self.policy_index.set_pod(NAME_SERVERS, name_servers(ips))


def _service_of(slice_: EndpointSlice) -> Iterable[str]:
    return (slice_.service,) if slice_.service else ()


def _subscribe(cache: Cache[Any], kind: type[Model], changed: Changed) -> None:
    cache.subscribe(lambda old, new: changed(kind, old, new))


def _informer(client: Client, resource: str, model: type[M], keeper: Keeper | None, **selection: Any) -> Informer[M]:
    return Informer(client, resource, model, keeper=keeper, backoff=Backoff(highest=HIGHEST_SECONDS), **selection)


class Informers:
    """What an agent's process watches: lists first (`sync`), then the tasks of `watches` keep the caches current.

    Of Leases only those of load balancers are watched: each kubelet of the cluster renews another one every ten seconds.
    """

    def __init__(self, client: Client, keeper: Keeper | None = None) -> None:
        """`keeper` is told of all but Leases, of which nothing is true for long."""
        nodes, services = _informer(client, NODES, Node, keeper), _informer(client, SERVICES, Service, keeper)
        slices = _informer(client, SLICES, EndpointSlice, keeper)
        leases = _informer(client, LEASES, Lease, None, labels=MANAGED)
        pods, namespaces = _informer(client, PODS, PodInfo, keeper), _informer(client, NAMESPACES, NamespaceInfo, keeper)
        policies = _informer(client, POLICIES, NetworkPolicy, keeper)
        cluster_policies = _informer(client, CLUSTER_POLICIES, ClusterNetworkPolicy, keeper, may_be_unknown=True)
        only = {"namespace": cluster_settings.NAMESPACE, "fields": f"metadata.name={cluster_settings.NAME}"}
        settings = _informer(client, CONFIG_MAPS, ConfigMap, keeper, **only)
        self._informers: dict[str, Informer[Any]] = {
            "watch of nodes": nodes,
            "watch of services": services,
            "watch of endpointslices": slices,
            "watch of leases": leases,
            "watch of namespaces": namespaces,
            "watch of networkpolicies": policies,
            "watch of clusternetworkpolicies": cluster_policies,
            "watch of pods for policies": pods,
            "watch of network settings": settings,
        }
        self.caches = Caches(
            nodes.cache,
            services.cache,
            slices.cache,
            leases.cache,
            pods.cache,
            namespaces.cache,
            policies.cache,
            cluster_policies.cache,
            settings.cache,
        )
        self.caches.informers = {informer.resource: informer for informer in self._informers.values()}

    async def sync(self) -> None:
        """List all of them. ApiError when that can't be had."""
        await asyncio.gather(*(informer.sync() for informer in self._informers.values()))

    @property
    def watches(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What keeps the caches current, by name: to be run by a supervisor."""
        return {name: informer.run for name, informer in self._informers.items()}

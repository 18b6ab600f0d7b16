"""Nodes as their kubelets register them, and the objects that a control plane creates itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from podplane.apiserver.controllers.endpoint_slices import SERVICES, SLICES
from podplane.apiserver.controllers.endpoints import ENDPOINTS
from podplane.apiserver.controllers.kubernetes_service import Published
from podplane.dns import config, default_config
from podplane.ipam.plan import Plan
from podplane.lab import node_report, underlay
from podplane.lab.manifests import node_name
from podplane.lab.spec import DEFAULT_PORT, OUTSIDE_ZONE
from podplane.lab.underlay import Place
from podplane.model.config import BACKENDS, CLUSTER_DOMAIN, IS_UP, UNDERLAY_MAC, UNDERLAY_MTU
from podplane.runtime.heartbeat import with_own
from podplane.services import pools
from podplane.state.value import IPAddress


def node(place: Place, storage: Path, now: str, backend: str, external_ips: Iterable[IPAddress] = ()) -> dict[str, Any]:
    """The node of a machine as its kubelet registers it `now`; its pod blocks are the API server's to give.

    `storage` is where files of its pods are; `backend` is that of the cluster, by which its agent will have it reached;
    `external_ips` are those that the world outside sees, where they are not those of `place`.
    """
    name = node_name(place.number)
    annotations = {UNDERLAY_MAC: place.mac, BACKENDS: backend, UNDERLAY_MTU: str(underlay.MTU)}
    ips = (("InternalIP", place.ips), ("ExternalIP", external_ips))
    addresses = [{"type": kind, "address": str(ip)} for kind, found in ips for ip in found]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": node_report.labels(name), "annotations": annotations},
        "spec": {},
        "status": {
            **node_report.status(name, storage),
            "addresses": [*addresses, {"type": "Hostname", "address": name}],
            "conditions": with_own([{**IS_UP, "lastHeartbeatTime": now, "lastTransitionTime": now}], now),
        },
    }


def kubernetes_ips(plan: Plan) -> tuple[IPAddress, ...]:
    """Cluster IPs of the Service `kubernetes`: the first address of each Service CIDR."""
    return plan.kubernetes_ips()


def dns_ips(plan: Plan) -> tuple[IPAddress, ...]:
    """Cluster IPs of the cluster's DNS: the tenth address of each Service CIDR, as kubeadm chooses it."""
    return tuple(ip + 9 for ip in kubernetes_ips(plan))


def dns_service(plan: Plan) -> dict[str, Any]:
    """The Service of the cluster's DNS, as kubeadm and CoreDNS's manifests name it; each node adds its own endpoints."""
    ips = [str(ip) for ip in dns_ips(plan)]
    ports = [{"name": name, "protocol": protocol, "port": 53} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))]
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    return {
        "metadata": {"name": "kube-dns", "labels": labels},
        "spec": {
            "clusterIP": ips[0],
            "clusterIPs": ips,
            "ipFamilyPolicy": "PreferDualStack" if len(ips) > 1 else "SingleStack",
            "trafficDistribution": "PreferSameNode",
            "ports": ports,
        },
    }


def dns_config(plan: Plan) -> dict[str, Any]:
    """The configuration of the cluster's DNS: the host outside has a zone, so that forwarding can be tried without any other network."""
    servers = [str(ip) for ip in underlay.outside_ips(plan)]
    return {"metadata": {"name": config.NAME}, "data": {config.KEY: default_config.text({OUTSIDE_ZONE: servers})}}


def kubeadm_config(plan: Plan) -> dict[str, Any]:
    """The networks of the cluster, where clusters that kubeadm made have them, and programs look for them."""
    networking = {
        "podSubnet": ",".join(map(str, plan.cluster)),
        "serviceSubnet": ",".join(map(str, plan.service)),
        "dnsDomain": CLUSTER_DOMAIN,
    }
    content = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "networking": networking}
    return {"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": msgspec.json.encode(content).decode()}}


def published(plan: Plan) -> Published:
    """How pods reach the API: by the cluster's first family, at the lab's gateway."""
    cidrs = tuple(str(network) for version in plan.versions for network in plan.service if network.version == version)
    return Published(kubernetes_ips(plan)[0], plan.underlay_gateways()[0], DEFAULT_PORT, cidrs)


IN_DEFAULT = {
    SERVICES: "/api/v1/namespaces/default/services",
    ENDPOINTS: "/api/v1/namespaces/default/endpoints",
    SLICES: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
}
"""Collections of the namespace `default`."""


def bootstrap(plan: Plan, *, is_first: bool) -> list[tuple[str, dict[str, Any]]]:
    """The objects that a control plane creates itself: paths of collections, and an object for each.

    Source: kube-apiserver's controllers.

    At its first start it also creates what users may change or delete: a pool of addresses for load balancers, the configuration of
    the cluster's DNS.
    """
    balancers = list(plan.load_balancer_addresses())
    pool = {
        "apiVersion": f"{pools.GROUP}/{pools.VERSION}",
        "kind": pools.KIND,
        "metadata": {"name": "default"},
        "spec": {"addresses": balancers},
    }
    api = published(plan)
    return [
        ("/apis/networking.k8s.io/v1/servicecidrs", api.range()),
        *((IN_DEFAULT[resource], object_) for resource, object_ in api.objects()),
        ("/api/v1/namespaces/kube-system/services", dns_service(plan)),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", pools.definition()),
        ("/api/v1/namespaces/kube-system/configmaps", kubeadm_config(plan)),
        *([("/api/v1/namespaces/kube-system/configmaps", dns_config(plan))] if is_first else ()),
        *([(f"/apis/{pools.GROUP}/{pools.VERSION}/{pools.PLURAL}", pool)] if is_first and balancers else ()),
    ]

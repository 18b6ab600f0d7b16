"""An API of a few objects, as the commands about policies ask it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podplane.cli.policy.cluster import Cluster, cluster
from tests.unit.policy.cluster import Object, namespace, pod, policy

WEB, CLIENT, DB = {"app": "web"}, {"app": "client"}, {"app": "db"}
NODES = [
    {
        "kind": "Node",
        "metadata": {"name": f"node{number}"},
        "spec": {"podCIDRs": [f"10.244.{number}.0/24", f"fd00:{number}::/64"]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": ip} for ip in (f"192.168.1.1{number}", f"fd00:f::{number}")]
        },
    }
    for number in (1, 2)
]
PODS = [
    pod("default/client", CLIENT, "10.244.1.2,fd00:1::2"),
    pod("default/web-1", WEB, "10.244.2.2,fd00:2::2", "node2", [{"name": "http", "containerPort": 8080}]),
    pod("default/web-2", WEB, "10.244.2.3,fd00:2::3", "node2", [{"name": "http", "containerPort": 8080}]),
    pod("shop/db", DB, "10.244.1.3,fd00:1::3"),
    pod("default/agent", {}, "192.168.1.11", hostNetwork=True),
]
NAMESPACES = [namespace("default", team="x"), namespace("shop"), namespace("kube-system")]
ALLOW_WEB = policy(
    "default/web",
    podSelector={"matchLabels": WEB},
    ingress=[{"from": [{"podSelector": {"matchLabels": CLIENT}}], "ports": [{"port": 8080}]}],
)
DENY_DB = policy("shop/deny", podSelector={}, policyTypes=["Ingress", "Egress"])


def service(path: str, ips: Sequence[str] = ("10.96.0.1",), **spec: Any) -> Object:
    space, name = path.split("/")
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return {
        "kind": "Service",
        "metadata": {"namespace": space, "name": name},
        "spec": {"ports": ports, "clusterIPs": [*ips]} | spec,
    }


def slice_of(*ips: str, port: int = 8080, not_ready: Sequence[str] = ()) -> Object:
    endpoints = [{"addresses": [ip], "conditions": {"ready": ip not in not_ready}} for ip in ips]
    return {"ports": [{"name": "http", "port": port, "protocol": "TCP"}], "endpoints": endpoints}


KUBE_DNS = service(
    "kube-system/kube-dns",
    ("10.96.0.10", "fd00:96::a"),
    ports=[{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}],
)


class Api:
    """What of a client these commands use."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects_ = objects

    def objects(self, resource: str) -> list[Object]:
        kinds = {
            "networkpolicies.networking.k8s.io": "NetworkPolicy",
            "clusternetworkpolicies.policy.networking.k8s.io": "ClusterNetworkPolicy",
        }
        kind = kinds.get(resource, resource.removesuffix("s").capitalize())
        return [one for one in self.objects_ if one["kind"] == kind]


def known(*more: Object) -> Cluster:
    """Two nodes, five pods, and what a test adds."""
    return cluster(Api([*NODES, *PODS, *NAMESPACES, KUBE_DNS, *more]))

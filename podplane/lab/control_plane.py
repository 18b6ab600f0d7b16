"""Nodes as their kubelets register them, and the objects that a control plane creates itself."""

from __future__ import annotations

import functools
import os
import platform
from typing import Any

from podplane import __version__
from podplane.apiserver import shapes
from podplane.apiserver.controllers.endpoint_slices import SERVICES, SLICES
from podplane.apiserver.controllers.endpoints import ENDPOINTS
from podplane.apiserver.controllers.kubernetes_service import Published
from podplane.apiserver.server import ARCHITECTURES
from podplane.ipam.plan import Plan
from podplane.lab.manifests import node_name
from podplane.lab.spec import DEFAULT_PORT
from podplane.model.config import UNDERLAY_MAC
from podplane.services import pools
from podplane.state.mac import mac_of
from podplane.state.value import IPAddress


def node(number: int, plan: Plan) -> dict[str, Any]:
    """Node `number` as its kubelet registers it; its pod blocks are the API server's to give."""
    name = node_name(number)
    ips = plan.node_ips(number)
    addresses = [{"type": "InternalIP", "address": str(ip)} for ip in ips]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            "annotations": {UNDERLAY_MAC: mac_of(ips[0])},
        },
        "spec": {},
        "status": {
            "nodeInfo": node_info(),
            "addresses": [*addresses, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "LabReady", "message": "the agent has its routes"}],
            "capacity": capacity(),
            "allocatable": capacity(),
        },
    }


def capacity() -> dict[str, str]:
    """The capacity of each node: all of this machine, which they share."""
    kilobytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{kilobytes}Ki", "pods": "110"}


def node_info() -> dict[str, str]:
    """NodeSystemInfo: all nodes of a lab are this machine."""
    machine = os.uname()
    return {
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
        "kernelVersion": machine.release,
        "osImage": _os_name(),
        "containerRuntimeVersion": f"podplane://{__version__}",
        "kubeletVersion": f"v{shapes.data()['kubernetes']}.0+podplane.{__version__}",
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": ARCHITECTURES.get(machine.machine, machine.machine),
    }


@functools.cache
def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def kubernetes_ips(plan: Plan) -> tuple[IPAddress, ...]:
    """Cluster IPs of the Service `kubernetes`: the first address of each Service CIDR."""
    return tuple(
        network.network_address + 1 for version in plan.versions for network in plan.service if network.version == version
    )


def dns_ips(plan: Plan) -> tuple[IPAddress, ...]:
    """Cluster IPs of the cluster's DNS: the tenth address of each Service CIDR, as kubeadm chooses it."""
    return tuple(ip + 9 for ip in kubernetes_ips(plan))


def published(plan: Plan) -> Published:
    """How pods reach the API: by the cluster's first family, at the lab's gateway."""
    return Published(kubernetes_ips(plan)[0], plan.underlay_gateways()[0], DEFAULT_PORT)


IN_DEFAULT = {
    SERVICES: "/api/v1/namespaces/default/services",
    ENDPOINTS: "/api/v1/namespaces/default/endpoints",
    SLICES: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
}
"""Collections of the namespace `default`."""


def bootstrap(plan: Plan, *, is_first: bool) -> list[tuple[str, dict[str, Any]]]:
    """The objects that a control plane creates itself: paths of collections, and an object for each.

    Source: kube-apiserver's controllers.

    At its first start it also creates a pool of addresses for load balancers, which users may change or delete.
    """
    balancers = list(plan.load_balancer_addresses())
    pool = {
        "apiVersion": f"{pools.GROUP}/{pools.VERSION}",
        "kind": pools.KIND,
        "metadata": {"name": "default"},
        "spec": {"addresses": balancers},
    }
    cidrs = [str(network) for version in plan.versions for network in plan.service if network.version == version]
    return [
        ("/apis/networking.k8s.io/v1/servicecidrs", {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}}),
        *((IN_DEFAULT[resource], object_) for resource, object_ in published(plan).objects()),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", pools.definition()),
        *([(f"/apis/{pools.GROUP}/{pools.VERSION}/{pools.PLURAL}", pool)] if is_first and balancers else ()),
    ]

"""The Services of a check: its own, made and waited for, and those of the users."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from podplane.cli.check import services
from podplane.cli.check.parties import NAMESPACE
from podplane.cli.check.promises import Party, family
from podplane.cli.check.services import Own
from podplane.cli.check.users import Site, Way, ways
from podplane.kubeapi.errors import ApiError
from podplane.lab import underlay
from podplane.lab.spec import LabSpec
from podplane.model.config import AGENT_PORT
from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service

Object = dict[str, Any]
SLICES, LEASES = "endpointslices.discovery.k8s.io", "leases.coordination.k8s.io"
WAIT_SECONDS, BALANCER_SECONDS, POLL_SECONDS = 20.0, 4.0, 0.02
"""For all nodes to have them in their tables; for addresses of load balancers, without which it goes on."""


def made(client: Any, endpoints: Sequence[Party], node_ips: Mapping[str, Sequence[str]]) -> Own:
    """The check's own Services, in the tables of all nodes as far as that can be waited for."""
    versions = [family(ip) for ip in endpoints[0].ips]
    wanted, slices = services.manifests(endpoints, NAMESPACE, versions)
    for service in wanted:
        client.create("services", NAMESPACE, service)
    for slice_ in slices:
        client.create(SLICES, NAMESPACE, slice_)
    for found in client.poll("services", NAMESPACE, _all_balanced, BALANCER_SECONDS):
        own = services.found([s for s in found if s["metadata"]["name"] in services.NAMES], endpoints, node_ips)
    balanced = sum(map(bool, own.balanced.values()))
    for _ in client.poll(LEASES, NAMESPACE, lambda ls: sum(map(_is_held, ls)) >= balanced, BALANCER_SECONDS):
        pass
    end = time.monotonic() + WAIT_SECONDS
    for node in node_ips:
        while not _has_them(client, node, len(endpoints)) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
    return own


def _all_balanced(found: Sequence[Object]) -> bool:
    return all(services.ingress(s) for s in found if s["spec"]["type"] == "LoadBalancer")


def _is_held(lease: Object) -> bool:
    return bool(lease["metadata"]["name"].startswith("load-balancer-") and lease["spec"].get("holderIdentity"))


def _has_them(client: Any, node: str, endpoints: int) -> bool:
    """Does a node serve the last one made, and the first one with all endpoints?"""
    try:
        spread = client.of_node(node, AGENT_PORT, f"services/{NAMESPACE}/spread")
        nobody = client.of_node(node, AGENT_PORT, f"services/{NAMESPACE}/nobody")
    except ApiError:
        return False
    groups = spread["groups"].values()
    return bool(nobody["frontends"] and groups) and all(len(group) >= endpoints for group in groups)


def users(client: Any, site: Site) -> list[Way]:
    """The ways to the users' Services."""
    found = msgspec.convert(client.objects("services"), list[Service])
    slices = msgspec.convert(client.objects(SLICES), list[EndpointSlice])
    return ways((s for s in found if s.metadata.namespace != NAMESPACE), slices, site)


def site(client: Any, settings: LabSpec) -> Site:
    """The nodes, and what the lab's settings say of them."""
    nodes = msgspec.convert(client.objects("nodes"), list[Node])
    plan, texts = settings.plan(), settings.node_port_addresses
    chosen = [ipaddress.ip_network(text) for text in texts.split(",") if text]
    node_ips = {
        node.metadata.name: [
            ip for ip in node.internal_ips if not chosen or any(ipaddress.ip_address(ip) in cidr for cidr in chosen)
        ]
        for node in nodes
    }
    return Site(nodes, node_ips, plan.service, tuple(map(str, underlay.outside_ips(plan))))

"""The Services of a check: its own, made and waited for, and those of the users."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from podplane.cli.check import services
from podplane.cli.check.parties import NAMESPACE
from podplane.cli.check.promises import Party, family
from podplane.cli.check.services import Own
from podplane.cluster.errors import ApiError

Object = dict[str, Any]
SLICES, LEASES = "endpointslices.discovery.k8s.io", "leases.coordination.k8s.io"
AGENT_PORT = 10256
WAIT_SECONDS, BALANCER_SECONDS, POLL_SECONDS = 20.0, 4.0, 0.02
"""For all nodes to have them in their tables; for addresses of load balancers, without which it goes on."""


def made(client: Any, endpoints: Sequence[Party], nodes: Iterable[str]) -> Own:
    """The check's own Services, in the tables of all nodes as far as that can be waited for."""
    versions = [family(ip) for ip in endpoints[0].ips]
    wanted, slices = services.manifests(endpoints, NAMESPACE, versions)
    for service in wanted:
        client.create("services", NAMESPACE, service)
    for slice_ in slices:
        client.create(SLICES, NAMESPACE, slice_)
    for found in client.poll("services", NAMESPACE, _all_balanced, BALANCER_SECONDS):
        own = services.found([s for s in found if s["metadata"]["name"] in services.NAMES], endpoints)
    balanced = sum(map(bool, own.balanced.values()))
    for _ in client.poll(LEASES, NAMESPACE, lambda ls: sum(map(_is_held, ls)) >= balanced, BALANCER_SECONDS):
        pass
    end = time.monotonic() + WAIT_SECONDS
    for node in nodes:
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


def users(client: Any) -> tuple[list[Object], list[Object]]:
    """The users' Services, and all EndpointSlices."""
    others = [s for s in client.objects("services") if s["metadata"]["namespace"] != NAMESPACE]
    return others, client.objects(SLICES)

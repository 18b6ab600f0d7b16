"""The Services of a check: its own, made and waited for, and those of the users."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from podplane.cli.check import services
from podplane.cli.check.parties import NAMESPACE
from podplane.cli.check.patience import patient
from podplane.cli.check.promises import Party, family
from podplane.cli.check.services import Own
from podplane.cli.check.users import Site, Way, ways
from podplane.cli.names import some
from podplane.cli.nodes import PATIENCE_SECONDS, Question, ask
from podplane.cli.waiting import Waiting, telling
from podplane.kubeapi.errors import ApiError
from podplane.lab import underlay
from podplane.lab.spec import LabSpec
from podplane.model.answers import Description
from podplane.model.config import AGENT_PORT
from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service

Object = dict[str, Any]
SLICES, LEASES = "endpointslices.discovery.k8s.io", "leases.coordination.k8s.io"
LEASE = "load-balancer-"
"""Before the name of a Service: its Lease."""
WAIT_SECONDS, BALANCER_SECONDS, POLL_SECONDS = 10.0, 4.0, 0.02
"""For all nodes to have them in their tables; for addresses of load balancers, without which it goes on."""


@dataclass(frozen=True, slots=True)
class Made:
    """The check's own Services; why some nodes (`late`) have them not in their tables; who announces a load balancer though it is not
    among the nodes that were asked for (`elsewhere`: Service → node)."""

    own: Own
    late: Mapping[str, str]
    elsewhere: Mapping[str, str]


def made(client: Any, endpoints: Sequence[Party], node_ips: Mapping[str, Sequence[str]]) -> Made:
    """The check's own Services, in the tables of these nodes as far as that can be waited for."""
    versions = [family(ip) for ip in endpoints[0].ips]
    wanted, slices = services.manifests(endpoints, NAMESPACE, versions)
    for service in wanted:
        client.create("services", NAMESPACE, service)
    for slice_ in slices:
        client.create(SLICES, NAMESPACE, slice_)
    tell = telling(lambda _: "addresses of load balancers")
    for found in client.poll("services", NAMESPACE, _all_balanced, patient(BALANCER_SECONDS), tell):
        own = services.found([s for s in found if s["metadata"]["name"] in services.NAMES], endpoints, node_ips)
    balanced = sum(map(bool, own.balanced.values()))
    for leases in client.poll(
        LEASES, NAMESPACE, lambda ls: sum(map(_is_held, ls)) >= balanced, patient(BALANCER_SECONDS), tell
    ):
        holders = {x["metadata"]["name"].removeprefix(LEASE): x["spec"].get("holderIdentity", "") for x in leases}
    elsewhere = {name: node for name, node in holders.items() if name in own.balanced and node and node not in node_ips}
    own = replace(own, balanced={name: () if name in elsewhere else vips for name, vips in own.balanced.items()})
    return Made(own, _late(client, list(node_ips), len(endpoints)), elsewhere)


def _late(client: Any, nodes: Sequence[str], endpoints: int) -> dict[str, str]:
    """The nodes that don't have the Services in their tables after a while, and why."""
    end, late, waiting = time.monotonic() + patient(WAIT_SECONDS), dict.fromkeys(nodes, ""), Waiting()
    while late:
        late = _without_them(client, late, endpoints)
        if time.monotonic() > end:
            break
        waiting.look(lambda: f"the Services of the check on {some(list(late))}")  # noqa: B023
        time.sleep(POLL_SECONDS if late else 0)
    return late


def _without_them(client: Any, nodes: Iterable[str], endpoints: int) -> dict[str, str]:
    """Which nodes don't serve the last Service that was made, and the first one with all endpoints?"""
    asked = {
        node: [Question(node, AGENT_PORT, f"services/{NAMESPACE}/{name}", Description) for name in ("spread", "nobody")]
        for node in nodes
    }
    answers = ask(client, [one for own in asked.values() for one in own], patient(PATIENCE_SECONDS))
    late = {}
    for node, (spread, nobody) in asked.items():
        if error := next((a for a in (answers[spread], answers[nobody]) if isinstance(a, ApiError)), None):
            late[node] = str(error)
        elif not _has_them(answers[spread], answers[nobody], endpoints):
            late[node] = f"they are not in its tables after {patient(WAIT_SECONDS):.0f} s"
    return late


def _all_balanced(found: Sequence[Object]) -> bool:
    return all(services.ingress(s) for s in found if s["spec"]["type"] == "LoadBalancer")


def _is_held(lease: Object) -> bool:
    return bool(lease["metadata"]["name"].startswith(LEASE) and lease["spec"].get("holderIdentity"))


def _has_them(spread: Any, nobody: Any, endpoints: int) -> bool:
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
            ip
            for ip in (node.ips if chosen else node.internal_ips)
            if not chosen or any(ipaddress.ip_address(ip) in cidr for cidr in chosen)
        ]
        for node in nodes
    }
    return Site(nodes, node_ips, plan.service, tuple(map(str, underlay.outside_ips(plan))))

"""The Services of a node as plans: `services.feature` in the terms of feature rows."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Hashable, Iterable

from podplane.agent.keys import ServiceKey
from podplane.model.config import NetworkConfig
from podplane.model.view import View
from podplane.services import feature as services
from podplane.services.endpoints import Place
from podplane.services.feature import Planned, ServicesMemory
from podplane.services.model import Claim, ServiceTable
from podplane.services.resolve import NodeContext
from podplane.services.settings import ServiceSettings
from podplane.state.effects import Effect, Plan
from podplane.state.value import IPAddress, IPNetwork

ZONE = "topology.kubernetes.io/zone"


class ServicePlan(Plan, frozen=True, kw_only=True):
    """A plan of a Service, and what the Service has by it."""

    table: ServiceTable


def plan_service(
    view: View,
    key: ServiceKey,
    settings: tuple[NetworkConfig, ServiceSettings],
    memory: ServicesMemory,
    taken: frozenset[Hashable],
) -> Plan:
    """One Service on this node, without the frontends and addresses that other Services have."""
    service, context = view.services.get(key.path), node_context(view, *settings)
    if service is None or context is None:
        return _plan(services.removed(key.path, memory))
    return _plan(services.plan(service, view.slices_of(key.path), context, memory, taken))  # type: ignore[arg-type]  # claims


def _plan(planned: Planned) -> ServicePlan:
    contested: dict[Hashable, Hashable] = {claim: ServiceKey(path) for claim, path in planned.contested.items()}
    return ServicePlan(fragment=planned.fragment, effects=planned.effects, contested=contested, table=planned.table)


def accept(memory: ServicesMemory, plan: ServicePlan) -> None:
    """The plan is part of the desired state."""
    memory.replace(plan.table)


def holder(memory: ServicesMemory, claim: Claim) -> ServiceKey | None:
    """The Service that has a frontend or address."""
    path = memory.holder(claim)
    return ServiceKey(path) if path else None


def after_repair(memory: ServicesMemory) -> Iterable[Effect]:
    """Connections may have been made while the tables were not as they should be."""
    return services.repaired(memory)


def precedence(key: ServiceKey, view: View) -> tuple[str, str]:
    """The older Service first, on every node: without an agreement, every agent comes to the same answer."""
    service = view.services.get(key.path)
    return (service.metadata.creation_timestamp if service else "", key.path)


def node_context(view: View, config: NetworkConfig, own: ServiceSettings) -> NodeContext | None:
    """The node as Services see it; None while there is nothing to serve with."""
    node = view.node
    if node is None or not view.versions or not config.service_cidrs:
        return None
    place = Place(node.metadata.name, node.metadata.labels.get(ZONE, ""))
    addresses = _node_port_addresses(node.ips if own.node_port_addresses else node.internal_ips, own.node_port_addresses)
    return NodeContext(place, view.versions, addresses, _networks(config.service_cidrs), _networks(config.cluster_cidrs))


@functools.lru_cache(maxsize=64)
def _networks(cidrs: tuple[str, ...]) -> tuple[IPNetwork, ...]:
    return tuple(map(ipaddress.ip_network, cidrs))


@functools.lru_cache(maxsize=2048)
def _node_port_addresses(ips: tuple[str, ...], cidrs: tuple[str, ...]) -> tuple[IPAddress, ...]:
    """The addresses of a node that serve node ports: those of these that are in the CIDRs, or all."""
    own = map(ipaddress.ip_address, ips)
    return tuple(ip for ip in own if not cidrs or any(ip in network for network in _networks(cidrs)))

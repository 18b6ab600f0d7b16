"""Where connections of UDP and SCTP may go, and which must begin anew after a change. Pure.

A TCP connection ends by itself when its endpoint does. One of UDP or SCTP is tracked as long as its client goes on sending, and goes where
its first packet went: to an endpoint that serves no more, or past the Service, which came later. An endpoint that ends, or that a policy or
a hint leads new connections away from, keeps those that it has. (k8s.io/kubernetes, pkg/proxy/conntrack, says the same.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from podplane.model.service import EndpointSlice, Service, ServicePort
from podplane.services.endpoints import candidates
from podplane.services.plan import NodeContext, frontends, is_ours
from podplane.services.tables import NAME
from podplane.state.conntrack import Allowed, Frontend, Target
from podplane.state.nft import Element
from podplane.state.value import Fragment

WITHOUT_END = ("UDP", "SCTP")
"""Protocols whose connections have no end that tracking could see, or one that comes late."""
NOWHERE: frozenset[Target] = frozenset()


def has_any(service: Service) -> bool:
    """Can a Service have such connections?"""
    return any(port.protocol in WITHOUT_END for port in service.spec.ports)


def ways(
    service: Service, slices: Sequence[EndpointSlice], context: NodeContext, planned: Fragment
) -> dict[Frontend, frozenset[Target]]:
    """Of one Service, as far as it has its frontends: another one may have been there first."""
    ports = [port for port in service.spec.ports if port.protocol in WITHOUT_END] if is_ours(service) else []
    served = set(_frontends(planned))
    rows = (row for port in ports for version in context.versions for row in _ways(service, slices, port, version, context))
    return {end: targets for end, targets in rows if end in served}


def _ways(
    service: Service, slices: Sequence[EndpointSlice], port: ServicePort, version: int, context: NodeContext
) -> Iterator[tuple[Frontend, frozenset[Target]]]:
    rows = candidates(slices, port, version, context.service_cidrs).rows
    serving = frozenset(target for endpoint, target in rows if endpoint.serves)
    for _, address, number in frontends(service, port, version, context):
        yield Frontend(port.protocol.lower(), address, number), serving


def _frontends(planned: Fragment) -> Iterator[Frontend]:
    for value in planned.values():
        match value:
            case Element(table=table, set="frontends4" | "frontends6" | "refused4" | "refused6", key=(ip, protocol, port)):
                if table == NAME:
                    yield Frontend(protocol, ip, port)  # type: ignore[arg-type]  # as these sets have them


def changed(before: Allowed, after: Allowed) -> set[Frontend]:
    """The frontends whose connections are to be looked at: that came, went, or lost an endpoint."""
    came_or_lost = {end for end, targets in after.items() if end not in before or not set(before[end]) <= set(targets)}
    return came_or_lost | (before.keys() - after.keys())

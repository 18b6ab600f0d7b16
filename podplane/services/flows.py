"""Where connections of UDP and SCTP may go, and which must begin anew after a change. Pure.

A TCP connection ends by itself when its endpoint does. One of UDP or SCTP is tracked as long as its client goes on sending, and goes where
its first packet went: to an endpoint that serves no more, or past the Service, which came later. An endpoint that ends, or that a policy or
a hint leads new connections away from, keeps those that it has. (k8s.io/kubernetes, pkg/proxy/conntrack, says the same.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from podplane.model.service import EndpointSlice, Service, ServicePort
from podplane.services.endpoints import Target, candidates
from podplane.services.plan import NodeContext, frontends, is_ours
from podplane.services.tables import NAME
from podplane.state.nft import Element
from podplane.state.value import Fragment, IPAddress

End = tuple[str, IPAddress, int]
"""Protocol, address and port to which a client sends."""
Ways = Mapping[End, Collection[Target]]
"""The endpoints that connections to each of these frontends may go to."""
WITHOUT_END = ("UDP", "SCTP")
"""Protocols whose connections have no end that tracking could see, or one that comes late."""
NOWHERE: frozenset[Target] = frozenset()


def has_any(service: Service) -> bool:
    """Can a Service have such connections?"""
    return any(port.protocol in WITHOUT_END for port in service.spec.ports)


def ways(
    service: Service, slices: Sequence[EndpointSlice], context: NodeContext, planned: Fragment
) -> dict[End, frozenset[Target]]:
    """Of one Service, as far as it has its frontends: another one may have been there first."""
    ports = [port for port in service.spec.ports if port.protocol in WITHOUT_END] if is_ours(service) else []
    served = set(_frontends(planned))
    rows = (row for port in ports for version in context.versions for row in _ways(service, slices, port, version, context))
    return {end: targets for end, targets in rows if end in served}


def _ways(
    service: Service, slices: Sequence[EndpointSlice], port: ServicePort, version: int, context: NodeContext
) -> Iterator[tuple[End, frozenset[Target]]]:
    rows = candidates(slices, port, version, context.service_cidrs).rows
    serving = frozenset(target for endpoint, target in rows if endpoint.serves)
    for _, address, number in frontends(service, port, version, context):
        yield (port.protocol.lower(), address, number), serving


def _frontends(planned: Fragment) -> Iterator[End]:
    for value in planned.values():
        match value:
            case Element(table=table, set="frontends4" | "frontends6" | "refused4" | "refused6", key=(ip, protocol, port)):
                if table == NAME:
                    yield protocol, ip, port  # type: ignore[misc]  # as these sets have them


def changed(before: Ways, after: Ways) -> set[End]:
    """The frontends whose connections are to be looked at: that came, went, or lost an endpoint."""
    came_or_lost = {end for end, targets in after.items() if end not in before or not set(before[end]) <= set(targets)}
    return came_or_lost | (before.keys() - after.keys())

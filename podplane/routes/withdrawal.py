"""A peer whose routes are withdrawn: what is sent to its pods is refused at once, and never leaves by another route.

The gateway of its pods is reached as before, so that a probe tells when the peer is back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from podplane.model.objects import Node
from podplane.routes.targets import gateways
from podplane.state.network import Route
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, network_of

UNREACHABLE = "unreachable"
"""RTN_UNREACHABLE: who sends is answered with "host unreachable", or "no route" (rtnetlink(7))."""


def withdrawn(planned: Fragment, peer: Node) -> Fragment:
    """The plan of a peer with its routes withdrawn. Neighbours and forwarding entries stay: its way back needs them."""
    found = dict(planned)
    for value in planned.values():
        if isinstance(value, Route) and value.kind != UNREACHABLE:
            gone = Route(
                destination=value.destination,
                kind=UNREACHABLE,
                metric=value.metric,
                table=value.table,
                protocol=value.protocol,
            )
            found[gone.identity] = gone
            for one in _to_gateway(value, gateways(peer).get(value.destination.version)):
                found[one.identity] = one
    return found


def _to_gateway(route: Route, gateway: IPAddress | None) -> Iterable[Route]:
    """The same way for this address alone, where it is one of the route's."""
    if gateway is not None and gateway in route.destination:
        yield msgspec.structs.replace(route, destination=network_of(f"{gateway}/{gateway.max_prefixlen}"))


def found_withdrawn(found: Collection[Value], peers: Iterable[Node]) -> frozenset[str]:
    """Names of the peers whose routes are withdrawn in what the kernel holds, by an agent before this one."""
    peers = tuple(peers)
    if not peers:
        return frozenset()
    unreachable = [one.destination for one in found if isinstance(one, Route) and one.kind == UNREACHABLE and not one.netns]
    return frozenset(peer.metadata.name for peer in peers if any(_is_within(peer, one) for one in unreachable))


def _is_within(peer: Node, network: IPNetwork) -> bool:
    try:
        blocks = [network_of(block) for block in peer.spec.pod_cidrs]
    except ValueError:  # nothing is planned for one whose blocks make no sense
        return False
    return any(block.version == network.version and block.subnet_of(network) for block in blocks)  # type: ignore[arg-type]  # of one version

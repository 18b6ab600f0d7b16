"""A peer whose routes are withdrawn: what is sent to its pods is refused at once, and never leaves by another route.

The gateway of its pods is reached as before, so that a probe tells when the peer is back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set

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
    """Names of the peers whose routes are withdrawn in what the kernel holds, by an agent before this one.

    Only a withdrawal leaves a block unreachable and a route to the block's gateway in it. A block alone may be refused for another reason
    (`underlay.closed`), and its peer is well.
    """
    peers = tuple(peers)
    if not peers:
        return frozenset()
    routes = [one for one in found if isinstance(one, Route) and not one.netns]
    refused = {_prefix(one.destination) for one in routes if one.kind == UNREACHABLE}
    hosts = {
        _prefix(one.destination)
        for one in routes
        if one.kind != UNREACHABLE and one.destination.prefixlen == one.destination.max_prefixlen
    }
    lengths = {(version, length) for version, _, length in refused}
    return frozenset(peer.metadata.name for peer in peers if hosts and _is_withdrawn(peer, hosts, refused, lengths))


Prefix = tuple[int, int, int]
"""IP version, the leading bits as a number, and how many they are."""


def _prefix(network: IPNetwork) -> Prefix:
    return network.version, int(network.network_address) >> (network.max_prefixlen - network.prefixlen), network.prefixlen


def _is_withdrawn(peer: Node, hosts: Set[Prefix], refused: Set[Prefix], lengths: Set[tuple[int, int]]) -> bool:
    try:
        ips = gateways(peer).values()
    except ValueError:  # nothing is planned for one whose blocks make no sense
        return False
    return any((ip.version, int(ip), ip.max_prefixlen) in hosts and _is_refused(ip, refused, lengths) for ip in ips)


def _is_refused(ip: IPAddress, refused: Set[Prefix], lengths: Set[tuple[int, int]]) -> bool:
    found = (length for version, length in lengths if version == ip.version)
    return any((ip.version, int(ip) >> (ip.max_prefixlen - length), length) in refused for length in found)

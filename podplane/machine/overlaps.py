"""Which networks of the machine and its cluster the networks of pods and Services overlap. Pure.

An address that is both a pod's and another machine's is lost for one of them: a podplane that comes to such a machine would cut it off
from its own network, from who administers it, from its name server or from the API. So nothing is changed there.

    a network of pods          is compared with   networks of Services, of links, of routes, the Node's addresses, name servers, the API
    a network of Services      is compared with   networks of links and routes, the Node's addresses

What blocks of other Nodes overlap of the network between nodes (`of_nodes`) is those Nodes' problem, not this machine's (`strays`).

Left out are default routes, also as two halves (VPNs take 0.0.0.0/1 and 128.0.0.0/1 for one), what is podplane's own, and, for networks
of Services, single addresses of links other than the uplink: proxies and node-local name servers have a Service's address there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from podplane.model.config import ROUTE_PROTOCOL
from podplane.state.network import Address, Link, Route
from podplane.state.ownership import Ownership
from podplane.state.value import IPNetwork, Value, address_of, network_of

DEFAULT_LENGTH = 1
"""A route whose prefix is no longer leads to everything."""


class Surrounding(msgspec.Struct, frozen=True, kw_only=True):
    """What there is beside podplane: what the kernel holds, whose objects of it are podplane's, the uplink, the Node's own addresses, the
    name servers of the machine, the address of the API ("" where it is a name), and networks that may overlap."""

    values: tuple[Value, ...] = ()
    own: Ownership = Ownership()
    uplink: str = ""
    node_ips: tuple[str, ...] = ()
    name_servers: tuple[str, ...] = ()
    api: str = ""
    allowed: tuple[str, ...] = ()


class Taken(NamedTuple):
    """A network that somebody has: what it is, in words, and whether Services may not overlap it either."""

    network: IPNetwork
    what: str
    is_for_services: bool = True


def overlaps(pods: Iterable[str], services: Iterable[str], around: Surrounding) -> list[str]:
    """A line for each overlap, with both networks, what the other one is, and what to do."""
    ranges = [("pods", network_of(one)) for one in pods], [("Services", network_of(one)) for one in services]
    taken = list(_without(around.allowed, _taken(around)))
    found = [_line(f"{mine}, a network of pods", f"{theirs}, a network of Services") for mine, theirs in _pairs(*ranges)]
    for whose, own in (*ranges[0], *ranges[1]):
        for other in taken:
            if _overlap(own, other.network) and (whose == "pods" or other.is_for_services):
                hint = f"choose another one, or name {other.network} in `allow_overlaps` of the configuration"
                found.append(f"{_line(f'{own}, a network of {whose}', f'{other.network}, {other.what}')}: {hint}")
    return list(dict.fromkeys(found))


def of_nodes(around: Surrounding) -> tuple[Taken, ...]:
    """What no Node's block may overlap: the network of the uplink, this Node's addresses, name servers, and the API."""
    own = (one for one in around.values if isinstance(one, Address) and one.link == around.uplink and _counts(one))
    return tuple(_without(around.allowed, [*(_of_link(one, around.uplink) for one in own), *_of_addresses(around)]))


def strays(blocks: Iterable[str], taken: Iterable[Taken]) -> dict[str, str]:
    """Those of these blocks that overlap such networks, as Nodes have them, and what each overlaps."""
    found, among = {}, list(taken)
    for text in blocks:
        block = network_of(text)
        if other := next((one for one in among if _overlap(block, one.network)), None):
            found[text] = f"the block {text} overlaps {other.network}, {other.what}"
    return found


def _without(allowed: Iterable[str], taken: Iterable[Taken]) -> Iterator[Taken]:
    networks = [network_of(one) for one in allowed]
    return (one for one in taken if not any(_holds(own, one.network) for own in networks))


def _pairs(pods: list[tuple[str, IPNetwork]], services: list[tuple[str, IPNetwork]]) -> Iterator[tuple[IPNetwork, IPNetwork]]:
    yield from ((mine, theirs) for _, mine in pods for _, theirs in services if _overlap(mine, theirs))


def _line(one: str, other: str) -> str:
    return f"{one}, overlaps {other}"


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _holds(outer: IPNetwork, inner: IPNetwork) -> bool:
    return outer.version == inner.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def _taken(around: Surrounding) -> Iterator[Taken]:
    mine = {one.name for one in around.values if isinstance(one, Link) and around.own.owns_link(one.name, one.alias)}
    for value in around.values:
        match value:
            case Address() if value.link not in mine and _counts(value):
                yield _of_link(value, around.uplink)
            case Route() if _is_foreign(value) and value.link not in mine:
                yield _of_route(value)
    yield from _of_addresses(around)


def _counts(value: Address) -> bool:
    return not value.ip.is_loopback and not value.ip.is_link_local


def _of_addresses(around: Surrounding) -> Iterator[Taken]:
    yield from (Taken(_host(ip), "the address of this Node") for ip in around.node_ips)
    yield from (Taken(_host(ip), "a name server of this machine", False) for ip in around.name_servers if _is_address(ip))
    if _is_address(around.api):
        yield Taken(_host(around.api), "the address of the API", False)


def _of_link(value: Address, uplink: str) -> Taken:
    network = ipaddress.ip_network((value.ip, value.prefix_length), strict=False)
    is_single = value.prefix_length == value.ip.max_prefixlen
    what = "the node's own network" if value.link == uplink else "the network of a link of this machine"
    return Taken(network, f"{what} ({value.link})", value.link == uplink or not is_single)


def _is_foreign(route: Route) -> bool:
    to = route.destination
    return route.protocol != ROUTE_PROTOCOL and to.prefixlen > DEFAULT_LENGTH and not to.is_link_local and not to.is_multicast


def _of_route(route: Route) -> Taken:
    via = f" via {route.gateway}" if route.gateway else ""
    where = f"{route.kind if route.kind != 'unicast' else ''}{via}{f' dev {route.link}' if route.link else ''}".strip()
    what = f"to which a route of this machine leads ({where})" if where else "to which a route of this machine leads"
    return Taken(route.destination, what, route.destination.prefixlen != route.destination.max_prefixlen)


def _host(ip: str) -> IPNetwork:
    return network_of(f"{address_of(ip)}/{address_of(ip).max_prefixlen}")


def _is_address(text: str) -> bool:
    try:
        address = address_of(text)
    except ValueError:
        return False
    return not address.is_loopback and not address.is_link_local

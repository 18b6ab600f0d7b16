"""What the tunnel devices of all backends have in common.

A node has a device for each IP version of the underlay that it has an address of; both carry IPv4 and IPv6. A device has the node's first
address of each block, which is the gateway of its pods: what the node itself sends to pods of others comes from there, so that the answers
are encapsulated, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import offload, underlay
from podplane.routes.aggregation import aggregated
from podplane.state.links import carries, loose_filter, router_sysctls
from podplane.state.mac import link_local_of
from podplane.state.network import Address, Encap, Link, Neighbour, Route, SoftwareChecksum
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment, network_of


def plan_node(node: Node, link: Callable[[IPAddress], Link], settings: NetworkConfig) -> Fragment:
    """Its devices, `link(ip)` for each of its addresses, with the gateway of each block; nothing while the node has no blocks."""
    gateways = [block.network_address + 1 for block in map(network_of, node.spec.pod_cidrs)]
    values: list[Value] = []
    for ip in underlay.addresses(node).values() if gateways else ():
        device = link(ip)
        values += _device(device, gateways)
        if offload.why_not(device.kind, settings):
            values.append(SoftwareChecksum(link=device.name))
    return fragment(values)


def _device(link: Link, gateways: Iterable[IPAddress]) -> Iterator[Value]:
    yield link
    for ip in (one for one in gateways if carries(one.version, link.mtu)):
        yield from router_sysctls(ip.version, link.name)
        if ip.version == 4:
            yield loose_filter(link.name)  # while backends change, what a peer sends by one is answered by the other
        yield Address(link=link.name, ip=ip, prefix_length=ip.max_prefixlen)


def towards(
    peer: Node, device: str, overhead: int, mac: str, settings: NetworkConfig, encap: Encap | None = None
) -> list[Value]:
    """Routes to a peer's blocks through a device, and the gateways that they have, with this MAC, or with none where routes encapsulate
    (`encap`). `overhead`: so many bytes larger are packets on the way. The IP versions for which there is no room are closed."""
    usual, mtu = settings.mtu - overhead, underlay.mtu_to(peer, settings) - overhead
    every = aggregated(peer.spec.pod_cidrs)
    blocks = [block for block in every if carries(block.version, mtu)]
    gateways, metric = _gateways(peer, mac, blocks), underlay.metric(mtu, usual)
    values: list[Value] = [*underlay.closed(every, mtu)]
    values += [_route(block, gateways[block.version], device, metric, encap) for block in blocks]
    own = "" if encap is not None else mac
    values += [Neighbour(link=device, ip=ip, mac=own, protocol=ROUTE_PROTOCOL) for ip in gateways.values()]
    return values


def _gateways(peer: Node, mac: str, blocks: Iterable[IPNetwork]) -> dict[int, IPAddress]:
    """The gateways of routes to these blocks, by IP version: of IPv4, the first address of the peer's first block; of IPv6, the link-local
    address of this MAC. The kernel takes no other one while a route by another link leads to its address, as of a former backend
    (ip6_route_check_nh_onlink)."""
    versions, found = {block.version for block in blocks}, dict[int, IPAddress]()
    for block in map(network_of, peer.spec.pod_cidrs):
        if block.version in versions and block.version not in found:
            found[block.version] = link_local_of(mac) if block.version == 6 else block.network_address + 1
    return found


def _route(block: IPNetwork, gateway: IPAddress, device: str, mtu: int, encap: Encap | None) -> Route:
    """A route to a block by one of these gateways."""
    on_link = block.version == 4
    return Route(destination=block, gateway=gateway, link=device, onlink=on_link, encap=encap, mtu=mtu, protocol=ROUTE_PROTOCOL)

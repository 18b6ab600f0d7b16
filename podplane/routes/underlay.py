"""The network between nodes: where a peer is reached there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from podplane.model.config import ROUTE_PROTOCOL, UNDERLAY_MAC, NetworkConfig
from podplane.model.objects import Node
from podplane.state.network import Neighbour
from podplane.state.value import IPAddress, address_of


def addresses(node: Node) -> Mapping[int, IPAddress]:
    """IP version → the node's first address of it, in the order of the object."""
    found: dict[int, IPAddress] = {}
    for ip in map(address_of, node.internal_ips):
        found.setdefault(ip.version, ip)
    return found


def remote(peer: Node, node: Node) -> IPAddress | None:
    """The address at which `node` reaches the peer: of the peer's first IP version that the node has an address of, too."""
    own = addresses(node)
    return next((ip for version, ip in addresses(peer).items() if version in own), None)


def neighbours(peer: Node, config: NetworkConfig) -> Iterator[Neighbour]:
    """The peer's MAC, which its agent publishes as an annotation, as a permanent neighbour: with hundreds of nodes dynamic entries would
    overflow the machine's one neighbour table. None where the settings want other nodes to be asked for it."""
    mac = peer.metadata.annotations.get(UNDERLAY_MAC)
    if mac and config.permanent_neighbours:
        for ip in addresses(peer).values():
            yield Neighbour(link=config.uplink, ip=ip, mac=mac, protocol=ROUTE_PROTOCOL)

"""The network between nodes: where a peer is reached there, and with which packets."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Iterator, Mapping

from podplane.model.config import ROUTE_PROTOCOL, UNDERLAY_MTU, NetworkConfig
from podplane.model.objects import Node
from podplane.state.links import LEAST_MTU, carries
from podplane.state.network import Neighbour, Route
from podplane.state.value import PARSED, IPAddress, IPNetwork, address_of, network_of

MOST_MTU = 65536


def mtu_to(peer: Node, config: NetworkConfig) -> int:
    """The largest packet to a peer, in bytes: what this node's uplink carries, or what the peer says that it takes, where that is less."""
    said = peer.metadata.annotations.get(UNDERLAY_MTU, "")
    if not (said.isascii() and said.isdigit() and len(said) <= len(str(MOST_MTU)) and int(said) >= LEAST_MTU[4]):
        return config.mtu
    return min(config.mtu, int(said))


def narrow(peer: Node | None, config: NetworkConfig) -> int:
    """The largest packet that a peer says it takes, in bytes, where this node's uplink has IPv6 and such packets are too small for that;
    0 else."""
    mtu = mtu_to(peer, config) if peer is not None else config.mtu
    return mtu if carries(6, config.mtu) and not carries(6, mtu) else 0


def closed(blocks: Iterable[IPNetwork], mtu: int) -> Iterator[Route]:
    """For blocks of an IP version that needs larger packets than so many bytes: what is sent there is refused at once, and leaves by no
    other route."""
    for block in blocks:
        if not carries(block.version, mtu):
            yield Route(destination=block, kind="unreachable", protocol=ROUTE_PROTOCOL)


def metric(mtu: int, usual: int) -> int:
    """The MTU of a route (ip-route(8), `mtu`) where packets have at most so many bytes; 0, which is that of its link, where that is usual.
    What is forwarded is held to it, too: who sends more is told by ICMP (ip_dst_mtu_maybe_forward)."""
    return mtu if mtu < usual else 0


def addresses(node: Node) -> Mapping[int, IPAddress]:
    """IP version → the node's first address of it, in the order of the object."""
    return _first_of_each(node.internal_ips)


@functools.lru_cache(PARSED)
def _first_of_each(texts: tuple[str, ...]) -> Mapping[int, IPAddress]:
    found: dict[int, IPAddress] = {}
    for ip in map(address_of, texts):
        found.setdefault(ip.version, ip)
    return found


def remote(peer: Node, node: Node) -> IPAddress | None:
    """The address at which `node` reaches the peer: of the peer's first IP version that the node has an address of, too."""
    own = addresses(node)
    for version, ip in addresses(peer).items():
        if version in own:
            return ip
    return None


def on_link(peer: Node, node: Node, config: NetworkConfig) -> Mapping[int, IPAddress]:
    """IP version → the peer's address, where `node` reaches it without a router between."""
    own, theirs = addresses(node), addresses(peer)
    if not config.subnets:
        return theirs
    shared = (network for network in map(network_of, config.subnets) if _has_one_in(own, network))
    near = {network.version for network in shared if _has_one_in(theirs, network)}
    return {version: ip for version, ip in theirs.items() if version in near}


def place(node: Node, config: NetworkConfig) -> Hashable:
    """What `on_link` and `remote` read of a node: equal for nodes of the same subnets."""
    own = addresses(node)
    return tuple(own), tuple(text for text in config.subnets if _has_one_in(own, network_of(text)))


def _has_one_in(ips: Mapping[int, IPAddress], network: IPNetwork) -> bool:
    """Is one of a node's addresses in there? It may have none of this IP version."""
    ip = ips.get(network.version)
    return ip is not None and ip in network


def neighbours(peer: Node, node: Node, config: NetworkConfig) -> Iterator[Neighbour]:
    """The peer's MAC, where it is on a link with the node, as a permanent neighbour: its agent publishes it as an annotation.

    With hundreds of nodes dynamic entries would overflow the machine's one neighbour table. None where the settings want other nodes to be
    asked for it.
    """
    mac = peer.underlay_mac
    if mac and config.permanent_neighbours:
        for version, ip in on_link(peer, node, config).items():
            if carries(version, config.mtu):
                yield Neighbour(link=config.uplink, ip=ip, mac=mac, protocol=ROUTE_PROTOCOL)

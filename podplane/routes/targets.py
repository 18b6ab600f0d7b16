"""By which ways a node reaches a peer: the addresses that a probe of each of them goes to.

The gateway of the peer's pods is behind the same route, neighbour and tunnel as they are, and the peer itself answers for it, whatever pods
it has. Whoever else answers for the peer's own address has not got that one.
"""

from __future__ import annotations

from collections.abc import Iterator

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.model.paths import OVERLAY, UNDERLAY, Path
from podplane.routes import host_gw, underlay, ways
from podplane.routes.table import BACKENDS, BY_NAME
from podplane.state.network import Route
from podplane.state.value import Fragment, IPAddress, network_of


def paths(peer: Node, node: Node, config: NetworkConfig) -> tuple[Path, ...]:
    """To the gateway of its pods, of each IP version that the node has a route to; and to the addresses that these send to. () where the
    node has no route to the peer's pods."""
    way = ways.towards(peer, config)
    found = list(_overlay(peer, node, way.plan_peer(peer, node, config))) if way is not None else []
    below = (Path(peer.metadata.name, UNDERLAY, ip) for ip in dict.fromkeys(one.below for one in found))
    return (*found, *below)


def _overlay(peer: Node, node: Node, planned: Fragment) -> Iterator[Path]:
    links = {value.destination.version: value.link for value in planned.values() if isinstance(value, Route) and value.link}
    theirs, own, remote = underlay.addresses(peer), underlay.addresses(node), underlay.remote(peer, node)
    for version, ip in gateways(peer).items():
        if version not in links:
            continue
        name = _carrier(links[version])
        below = theirs.get(version) if name == host_gw.BACKEND.name else remote
        if below is not None and below.version in own:
            yield Path(peer.metadata.name, OVERLAY, str(ip), name, str(below))


def gateways(peer: Node) -> dict[int, IPAddress]:
    """IP version → the gateway of its pods: the first address of its first block."""
    found: dict[int, IPAddress] = {}
    for block in map(network_of, peer.spec.pod_cidrs):
        found.setdefault(block.version, block.network_address + 1)
    return found


def _carrier(link: str) -> str:
    """The name of the backend whose routes lead to this link."""
    return next((one.name for one in BACKENDS if link in one.devices), host_gw.BACKEND.name)


def carried_in(backend: str, config: NetworkConfig) -> str:
    """What a backend's packets are to the network between nodes, as the rules of a firewall name it; "" where they are the pods' own."""
    return BY_NAME[backend].carried_in(config) if backend in BY_NAME else ""

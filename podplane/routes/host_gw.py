"""host-gw: each node's blocks are routed to that node's own address, which is reachable on the same network (direct L3).

Packets are sent as they are, and there is no device.
"""

from __future__ import annotations

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import underlay
from podplane.routes.aggregation import aggregated
from podplane.routes.backend import Backend
from podplane.state.links import carries
from podplane.state.network import Route
from podplane.state.ownership import Ownership
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment, network_of


def _plan_peer(peer: Node, node: Node, settings: NetworkConfig) -> Fragment:
    """Routes to another node's blocks, and its neighbour entries; IP versions in which it is not on a link with the node are left out."""
    gateways, mtu = underlay.on_link(peer, node, settings), underlay.mtu_to(peer, settings)
    blocks = [block for block in aggregated(peer.spec.pod_cidrs) if block.version in gateways]
    values: list[Value] = [
        _route(block, gateways[block.version], mtu, settings) for block in blocks if carries(block.version, mtu)
    ]
    return fragment([*values, *underlay.closed(blocks, mtu), *underlay.neighbours(peer, node, settings)])


def _route(block: IPNetwork, gateway: IPAddress, mtu: int, settings: NetworkConfig) -> Route:
    metric = underlay.metric(mtu, settings.mtu)
    return Route(destination=block, gateway=gateway, link=settings.uplink, mtu=metric, protocol=ROUTE_PROTOCOL)


def _why_not(peer: Node, node: Node, settings: NetworkConfig) -> str:
    near, theirs, own = underlay.on_link(peer, node, settings), underlay.addresses(peer), underlay.addresses(node)
    for block in map(network_of, peer.spec.pod_cidrs):
        if block.version not in near and block.version in theirs and block.version in own:
            return (
                f"{node.metadata.name} ({own[block.version]}) and {peer.metadata.name} ({theirs[block.version]}) have a router between "
                f"them, which knows no pods: pods of {peer.metadata.name} are not reached: choose the backend auto, or vxlan"
            )
    return ""


def _plan_node(node: Node, settings: NetworkConfig) -> Fragment:
    """Nothing: the uplink is there."""
    return {}


def _owns(settings: NetworkConfig) -> Ownership:
    """Routes and permanent neighbours, by their protocol."""
    return Ownership(route_protocol=ROUTE_PROTOCOL)


BACKEND = Backend(
    name="host-gw",
    overhead={4: 0, 6: 0},
    plan_node=_plan_node,
    plan_peer=_plan_peer,
    depends_on=underlay.place,
    owns=_owns,
    is_direct=lambda peer, node, settings: bool(underlay.on_link(peer, node, settings)),
    why_not=_why_not,
)

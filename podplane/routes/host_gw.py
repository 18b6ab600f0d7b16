"""host-gw: each node's blocks are routed to that node's own address, which is reachable on the same network (direct L3).

Packets are sent as they are, and there is no device.
"""

from __future__ import annotations

import ipaddress

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import underlay
from podplane.routes.backend import Backend
from podplane.state.network import Route
from podplane.state.ownership import Ownership
from podplane.state.value import Fragment, Value, fragment


def plan(peer: Node, config: NetworkConfig) -> Fragment:
    """Routes to another node's blocks, and its neighbour entries; families that the peer has no address of are left out."""
    gateways = underlay.addresses(peer)
    values: list[Value] = [
        Route(destination=block, gateway=gateways[block.version], link=config.uplink, protocol=ROUTE_PROTOCOL)
        for block in map(ipaddress.ip_network, peer.spec.pod_cidrs)
        if block.version in gateways
    ]
    return fragment([*values, *underlay.neighbours(peer, config)])


def _plan_node(node: Node, settings: NetworkConfig) -> Fragment:
    """Nothing: the uplink is there."""
    return {}


def _plan_peer(peer: Node, node: Node, settings: NetworkConfig) -> Fragment:
    """The same on every node."""
    return plan(peer, settings)


def _owns(settings: NetworkConfig) -> Ownership:
    """Routes and permanent neighbours, by their protocol."""
    return Ownership(route_protocol=ROUTE_PROTOCOL)


BACKEND = Backend(
    name="host-gw",
    overhead={4: 0, 6: 0},
    plan_node=_plan_node,
    plan_peer=_plan_peer,
    depends_on=lambda node: None,
    owns=_owns,
    is_direct=lambda peer, node, settings: True,
)

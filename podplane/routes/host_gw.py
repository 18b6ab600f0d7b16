"""host-gw: each node's blocks are routed to that node's own address, which is reachable on the same network (direct L3).

The peer's MAC, which its agent publishes as an annotation, becomes a permanent neighbour: with hundreds of nodes
dynamic entries would overflow the machine's one neighbour table.
"""

from __future__ import annotations

import ipaddress

from podplane.model.config import ROUTE_PROTOCOL, UNDERLAY_MAC, NetworkConfig
from podplane.model.objects import Node
from podplane.state.network import Neighbour, Route
from podplane.state.value import Fragment, Value, fragment


def plan(peer: Node, config: NetworkConfig) -> Fragment:
    """Routes to another node's blocks, and its neighbour entries; families that the peer has no address of are left out."""
    gateways = {ip.version: ip for ip in map(ipaddress.ip_address, peer.internal_ips)}
    values: list[Value] = [
        Route(destination=block, gateway=gateways[block.version], link=config.uplink, protocol=ROUTE_PROTOCOL)
        for block in map(ipaddress.ip_network, peer.spec.pod_cidrs)
        if block.version in gateways
    ]
    mac = peer.metadata.annotations.get(UNDERLAY_MAC)
    if mac:
        values += [Neighbour(link=config.uplink, ip=ip, mac=mac, protocol=ROUTE_PROTOCOL) for ip in gateways.values()]
    return fragment(values)

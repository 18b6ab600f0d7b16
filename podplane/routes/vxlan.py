"""vxlan: what pods send to pods of other nodes travels in UDP between the nodes' addresses (RFC 7348).

    pod ── cbr0 ── route: block via the peer's gateway, onlink ── podplane-vxlan4 ── UDP to the peer's address ── uplink
                   (of IPv6: via the link-local address of its device)
                   neighbour: that has the MAC of the peer's device
                   fdb: that MAC is behind the peer's address

A device for each IP version of the underlay that the node has an address of; both carry IPv4 and IPv6 (`tunnels`). Nothing is learned, and
nothing is flooded: each peer is a neighbour and a forwarding entry. The MAC of a device is made from the node's name, so it stays when a
node starts again or gets other addresses, and nobody has to publish it. On the wire that is what Flannel sends with its backend of this
name. Source: ip-link(8), bridge(8), drivers/net/vxlan.
"""

from __future__ import annotations

import hashlib

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import tunnels, underlay
from podplane.routes.backend import Backend
from podplane.state.network import Fdb, Link, Vxlan
from podplane.state.nft_rules import udp_port_is
from podplane.state.ownership import Ownership, link_alias
from podplane.state.value import Fragment, IPAddress, fragment

OVERHEAD = {4: 50, 6: 70}
"""Bytes: IP header (20, 40), UDP (8), VXLAN (8) and the inner Ethernet header (14)."""
DEVICES = {4: "podplane-vxlan4", 6: "podplane-vxlan6"}
"""By the IP version of the underlay."""


def device_mac(node: str) -> str:
    """The MAC of a node's devices: locally administered, unicast (IEEE 802)."""
    return "0a:" + hashlib.sha256(f"vxlan {node}".encode()).digest()[:5].hex(":")


def _plan_node(node: Node, settings: NetworkConfig) -> Fragment:
    return tunnels.plan_node(node, lambda local: _link(node, local, settings), settings)


def _link(node: Node, local: IPAddress, settings: NetworkConfig) -> Link:
    return Link(
        name=DEVICES[local.version],
        kind="vxlan",
        mtu=settings.mtu - OVERHEAD[local.version],
        mac=device_mac(node.metadata.name),
        vxlan=Vxlan(vni=settings.vxlan_vni, port=settings.vxlan_port, local=local, device=settings.uplink),
        alias=link_alias(),
    )


def _plan_peer(peer: Node, node: Node, settings: NetworkConfig) -> Fragment:
    """Routes to its blocks through the device of the IP version that both have; nothing where they have none in common."""
    remote = underlay.remote(peer, node)
    if remote is None:
        return {}
    device, mac = DEVICES[remote.version], device_mac(peer.metadata.name)
    values = tunnels.towards(peer, device, OVERHEAD[remote.version], mac, settings)
    return fragment([*underlay.neighbours(peer, node, settings), Fdb(link=device, mac=mac, remote=remote), *values])


def _owns(settings: NetworkConfig) -> Ownership:
    return Ownership(links=frozenset(DEVICES.values()), route_protocol=ROUTE_PROTOCOL)


BACKEND = Backend(
    name="vxlan",
    overhead=OVERHEAD,
    devices=tuple(DEVICES.values()),
    kinds=dict.fromkeys(DEVICES, "vxlan"),
    plan_node=_plan_node,
    plan_peer=_plan_peer,
    depends_on=underlay.place,
    owns=_owns,
    carried_in=lambda settings: f"UDP port {settings.vxlan_port}",
    outer=lambda settings: udp_port_is(settings.vxlan_port),
)

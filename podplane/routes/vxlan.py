"""vxlan: what pods send to pods of other nodes travels in UDP between the nodes' addresses (RFC 7348).

    pod ── cbr0 ── route: block via the peer's gateway, onlink ── podplane-vxlan4 ── UDP to the peer's address ── uplink
                   (of IPv6: via the link-local address of its device)
                   neighbour: that has the MAC of the peer's device
                   fdb: that MAC is behind the peer's address

A device for each IP version of the underlay that the node has an address of; both carry IPv4 and IPv6. Nothing is learned, and nothing is
flooded: each peer is a neighbour and a forwarding entry. The MAC of a device is made from the node's name, so it stays when a node starts
again or gets other addresses, and nobody has to publish it. On the wire that is what Flannel sends with its backend of this name.

The device has the node's first address of each block, which is the gateway of its pods: what the node itself sends to pods of others
comes from there, so that the answers are encapsulated, too. Source: ip-link(8), bridge(8), drivers/net/vxlan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import underlay
from podplane.routes.backend import Backend
from podplane.state.links import carries, router_sysctls
from podplane.state.mac import link_local_of
from podplane.state.network import Address, Fdb, Link, Neighbour, Route, Vxlan
from podplane.state.ownership import Ownership, link_alias
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment, network_of

OVERHEAD = {4: 50, 6: 70}
"""Bytes: IP header (20, 40), UDP (8), VXLAN (8) and the inner Ethernet header (14)."""
DEVICES = {4: "podplane-vxlan4", 6: "podplane-vxlan6"}
"""By the IP version of the underlay."""


def device_mac(node: str) -> str:
    """The MAC of a node's devices: locally administered, unicast (IEEE 802)."""
    return "0a:" + hashlib.sha256(f"vxlan {node}".encode()).digest()[:5].hex(":")


def _plan_node(node: Node, settings: NetworkConfig) -> Fragment:
    """Its devices, each with the gateway of each block; nothing while the node has no blocks."""
    gateways = list(_gateways(node))
    values: list[Value] = []
    for ip in underlay.addresses(node).values() if gateways else ():
        values += _device(node, ip, gateways, settings)
    return fragment(values)


def _gateways(node: Node) -> Iterable[IPAddress]:
    return (block.network_address + 1 for block in map(network_of, node.spec.pod_cidrs))


def _device(node: Node, local: IPAddress, gateways: Iterable[IPAddress], settings: NetworkConfig) -> Iterable[Value]:
    name, mtu = DEVICES[local.version], settings.mtu - OVERHEAD[local.version]
    yield Link(
        name=name,
        kind="vxlan",
        mtu=mtu,
        mac=device_mac(node.metadata.name),
        vxlan=Vxlan(vni=settings.vxlan_vni, port=settings.vxlan_port, local=local, device=settings.uplink),
        alias=link_alias(),
    )
    for ip in (one for one in gateways if carries(one.version, mtu)):
        yield from router_sysctls(ip.version, name)
        yield Address(link=name, ip=ip, prefix_length=ip.max_prefixlen)


def _plan_peer(peer: Node, node: Node, settings: NetworkConfig) -> Fragment:
    """Routes to its blocks through the device of the IP version that both have; nothing where they have none in common."""
    remote = underlay.remote(peer, node)
    if remote is None:
        return {}
    device, mac = DEVICES[remote.version], device_mac(peer.metadata.name)
    usual, mtu = (carried - OVERHEAD[remote.version] for carried in (settings.mtu, underlay.mtu_to(peer, settings)))
    first: dict[int, IPAddress] = {}
    values: list[Value] = [*underlay.neighbours(peer, node, settings), Fdb(link=device, mac=mac, remote=remote)]
    for block in (one for one in map(network_of, peer.spec.pod_cidrs) if carries(one.version, mtu)):
        gateway = first.setdefault(block.version, link_local_of(mac) if block.version == 6 else block.network_address + 1)
        values.append(_route(block, gateway, device, underlay.metric(mtu, usual)))
    values += [Neighbour(link=device, ip=ip, mac=mac, protocol=ROUTE_PROTOCOL) for ip in first.values()]
    return fragment(values)


def _route(block: IPNetwork, gateway: IPAddress, device: str, mtu: int) -> Route:
    """The gateway of IPv6 is link-local: the kernel takes no other one while a route by another link leads to its address, as of a former
    backend (ip6_route_check_nh_onlink)."""
    on_link = block.version == 4
    return Route(destination=block, gateway=gateway, link=device, onlink=on_link, mtu=mtu, protocol=ROUTE_PROTOCOL)


def _owns(settings: NetworkConfig) -> Ownership:
    return Ownership(links=frozenset(DEVICES.values()), route_protocol=ROUTE_PROTOCOL)


BACKEND = Backend(
    name="vxlan",
    overhead=OVERHEAD,
    devices=tuple(DEVICES.values()),
    plan_node=_plan_node,
    plan_peer=_plan_peer,
    depends_on=underlay.place,
    owns=_owns,
    carried_in=lambda settings: f"UDP port {settings.vxlan_port}",
)

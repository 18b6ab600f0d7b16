"""gre: what pods send to pods of other nodes travels in GRE between the nodes' addresses (RFC 2784; RFC 7676 by IPv6).

    pod ── cbr0 ── route: block via the peer's gateway, encapsulated to its address ── podplane-gre4 ── GRE to that address ── uplink

A device for each IP version of the underlay that the node has an address of; both carry IPv4 and IPv6. The devices are external ones
(collect_md): where a packet goes is said by its route, and the device takes what comes from any peer. The route says how many routers the
packet between nodes may pass, too: otherwise that would be what is left of the hops of the one in it. Its source address is chosen by the
kernel, as of all that the node sends.

Each peer has a gateway of its own, which is a permanent neighbour without a link-layer address: the device has no flag POINTOPOINT, so
without a gateway the kernel keeps a neighbour for each address that anybody sends to, in the one table of the machine.

When a route is added the kernel compares how it encapsulates with all others of the device (fib_find_info, nh_comp): 5,000 peers take it
three times as long as those of vxlan.

A node has one external GRE device of each kind at most, for all who use GRE there (ipgre_newlink, ip6gre_newlink). The devices gre0,
gretap0, erspan0 and ip6gre0, which the modules bring to each network namespace, are nobody's, and stay as they are.

Source: ip-link(8), ip-route(8), net/ipv4/{ip_gre,ip_tunnel,ip_tunnel_core}.c, net/ipv6/ip6_gre.c.
"""

from __future__ import annotations

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import tunnels, underlay, vxlan
from podplane.routes.backend import Backend
from podplane.state.network import Encap, Gre, Link
from podplane.state.nft_rules import GRE as IPPROTO_GRE
from podplane.state.nft_rules import protocol_is
from podplane.state.ownership import Ownership, link_alias
from podplane.state.value import Fragment, IPAddress, fragment

OVERHEAD = {4: 24, 6: 44}
"""Bytes: IP header (20, 40) and that of GRE without key and checksum (4)."""
DEVICES = {4: "podplane-gre4", 6: "podplane-gre6"}
"""By the IP version of the underlay."""
KINDS = {4: "gre", 6: "ip6gre"}
HOPS = 64
"""Of the packet between nodes: what Linux gives to those that it sends itself (IPDEFTTL, IPV6_DEFAULT_HOPLIMIT)."""


def device_mac(node: str) -> str:
    """No device has it: the link-local address of a node's gateway is made from it."""
    return vxlan.device_mac(node)


def _plan_node(node: Node, settings: NetworkConfig) -> Fragment:
    return tunnels.plan_node(node, lambda local: _link(local, settings), settings)


def _link(local: IPAddress, settings: NetworkConfig) -> Link:
    version = local.version
    return Link(
        name=DEVICES[version],
        kind=KINDS[version],
        mtu=settings.mtu - OVERHEAD[version],
        gre=Gre(external=True),
        alias=link_alias(),
    )


def _plan_peer(peer: Node, node: Node, settings: NetworkConfig) -> Fragment:
    """Routes to its blocks through the device of the IP version that both have; nothing where they have none in common."""
    remote = underlay.remote(peer, node)
    if remote is None:
        return {}
    device, mac, encap = DEVICES[remote.version], device_mac(peer.metadata.name), Encap(remote=remote, hops=HOPS)
    values = tunnels.towards(peer, device, OVERHEAD[remote.version], mac, settings, encap)
    return fragment([*underlay.neighbours(peer, node, settings), *values])


def _owns(settings: NetworkConfig) -> Ownership:
    return Ownership(links=frozenset(DEVICES.values()), route_protocol=ROUTE_PROTOCOL)


BACKEND = Backend(
    name="gre",
    overhead=OVERHEAD,
    devices=tuple(DEVICES.values()),
    kinds=KINDS,
    plan_node=_plan_node,
    plan_peer=_plan_peer,
    depends_on=underlay.place,
    owns=_owns,
    carried_in=lambda settings: "IP protocol 47 (GRE)",
    outer=lambda settings: protocol_is(IPPROTO_GRE),
)

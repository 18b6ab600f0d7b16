"""A pod's network: one veth pair, its far end in the pod as eth0, its near end on the node's bridge.

The veth is made with its far end straight in the pod's namespace. Pod and gateway know each other's MAC as
permanent neighbours, so that no pod depends on room in the machine's one neighbour table. Within the node's block pods
reach each other over the bridge (L2); everything else goes to the gateway, which is the bridge's own address.
"""

from __future__ import annotations

import hashlib
import ipaddress

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.model.view import Sandbox, View
from podplane.state.mac import mac_of
from podplane.state.network import Address, Link, Neighbour, Peer, Route, Sysctl
from podplane.state.nft import label
from podplane.state.ownership import link_alias
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment

VETH_PREFIX = "pp"
DEFAULT = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
QUIET_IPV6 = {"accept_dad": "0", "accept_ra": "0"}
"""No duplicate address detection and no router advertisements: addresses are unique by allocation, and usable at once."""


def veth_name(container_id: str, ifname: str) -> str:
    """The near end's name: the same for the same attachment, at most 15 bytes (IFNAMSIZ)."""
    return VETH_PREFIX + hashlib.sha256(f"{container_id}/{ifname}".encode()).hexdigest()[:12]


def plan(sandbox: Sandbox, view: View, config: NetworkConfig) -> Fragment:
    """All kernel objects of one sandbox, on the node and in the pod; nothing while the node has no blocks."""
    if view.node is None or not view.node.spec.pod_cidrs or not sandbox.ips:
        return {}
    ips = [ipaddress.ip_address(ip) for ip in sandbox.ips]
    mac = mac_of(ips[0])
    return fragment(
        [*_node_side(sandbox, ips, mac, config), *_pod_side(sandbox, ips, view.node, _has_default_routes(sandbox, view))]
    )


def _node_side(sandbox: Sandbox, ips: list[IPAddress], mac: str, config: NetworkConfig) -> list[Value]:
    veth = Link(
        name=veth_name(sandbox.container_id, sandbox.ifname),
        kind="veth",
        mtu=config.mtu,
        master=config.bridge,
        hairpin=True,
        alias=link_alias(label("pod", f"{sandbox.namespace}/{sandbox.name}")),  # the longest names would pass IFALIASZ
        peer=Peer(netns=sandbox.netns, name=sandbox.ifname, mac=mac, mtu=config.mtu),
    )
    return [veth, *(Neighbour(link=config.bridge, ip=ip, mac=mac, protocol=ROUTE_PROTOCOL) for ip in ips)]


def _has_default_routes(sandbox: Sandbox, view: View) -> bool:
    """Of the interfaces of a pod the one that was attached first."""
    return next((one.ifname for one in view.sandboxes.values() if one.netns == sandbox.netns), sandbox.ifname) == sandbox.ifname


def _pod_side(sandbox: Sandbox, ips: list[IPAddress], node: Node, has_default_routes: bool) -> list[Value]:
    netns, ifname = sandbox.netns, sandbox.ifname
    values: list[Value] = [
        Sysctl(netns=netns, name=f"net.ipv6.conf.default.{name}", value=value) for name, value in QUIET_IPV6.items()
    ]
    values += [Link(netns=netns, name="lo"), Link(netns=netns, name=ifname)]
    gateway_mac = mac_of(gateway_of(ipaddress.ip_network(node.spec.pod_cidrs[0])))
    blocks = [ipaddress.ip_network(block) for block in node.spec.pod_cidrs]
    for ip, block in ((ip, block) for ip in ips for block in blocks if ip in block):
        gateway = gateway_of(block)
        values += [
            Address(netns=netns, link=ifname, ip=ip, prefix_length=block.prefixlen),
            Neighbour(netns=netns, link=ifname, ip=gateway, mac=gateway_mac, protocol=ROUTE_PROTOCOL),
        ]
        if has_default_routes:
            destination = DEFAULT[ip.version]
            values.append(Route(netns=netns, destination=destination, gateway=gateway, link=ifname, protocol=ROUTE_PROTOCOL))
    return values


def gateway_of(block: IPNetwork) -> IPAddress:
    """The bridge's address in a node block: the first one."""
    return block.network_address + 1

"""A pod's network: one veth pair, its far end in the pod as eth0, its near end on the node's bridge.

The veth is made with its far end straight in the pod's namespace. Pod and gateway know each other's MAC as
permanent neighbours, so that no pod depends on room in the machine's one neighbour table. A pod sends everything to the gateway, which
is the bridge's own address; what goes to another pod of the node is bridged to it at L2 (`pods.bridge`).

The bridge knows the pod's MAC from a static entry: it neither learns from the port nor floods to it, and takes no frame with another
source from it (`locked`), so a frame's source says which pod sent it. Broadcasts and multicasts of one pod reach no other. Frames to
01:80:c2:00:00:0X, which a bridge leaves to the port's own interface (br_handle_frame), go the same way as all others: the kernel would
take IPv4 and ARP in them as received by an interface that no rule knows. The node's end of the veth has no
IPv6, whose multicast reports would each take room in the neighbour table.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
from collections.abc import Iterable

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.model.view import Sandbox, View
from podplane.pods import bandwidth, bridge
from podplane.pods.bridge import gateway_of
from podplane.state.mac import interface_mac, link_local_of, mac_of
from podplane.state.network import Address, Fdb, Link, Neighbour, Peer, Route, Sysctl
from podplane.state.nft import label
from podplane.state.ownership import link_alias
from podplane.state.value import PARSED, Fragment, IPAddress, Value, address_of, fragment, network_of

VETH_PREFIX = bridge.PORT_PREFIX
ALL_GROUPS = 0xFFFD
"""All addresses 01:80:c2:00:00:0X but that of pause frames, which a bridge never forwards (BR_GROUPFWD_MACPAUSE)."""
DEFAULT = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
QUIET_IPV6 = {"accept_dad": "0", "accept_ra": "0"}
"""No duplicate address detection and no router advertisements: addresses are unique by allocation, and usable at once."""
NO_REDIRECTS = "net.ipv6.conf.default.accept_redirects"
"""A pod that followed a redirect would resolve other pods by itself. For IPv4 it is enough that the node sends none (`nodes.plan`); for
IPv6 the kernel has no such switch. Each further folder of sysctls takes long to look up on a machine with thousands of namespaces."""
MULTICAST_REPORTS = ipaddress.IPv6Address("ff02::16"), "33:33:00:00:00:16"
"""Where the kernel reports the multicast groups of an IPv6 link (RFC 3810), and its MAC (RFC 2464). It makes a neighbour of it, which
counts against gc_thresh3, on every link; a permanent one does not count."""


@functools.lru_cache(PARSED)
def veth_name(container_id: str, ifname: str) -> str:
    """The near end's name: the same for the same attachment, at most 15 bytes (IFNAMSIZ)."""
    return VETH_PREFIX + hashlib.sha256(f"{container_id}/{ifname}".encode()).hexdigest()[:12]


def gateway_mac(node: Node) -> str:
    """The MAC of the pods' bridge of a node that has blocks."""
    return mac_of(gateway_of(network_of(node.spec.pod_cidrs[0])))


def gateway_for(ip: IPAddress, blocks: Iterable[str]) -> IPAddress | None:
    """The gateway of a pod with this address on a node with these blocks; None where no block has its IP version.

    An address of a block that the node had before has one of a block that it has: the way out is the same link to the same bridge.
    """
    networks = [block for block in map(network_of, blocks) if block.version == ip.version]
    own = next((block for block in networks if ip in block), next(iter(networks), None))
    return gateway_of(own) if own is not None else None


def plan(sandbox: Sandbox, view: View, config: NetworkConfig, mtu: int = 0) -> Fragment:
    """All kernel objects of one sandbox, on the node and in the pod; nothing while the node has no blocks.

    `mtu` is that of pods, in bytes; 0: the uplink's.
    """
    if view.node is None or not view.node.spec.pod_cidrs or not sandbox.ips:
        return {}
    ips = [address_of(ip) for ip in sandbox.ips]
    mac = interface_mac(sandbox.mac, sandbox.ips)
    return fragment(
        [
            *_node_side(sandbox, ips, mac, config, mtu or config.mtu),
            *_pod_side(sandbox, ips, view.node, view.has_default_routes(sandbox)),
        ]
    )


def _node_side(sandbox: Sandbox, ips: list[IPAddress], mac: str, config: NetworkConfig, mtu: int) -> list[Value]:
    name = veth_name(sandbox.container_id, sandbox.ifname)
    comment = label(*sandbox.reference)  # the longest names would pass IFALIASZ
    networks = map(ipaddress.ip_network, ips)
    on_link = [link_local_of(mac)] if any(ip.version == 6 for ip in ips) else []
    return [
        Link(
            name=name,
            kind="veth",
            mtu=mtu,
            master=config.bridge,
            hairpin=True,
            learning=False,
            flood=False,
            locked=True,
            multicast_flood=False,
            broadcast_flood=False,
            group_forward=ALL_GROUPS,
            alias=link_alias(comment),
            peer=Peer(netns=sandbox.netns, name=sandbox.ifname, mac=mac, mtu=mtu),
        ),
        Sysctl(name=f"net.ipv6.conf.{name}.disable_ipv6", value="1", link=name),
        Fdb(link=name, mac=mac, master=True),
        *(Neighbour(link=config.bridge, ip=ip, mac=mac, protocol=ROUTE_PROTOCOL) for ip in (*ips, *on_link)),
        *(Route(destination=network, link=config.bridge, protocol=ROUTE_PROTOCOL) for network in networks),
        *bridge.elements(ips, mac, comment, config),
        *bandwidth.values(name, sandbox.bandwidth, mtu, link_alias(comment)),
    ]


def _pod_side(sandbox: Sandbox, ips: list[IPAddress], node: Node, has_default_routes: bool) -> list[Value]:
    netns, ifname = sandbox.netns, sandbox.ifname
    values: list[Value] = [
        Sysctl(netns=netns, name=f"net.ipv6.conf.default.{name}", value=value) for name, value in QUIET_IPV6.items()
    ]
    values.append(Sysctl(netns=netns, name=NO_REDIRECTS, value="0"))
    reports, reports_mac = MULTICAST_REPORTS
    values += [Link(netns=netns, name="lo"), Link(netns=netns, name=ifname)]
    values.append(Neighbour(netns=netns, link=ifname, ip=reports, mac=reports_mac, protocol=ROUTE_PROTOCOL))
    for ip in ips:
        if (gateway := gateway_for(ip, node.spec.pod_cidrs)) is None:
            continue
        values += [
            Address(netns=netns, link=ifname, ip=ip, prefix_length=ip.max_prefixlen),
            Neighbour(netns=netns, link=ifname, ip=gateway, mac=gateway_mac(node), protocol=ROUTE_PROTOCOL),
        ]
        if has_default_routes:
            to_gateway = Route(
                netns=netns,
                destination=DEFAULT[ip.version],
                gateway=gateway,
                link=ifname,
                onlink=True,
                protocol=ROUTE_PROTOCOL,
            )
            values.append(to_gateway)
    return values

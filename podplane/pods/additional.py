"""Further interfaces of pods (`net1`, …): a veth pair each, on a bridge that a network has on each node where a pod of it runs.

A network ends at its node: pods of one node reach each other by its subnets, those of other nodes do not, nor does the node itself, which
has no address there. What comes up to the bridge's own interface is dropped before anybody looks at it (`pods.bridge`, set `further`):
else a pod could reach the node past policies, and have it learn neighbours. A port takes frames with its pod's MAC only,
and gets those to it, as on the pods' bridge (`pods.plan`). Pods resolve each other by ARP and neighbour discovery.

The bridge is in the plan of each interface, and is there as long as one is. Policies and Services are about the pods' own
network; a packet of a further one passes the hooks of IP too (br_netfilter), where no rule knows its bridge.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.view import BridgeNetwork, Sandbox
from podplane.pods.bridge import FURTHER, TABLE
from podplane.pods.plan import ALL_GROUPS, MULTICAST_REPORTS, QUIET_IPV6, veth_name
from podplane.state.mac import interface_mac
from podplane.state.network import Address, Fdb, Link, Neighbour, Peer, Sysctl
from podplane.state.nft import Element, label
from podplane.state.ownership import link_alias
from podplane.state.value import Fragment, Value, address_of, fragment, network_of

PREFIX = "ppn"


def bridge_name(network: BridgeNetwork) -> str:
    """The network's bridge: another definition of the same name has another one, and pods of the former keep theirs."""
    text = f"{network.name} {' '.join(network.subnets)} {network.mtu}"
    return PREFIX + hashlib.sha256(text.encode()).hexdigest()[:11]


def why_refused(network: BridgeNetwork, config: NetworkConfig, node_ips: Collection[str]) -> str:
    """Why a node with these addresses can't have it, "" when it can."""
    if not config.bridge_family:
        return "the kernel has no nf_tables of the bridge family, which keep it from the node"
    for subnet in map(network_of, network.subnets):
        for taken in map(network_of, (*config.cluster_cidrs, *config.service_cidrs)):
            if subnet.version == taken.version and subnet.overlaps(taken):
                return f"its subnet {subnet} overlaps with {taken}, which is the cluster's"
        if taken_ip := next((ip for ip in node_ips if address_of(ip) in subnet), ""):
            return f"its subnet {subnet} has the node's address {taken_ip}: the pod would not reach nodes and the API any more"
    return ""


def plan(sandbox: Sandbox, network: BridgeNetwork, config: NetworkConfig) -> Fragment:
    """All kernel objects of one interface, on the node and in the pod."""
    bridge, mtu = bridge_name(network), network.mtu or config.mtu
    mac, comment = interface_mac(sandbox.mac, sandbox.ips), label(*sandbox.reference)
    name = veth_name(sandbox.container_id, sandbox.ifname)
    family, table = TABLE
    values: list[Value] = [
        Link(name=bridge, kind="bridge", mtu=mtu, snooping=False, alias=link_alias(label("network", network.name))),
        Link(
            name=name,
            kind="veth",
            mtu=mtu,
            master=bridge,
            learning=False,
            flood=False,
            locked=True,
            group_forward=ALL_GROUPS,
            alias=link_alias(comment),
            peer=Peer(netns=sandbox.netns, name=sandbox.ifname, mac=mac, mtu=mtu),
        ),
        *(Sysctl(name=f"net.ipv6.conf.{one}.disable_ipv6", value="1", link=one) for one in (bridge, name)),
        Fdb(link=name, mac=mac, master=True),
        Element(family=family, table=table, set=FURTHER, key=(name,), comment=comment),
    ]
    return fragment([*values, *_pod_side(sandbox, network)])


def _pod_side(sandbox: Sandbox, network: BridgeNetwork) -> list[Value]:
    netns, ifname = sandbox.netns, sandbox.ifname
    reports, reports_mac = MULTICAST_REPORTS
    values: list[Value] = [Sysctl(netns=netns, name=f"net.ipv6.conf.default.{name}", value=v) for name, v in QUIET_IPV6.items()]
    values += [Link(netns=netns, name="lo"), Link(netns=netns, name=ifname)]
    values.append(Neighbour(netns=netns, link=ifname, ip=reports, mac=reports_mac, protocol=ROUTE_PROTOCOL))
    for ip in map(address_of, sandbox.ips):
        length = next((net.prefixlen for net in map(network_of, network.subnets) if ip in net), ip.max_prefixlen)
        values.append(Address(netns=netns, link=ifname, ip=ipaddress.ip_address(ip), prefix_length=length))
    return values

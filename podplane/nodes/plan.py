"""A node's own network: the bridge of its pods, forwarding, and masquerade of what leaves the cluster.

The bridge keeps no list of who wants which multicasts (`snooping`): pods would fill it, and nothing is multicast between them.

The bridge cbr0 has the first address of each block and is the pods' gateway. Packets between two of its ports pass
netfilter too (bridge-nf-call): without it the reply of a pod on the same bridge would go past address translation and policy.

Nothing but the addresses of pods is on the bridge's link: each pod brings a route of its own, and the rest of the block is unreachable.
So an address that no pod has is refused at once, and nobody can fill the machine's neighbour table by asking for all of them. The bridge
sends no ICMP redirects: a pod that followed one would resolve the other pod by itself.

Connections that one side has closed are remembered for an hour, and idle ones for a day, as kube-proxy has it (--conntrack-tcp-timeout-*):
with the kernel's 60 s, what a client sends to the half that is open still would reach its Service as a new connection.

Where the way to the other side of a TCP connection carries less than both sides know, the segments that they agree on are made to fit it
(MSS clamping): what is too large would be told by ICMP, which some clients never see.

What a pod sends out of the cluster gets the node's address: nobody outside knows a way back to a pod. Pods, nodes
and excluded CIDRs see the pod's own address. Each node's addresses are elements that the node's own key brings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.nodes.settings import NodeSettings
from podplane.state.links import carries, distrusted, forwarding, router_sysctls
from podplane.state.mac import mac_of
from podplane.state.network import Address, Link, Route, Sysctl
from podplane.state.nft import DROP, Chain, Element, Hook, Set, Table, label
from podplane.state.nft_nat import is_invalid
from podplane.state.nft_rules import (
    Row,
    clamp_segments,
    counter,
    destination_in,
    destination_not_in,
    destination_not_in_set,
    family,
    input_is,
    jump,
    masquerade,
    opens_connection,
    output_is,
    rule,
    source_in,
    source_not_in,
    verdict,
)
from podplane.state.ownership import link_alias
from podplane.state.value import Fragment, IPNetwork, Value, address_of, fragment, network_of

TABLE = ("inet", "podplane-nodes")
SOURCE_NAT_PRIORITY = 100
FILTER_PRIORITY = 0
MANGLE_PRIORITY = -150
"""NF_IP_PRI_NAT_SRC, NF_IP_PRI_FILTER, NF_IP_PRI_MANGLE."""
SEGMENTS = "segments"
INVALID = "of no connection: masquerade would not see it"
TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
SYSCTLS: dict[str, str] = {
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.fib_multipath_hash_policy": "1",
    "net.ipv6.fib_multipath_hash_policy": "1",
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait": "3600",
    "net.netfilter.nf_conntrack_tcp_timeout_established": "86400",
}
"""`be_liberal`: a TCP segment outside of the window that connection tracking expects stays part of its connection, so it is translated
(otherwise it would pass as it is, and the other side would answer with a reset). Source: nf_conntrack_proto_tcp.c, tcp_in_window.
`fib_multipath_hash_policy`: where several ways lead to the same place, each connection takes one of them, by its addresses and ports
(ip-sysctl); with the kernel's 0, by addresses alone, all connections between two nodes take the same one."""


def plan(
    node: Node,
    config: NetworkConfig,
    own: NodeSettings,
    mtu: int = 0,
    tunnels: Iterable[str] = (),
    outer: Iterable[Row] = (),
) -> Fragment:
    """All kernel objects that this node needs whatever pods it has; nothing while it has no blocks.

    `mtu` is that of pods, in bytes; 0: the uplink's. `tunnels` are the links through which other nodes' pods are reached, and `outer`
    matches the packets in which those of pods travel between nodes.
    """
    blocks = [ipaddress.ip_network(block) for block in node.spec.pod_cidrs]
    if not blocks:
        return {}
    values: list[Value] = [Sysctl(name=name, value=value) for name, value in SYSCTLS.items()]
    versions = {block.version: None for block in blocks}
    for version in (one for one in versions if carries(one, config.mtu)):
        values.append(Sysctl(name=forwarding(version, config.uplink), value="1"))
        values += [Sysctl(name=name, value="0") for name in distrusted(version, config.uplink)]
    values += _bridge(blocks, config, mtu or config.mtu)
    values += _clamping(versions, config)
    if own.masquerade:
        values += _masquerade(blocks, config, own)
        values += node_elements(node, (block.version for block in blocks))
    if tunnels:
        values += _into_tunnels(blocks, config, tunnels)
        values += _sent_by_nodes_alone(blocks, config, outer)
    return fragment(values)


def _bridge(blocks: list[IPNetwork], config: NetworkConfig, mtu: int) -> list[Value]:
    gateways = [block.network_address + 1 for block in blocks]
    bridge = config.bridge
    return [
        Link(name=bridge, kind="bridge", mtu=mtu, mac=mac_of(gateways[0]), snooping=False, alias=link_alias()),
        # The kernel sends redirects where `all` or the device allows it (IN_DEV_TX_REDIRECTS).
        Sysctl(name=f"net.ipv4.conf.{bridge}.send_redirects", value="0", link=bridge),
        *(sysctl for ip in gateways for sysctl in router_sysctls(ip.version, bridge)),
        *(Address(link=bridge, ip=ip, prefix_length=ip.max_prefixlen) for ip in gateways),
        *(Route(destination=block, kind="unreachable", protocol=ROUTE_PROTOCOL) for block in blocks),
    ]


def _masquerade(blocks: list[IPNetwork], config: NetworkConfig, own: NodeSettings) -> list[Value]:
    family_name, table = TABLE
    hook, before = Hook("nat", "postrouting", SOURCE_NAT_PRIORITY), Hook("filter", "forward", FILTER_PRIORITY)
    leaves = {
        block: (
            family(block.version),
            source_in(block),
            destination_not_in_set(block.version, _inside(block.version)),
            destination_not_in_set(block.version, _nodes(block.version)),
            counter(),
        )
        for block in blocks
    }
    translate = tuple(
        rule(*row, masquerade(), comment=f"pods {block}: masquerade what leaves the cluster") for block, row in leaves.items()
    )
    drop = tuple(rule(is_invalid(), *row, verdict(DROP), comment=f"pods {block}: {INVALID}") for block, row in leaves.items())
    values: list[Value] = [
        Table(family=family_name, table=table),
        Chain(family=family_name, table=table, name="invalid", hook=before, rules=drop),
        Chain(family=family_name, table=table, name="postrouting", hook=hook, rules=translate),
    ]
    for version in (block.version for block in blocks):
        key = (TYPE[version],)
        values += [
            Set(family=family_name, table=table, name=_inside(version), key=key, interval=True),
            Set(family=family_name, table=table, name=_nodes(version), key=key),
            *_inside_elements(version, config, own),
        ]
    return values


def _clamping(versions: Collection[int], config: NetworkConfig) -> list[Value]:
    """TCP connections of pods, of which no side is sent larger segments than the way carries: it may be narrower than both know, and a pod
    may have a larger MTU than its node wants now. Only what begins a connection is looked at twice; what others forward is left alone."""
    family_name, table = TABLE
    cidrs = [cidr for cidr in map(network_of, config.cluster_cidrs) if cidr.version in versions]
    rows = [(family(cidr.version), end(cidr)) for cidr in cidrs for end in (source_in, destination_in)]
    rules = tuple(rule(*row, clamp_segments(), comment="segments of pods fit the way") for row in rows)
    first = (rule(opens_connection(), jump(SEGMENTS)),)
    return [
        Table(family=family_name, table=table),
        Chain(family=family_name, table=table, name=SEGMENTS, rules=rules),
        Chain(family=family_name, table=table, name="forward", hook=Hook("filter", "forward", MANGLE_PRIORITY), rules=first),
    ]


def _into_tunnels(blocks: list[IPNetwork], config: NetworkConfig, tunnels: Iterable[str]) -> list[Value]:
    """What enters a tunnel comes from a pod, or from the node's address on it: answers to any other would not be encapsulated, and the
    network between nodes may drop them, as it knows no pods."""
    family_name, table = TABLE
    hook = Hook("nat", "postrouting", SOURCE_NAT_PRIORITY)
    inside = {v: [n for n in map(ipaddress.ip_network, config.cluster_cidrs) if n.version == v] for v in (4, 6)}
    rules = tuple(
        rule(output_is(name), family(version), *(source_not_in(cidr) for cidr in inside[version]), masquerade())
        for name in tunnels
        for version in {block.version: None for block in blocks}
    )
    comment = "into a tunnel: from pods, or the node's address there"
    return [
        Table(family=family_name, table=table),
        Chain(family=family_name, table=table, name="tunnels", hook=hook, rules=rules, comment=comment),
    ]


def _sent_by_nodes_alone(blocks: list[IPNetwork], config: NetworkConfig, outer: Iterable[Row]) -> list[Value]:
    """No pod sends a node what only nodes send each other: the packet in it could have any sender, and would go past policies. Two pods may
    have a tunnel of their own between them. What was sent to a Service has its endpoint's address here, so it can't go round that."""
    family_name, table = TABLE
    inside = {v: [n for n in map(ipaddress.ip_network, config.cluster_cidrs) if n.version == v] for v in (4, 6)}
    ends: dict[str, list[Row]] = {
        "input": [()],
        "forward": [
            (*family(version), *(part for cidr in inside[version] for part in destination_not_in(cidr)))
            for version in {block.version: None for block in blocks}
        ],
    }
    return [
        Chain(
            family=family_name,
            table=table,
            name=f"outer-{hook}",
            hook=Hook("filter", hook, FILTER_PRIORITY),
            rules=tuple(
                rule(
                    match,
                    input_is(config.bridge),
                    row,
                    counter(),
                    verdict(DROP),
                    comment="pods: what only nodes send each other",
                )
                for match in outer
                for row in rows
            ),
        )
        for hook, rows in ends.items()
    ]


def _inside_elements(version: int, config: NetworkConfig, own: NodeSettings) -> list[Value]:
    named = [(cidr, "cluster CIDR") for cidr in config.cluster_cidrs]
    named += [(cidr, "excluded") for cidr in own.masquerade_exclude] + [(MULTICAST[version], "multicast")]
    family_name, table = TABLE
    networks = {ipaddress.ip_network(cidr): comment for cidr, comment in reversed(named)}
    collapsed = ipaddress.collapse_addresses(n for n in networks if n.version == version)  # type: ignore[type-var]  # one version
    return [
        Element(
            family=family_name,
            table=table,
            set=_inside(version),
            key=(network,),
            comment=networks.get(network, "excluded"),
        )
        for network in collapsed
    ]


def node_elements(node: Node, versions: Iterable[int]) -> list[Value]:
    """The node's addresses as elements of the sets of nodes, which pods reach with their own address."""
    (family_name, table), comment, wanted = TABLE, label("node", node.metadata.name), set(versions)
    return [
        Element(family=family_name, table=table, set=_nodes(ip.version), key=(ip,), comment=comment)
        for ip in map(address_of, node.internal_ips)
        if ip.version in wanted
    ]


def peer_plan(peer: Node, versions: Iterable[int], own: NodeSettings) -> Fragment:
    """What another node adds to one with blocks of these IP versions: its addresses are reached without masquerade."""
    return fragment(node_elements(peer, versions)) if own.masquerade else {}


def _inside(version: int) -> str:
    return f"inside{version}"


def _nodes(version: int) -> str:
    return f"nodes{version}"

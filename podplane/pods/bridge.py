"""The table of the pods' bridge: packets between pods of one node are bridged, though each pod sends everything to its gateway.

A pod has its address with the full prefix length, and its gateway as the only neighbour. So it never resolves another pod, and the
machine's one neighbour table (gc_thresh3) doesn't grow with the pairs of pods that talk. What a pod sends to another one of its node
arrives at the bridge with the gateway's MAC as its destination; this table replaces that by the other pod's MAC before the bridge looks
at it. The packet is forwarded at L2 then (TTL unchanged), and passes netfilter's forward hook once (bridge-nf-call).

The table sees packets behind br_netfilter, so by their translated destination: also those to a Service, an external IP or a host port.
The bridge has marked a packet with the gateway's MAC as one for this host already (br_handle_frame), and so would a bridge in promiscuous
mode (`tcpdump -i cbr0`) deliver a copy to the host's IP layer, which forwards it a second time. So it is marked as one for somebody else.

Without this table the same packets are routed through the bridge's own interface: that is what happens while an element is missing, and
on kernels without nf_tables of the bridge family. Each pod brings its own elements.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.state.nft import Chain, Element, Hook, Rule, Set, Table
from podplane.state.nft_rules import (
    ethertype,
    rule,
    set_ether_destination_from,
    set_other_host,
)
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment

TABLE = ("bridge", "podplane-pods")
PRIORITY = 10
"""Behind NF_BR_PRI_BRNF (0), where br_netfilter has the packet pass the hooks of IP and translates its destination."""
TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


def gateway_of(block: IPNetwork) -> IPAddress:
    """The bridge's address in a node block: the first one."""
    return block.network_address + 1


def plan(node: Node, config: NetworkConfig) -> Fragment:
    """The table of this node, without any pod; nothing while it has no blocks, or where the kernel has no bridge family."""
    blocks = [ipaddress.ip_network(block) for block in node.spec.pod_cidrs]
    if not blocks or not config.bridge_family:
        return {}
    versions = [block.version for block in blocks]
    family, table = TABLE
    values: list[Value] = [Table(family=family, table=table)]
    values += [Set(family=family, table=table, name=_macs(v), key=(TYPE[v],), data=("ether_addr",)) for v in versions]
    hook, rules = Hook("filter", "prerouting", PRIORITY), tuple(map(_rule, versions))
    values.append(Chain(family=family, table=table, name="prerouting", hook=hook, rules=rules))
    return fragment(values)


def _rule(version: int) -> Rule:
    to_pod = set_ether_destination_from(version, _macs(version))
    return rule(ethertype(version), to_pod, set_other_host(), comment="between pods of this node")


def elements(ips: Iterable[IPAddress], mac: str, comment: str, config: NetworkConfig) -> list[Element]:
    """The MAC of a pod, for each of its addresses."""
    if not config.bridge_family:
        return []
    family, table = TABLE
    return [Element(family=family, table=table, set=_macs(ip.version), key=(ip,), data=(mac,), comment=comment) for ip in ips]


def _macs(version: int) -> str:
    return f"macs{version}"

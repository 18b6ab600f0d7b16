"""The table of the pods' bridge: packets between pods of one node are bridged, though each pod sends everything to its gateway.

A pod has its address with the full prefix length, and its gateway as the only neighbour. So it never resolves another pod, and the
machine's one neighbour table (gc_thresh3) doesn't grow with the pairs of pods that talk. What a pod sends to another one of its node
arrives at the bridge with the gateway's MAC as its destination; this table replaces that by the other pod's MAC before the bridge looks
at it. The packet is forwarded at L2 then (TTL unchanged), and passes netfilter's forward hook once (bridge-nf-call).

The bridge has marked such a packet as one for this host already (br_handle_frame), and so would a bridge in promiscuous mode deliver a
copy to the host's IP layer, which forwards it a second time. So it is marked as one for somebody else. The same is done behind
br_netfilter, where the destination of a packet may have been translated to a pod (from an address of a Service, or a host port).

Without this table the same packets are routed through the bridge's own interface: that is what happens while an element is missing, and
on kernels without nf_tables of the bridge family. Each pod brings its own elements.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.state.mac import mac_of
from podplane.state.nft import Chain, Element, Hook, Rule, Set, Table
from podplane.state.nft_rules import (
    ether_destination_is,
    ethertype,
    rule,
    set_ether_destination_from,
    set_other_host,
)
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment

TABLE = ("bridge", "podplane-pods")
PRIORITIES = {"prerouting": -310, "translated": 10}
"""Name of a chain → its priority: before NF_BR_PRI_BRNF (0), where br_netfilter takes the packet, and before NF_BR_PRI_NAT_DST_BRIDGED
(-300); and behind br_netfilter."""
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
    rules = tuple(_rules(mac_of(gateway_of(blocks[0])), versions))
    values: list[Value] = [Table(family=family, table=table)]
    values += [Set(family=family, table=table, name=_macs(v), key=(TYPE[v],), data=("ether_addr",)) for v in versions]
    for name, priority in PRIORITIES.items():
        hook = Hook("filter", "prerouting", priority)
        values.append(Chain(family=family, table=table, name=name, hook=hook, rules=rules))
    return fragment(values)


def _rules(gateway_mac: str, versions: Iterable[int]) -> Iterator[Rule]:
    to_gateway = ether_destination_is(gateway_mac)
    for version in versions:
        to_pod = set_ether_destination_from(version, _macs(version))
        yield rule(to_gateway, ethertype(version), to_pod, set_other_host(), comment="between pods of this node")


def elements(ips: Iterable[IPAddress], mac: str, comment: str, config: NetworkConfig) -> list[Element]:
    """The MAC of a pod, for each of its addresses."""
    if not config.bridge_family:
        return []
    family, table = TABLE
    return [Element(family=family, table=table, set=_macs(ip.version), key=(ip,), data=(mac,), comment=comment) for ip in ips]


def _macs(version: int) -> str:
    return f"macs{version}"

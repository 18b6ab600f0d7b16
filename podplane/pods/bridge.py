"""The table of the pods' bridge: packets between pods of one node are bridged, though each pod sends everything to its gateway.

A pod has its address with the full prefix length, and its gateway as the only neighbour. So it never resolves another pod, and the
machine's one neighbour table (gc_thresh3) doesn't grow with the pairs of pods that talk. What a pod sends to another one of its node
arrives at the bridge with the gateway's MAC as its destination; this table replaces that by the other pod's MAC before the bridge looks
at it. The packet is forwarded at L2 then (TTL unchanged), and passes netfilter's forward hook once (bridge-nf-call).

The table sees packets behind br_netfilter, so by their translated destination: also those to a Service, an external IP or a host port.
The bridge has marked a packet with the gateway's MAC as one for this host already (br_handle_frame), and so would a bridge in promiscuous
mode (`tcpdump -i cbr0`) deliver a copy to the host's IP layer, which forwards it a second time. So it is marked as one for somebody else.

What is neither IPv4 nor IPv6 passes no hook of IP, so it is looked at here. ARP is for the gateway only, and from the pod's own MAC and
address: it makes no neighbour of the node, and reaches no other pod. Everything else (VLAN tags, within which an IPv4 packet passes no
hook of IP either, 802.2, LLDP, PPPoE, …) is dropped. Its ether type is read from the frame: of one whose tag the kernel has taken off
`meta protocol` says what is within.

A broadcast or multicast goes to the bridge only (`pods.plan`), and connection tracking confirms it before the hooks of IP at the node's
own input, where policies accept what is confirmed. So none but the solicitations of neighbours and routers gets there (RFC 4861).

What is left goes to the node, by the gateway's MAC alone. The ports of the bridge have MACs too: what a pod sends to that of another
port comes to the node as a packet for somebody else, which connection tracking confirms as it does a broadcast (br_nf_local_in), and so
policies would accept what follows. By the MAC of another pod it would reach that one, whatever its address (fe80::/10).

The node answers a packet that it can't pass on with an error (its TTL is used up, an option is unknown, it is for a link), and would
send that, with what was in the packet, to whose address the packet has: so these are taken with the pod's own address only. Policies see
to that for packets that begin a connection or are of none, before this table; here is what the kernel refuses whatever it is of. Fragments
are looked at before all else: br_netfilter puts those of one packet together, and the sender of the first one alone is seen behind it.

The hooks see the frames of all bridges of the machine, which may be those of others (docker0, virbr0, another network of pods): what comes
by a port whose name does not begin as those of podplane's is none of its business. Bridges themselves are known by name only where the
kernel has the module nft_meta_bridge.

A packet to a pod of the node is done after three rules: a round trip between pods is 2 % cheaper so than with the other two in front.

Without this table the same packets are routed through the bridge's own interface: that is what happens while an element is missing, and
on kernels without nf_tables of the bridge family. Each pod brings its own elements.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.state.mac import BROADCAST, mac_of
from podplane.state.nft import ACCEPT, DROP, Chain, Element, Hook, Rule, Set, Table
from podplane.state.nft_rules import (
    ETHERTYPE,
    NOT_EQUAL,
    arp_of_ipv4,
    arp_sender_in,
    counter,
    destination_in,
    ether_destination_is,
    ether_type_is,
    ethertype,
    goto,
    has_extension_headers,
    has_hop_by_hop_options,
    has_one_hop_left,
    icmp6_type_is,
    input_begins_not,
    input_in,
    is_fragment,
    is_to_group,
    rule,
    sender_in,
    set_ether_destination_from,
    set_other_host,
    verdict,
)
from podplane.state.value import PARSED, Fragment, IPAddress, IPNetwork, Value, fragment

TABLE = ("bridge", "podplane-pods")
PRIORITY, EARLY_PRIORITY = 10, -10
"""Behind NF_BR_PRI_BRNF (0), where br_netfilter has the packet pass the hooks of IP and translates its destination; and before it."""
TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
OTHERS, GROUPS, ARP_SENDERS, ANSWERED = "others", "groups", "arp4", "answered"
FURTHER = "further"
PORT_PREFIX = "pp"
"""The names of ports of podplane's bridges begin so."""
LINK_LOCAL = ipaddress.ip_network("fe80::/10")
SOLICITATIONS = 133, 135
"""ICMPv6 types: of routers, of neighbours."""


@functools.lru_cache(PARSED)
def gateway_of(block: IPNetwork) -> IPAddress:
    """The bridge's address in a node block: the first one."""
    return block.network_address + 1


def plan(node: Node, config: NetworkConfig, *, has_further: bool = False) -> Fragment:
    """The table of this node, without any pod; nothing while it has no blocks, or where the kernel has no bridge family.

    `has_further`: a pod of the node has an interface of a further network (`pods.additional`).
    """
    blocks = [ipaddress.ip_network(block) for block in node.spec.pod_cidrs]
    if not blocks or not config.bridge_family:
        return {}
    versions = [block.version for block in blocks]
    family, table = TABLE
    values: list[Value] = [Table(family=family, table=table)]
    values += [Set(family=family, table=table, name=_macs(v), key=(TYPE[v],), data=("ether_addr",)) for v in versions]
    values += [Set(family=family, table=table, name=_own(v), key=("ether_addr", TYPE[v])) for v in versions]
    others = rule(*(ether_type_is(version, op=NOT_EQUAL) for version in ETHERTYPE), goto(OTHERS))
    to_group = rule(is_to_group(), goto(GROUPS))
    gateway_mac = mac_of(gateway_of(blocks[0]))
    to_other_mac = rule(
        ether_destination_is(gateway_mac, op=NOT_EQUAL), counter(), verdict(DROP), comment="to the node, but not by its MAC"
    )
    hook, rules = Hook("filter", "prerouting", PRIORITY), (to_group, *map(_rule, versions), others, to_other_mac, *_answered())
    of_further = rule(input_in(FURTHER), verdict(ACCEPT), comment="of a further network")
    if has_further:
        rules = (of_further, *rules)
        values += _further()
    foreign = rule(input_begins_not(PORT_PREFIX), verdict(ACCEPT), comment="of a bridge of others")
    values.append(Chain(family=family, table=table, name="prerouting", hook=hook, rules=(foreign, *rules)))
    early = (foreign, *([of_further] if has_further else []), *_fragments())
    values.append(
        Chain(family=family, table=table, name="fragments", hook=Hook("filter", "prerouting", EARLY_PRIORITY), rules=early)
    )
    values.append(Chain(family=family, table=table, name=GROUPS, rules=(others, *_to_groups(versions))))
    own = [rule(ethertype(v), sender_in(v, _own(v)), verdict(ACCEPT)) for v in versions]
    dropped = rule(counter(), verdict(DROP), comment="an error would answer it, to an address that is not the pod's own")
    values.append(Chain(family=family, table=table, name=ANSWERED, rules=(*own, dropped)))
    return fragment([*values, *_others(gateway_mac)])


def _answered() -> Iterator[Rule]:
    """What the node may answer with an error whatever connection it is of."""
    for version in (4, 6):
        yield rule(ethertype(version), has_one_hop_left(version), goto(ANSWERED))
    yield rule(ethertype(6), has_hop_by_hop_options(), goto(ANSWERED))
    yield rule(ethertype(6), destination_in(LINK_LOCAL), goto(ANSWERED))


def _fragments() -> Iterator[Rule]:
    """What may be a fragment: in IPv6 its header may be behind others."""
    yield rule(ethertype(4), is_fragment(), goto(ANSWERED))
    yield rule(ethertype(6), has_extension_headers(), goto(ANSWERED))


def _further() -> Iterator[Value]:
    """The ports of further networks, and what keeps their frames from the node."""
    family, table = TABLE
    yield Set(family=family, table=table, name=FURTHER, key=("ifname",))
    drop = rule(input_in(FURTHER), counter(), verdict(DROP), comment="to the node itself, from a further network")
    yield Chain(family=family, table=table, name="input", hook=Hook("filter", "input", 0), rules=(drop,))


def _others(gateway_mac: str) -> Iterator[Value]:
    """The chain of what is not IP, and what it looks into."""
    family, table = TABLE
    key = ("ether_addr", "ether_addr", TYPE[4])
    yield Set(family=family, table=table, name=ARP_SENDERS, key=key, comment="MAC of the frame, MAC and address that it tells")
    own = (arp_of_ipv4(), arp_sender_in(ARP_SENDERS))
    rules = [
        rule(ether_destination_is(to), *own, verdict(ACCEPT), comment="ARP of a pod's own address, to its gateway")
        for to in (gateway_mac, BROADCAST)
    ]
    dropped = rule(counter(), verdict(DROP), comment="neither IP nor a pod's own ARP")
    yield Chain(family=family, table=table, name=OTHERS, rules=(*rules, dropped))


def _to_groups(versions: Iterable[int]) -> Iterator[Rule]:
    """What of IP's broadcasts and multicasts reaches the node."""
    if 6 in versions:
        for kind in SOLICITATIONS:
            yield rule(
                ethertype(6), icmp6_type_is(kind), verdict(ACCEPT), comment="it asks the node for its MAC, or for routers"
            )
    yield rule(counter(), verdict(DROP), comment="IP to everybody on the bridge")


def _rule(version: int) -> Rule:
    own = (ethertype(version), ether_type_is(version))  # the first one is the cheaper, the second one knows tags
    to_pod = set_ether_destination_from(version, _macs(version))
    return rule(*own, to_pod, set_other_host(), verdict(ACCEPT), comment="between pods of this node")


def elements(ips: Iterable[IPAddress], mac: str, comment: str, config: NetworkConfig) -> list[Element]:
    """The MAC of a pod, for each of its addresses, and what it may tell by ARP."""
    if not config.bridge_family:
        return []
    family, table = TABLE
    found = [Element(family=family, table=table, set=_macs(ip.version), key=(ip,), data=(mac,), comment=comment) for ip in ips]
    senders = [(mac, mac, ip) for ip in ips if ip.version == 4]
    found += [Element(family=family, table=table, set=_own(ip.version), key=(mac, ip), comment=comment) for ip in ips]
    return [*found, *(Element(family=family, table=table, set=ARP_SENDERS, key=key, comment=comment) for key in senders)]


def _own(version: int) -> str:
    return f"own{version}"


def _macs(version: int) -> str:
    return f"macs{version}"

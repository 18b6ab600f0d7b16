"""Expressions under names that read like nft's own: a rule is `rule(ip_saddr(net), lookup_not(…), masquerade())`.

Each function returns the row of expressions for one match or statement.
"""

from __future__ import annotations

from podplane.state.nft import (
    GOTO,
    JUMP,
    Bitwise,
    ByteOrder,
    Cmp,
    Counter,
    CounterReference,
    Expression,
    Immediate,
    Lookup,
    Masquerade,
    Meta,
    Payload,
    RouteLoad,
    Rule,
    SetTcpOption,
    Verdict,
)
from podplane.state.value import IPNetwork

Row = tuple[Expression, ...]
LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER = 0, 1, 2
META_NFPROTO, META_OIFNAME, META_IIFNAME, META_PROTOCOL, META_PKTTYPE, META_L4PROTO = 15, 7, 6, 1, 19, 16
UDP, GRE, ICMP6 = 17, 47, 58
"""IPPROTO_*."""
DESTINATION_PORT_OFFSET = 2
"""Of TCP, UDP and SCTP."""
ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
PACKET_HOST, PACKET_OTHERHOST = 0, 3
NFPROTO = {4: 2, 6: 10}
SOURCE_OFFSET, DESTINATION_OFFSET = {4: 12, 6: 8}, {4: 16, 6: 24}
FULLY_RANDOM = 1 << 4
"""NF_NAT_RANGE_PROTO_RANDOM_FULLY: no two flows race for one port."""
INVERT = 1
EQUAL, NOT_EQUAL = 0, 1
"""NFT_CMP_EQ, NFT_CMP_NEQ."""
MAC_SOURCE_OFFSET, MAC_SIZE = 6, 6
BEHIND_MAC = 10
"""The register behind a MAC, which fills two of four bytes."""
HOPS_LEFT_OFFSET = {4: 8, 6: 7}
"""Of the TTL (RFC 791), of the hop limit (RFC 8200)."""
HOP_BY_HOP = 0
TCP, TCP_FLAGS_OFFSET, TCP_SYN, TCP_RST, MAXIMUM_SEGMENT = 6, 13, 2, 4, 2
"""RFC 9293; the kind of an option that says the maximum segment size, which is behind its kind and length."""
RT_TCPMSS, TO_NETWORK = 3, 1
"""NFT_RT_TCPMSS, NFT_BYTEORDER_HTON."""
NAME_SIZE = 16
"""IFNAMSIZ."""


def rule(*rows: Row, comment: str = "") -> Rule:
    """A rule of these rows."""
    return Rule(tuple(expression for row in rows for expression in row), comment)


def family(version: int) -> Row:
    """`meta nfproto`: only IPv4, or only IPv6; a match of addresses in an inet table begins so."""
    return (Meta(key=META_NFPROTO, dreg=1), Cmp(data=bytes((NFPROTO[version],))))


def ethertype(version: int) -> Row:
    """`meta protocol ip`, or `ip6`: in a table of the bridge family, a match of addresses begins so."""
    return (Meta(key=META_PROTOCOL, dreg=1), Cmp(data=ETHERTYPE[version]))


def ether_type_is(version: int, op: int = EQUAL) -> Row:
    """`ether type ip`, or `!=`: as the frame has it, so a tagged one is of another type."""
    return (Payload(dreg=1, base=LINK_HEADER, offset=12, length=2), Cmp(op=op, data=ETHERTYPE[version]))


def ether_destination_is(mac: str, op: int = EQUAL) -> Row:
    """`ether daddr 0a:58:0a:f4:01:01`, or `!=` with NOT_EQUAL."""
    return (Payload(dreg=1, base=LINK_HEADER, offset=0, length=6), Cmp(op=op, data=bytes.fromhex(mac.replace(":", ""))))


def is_to_group() -> Row:
    """`meta pkttype != host meta pkttype != other`: a broadcast or multicast, as the kernel told from the MAC when the frame came in
    (eth_type_trans). Each frame is asked, and nearly all are to the host: that comparison takes much less than one with a range (65 ns)."""
    load = Meta(key=META_PKTTYPE, dreg=1)
    return tuple(part for kind in (PACKET_HOST, PACKET_OTHERHOST) for part in (load, Cmp(op=NOT_EQUAL, data=bytes((kind,)))))


def icmp6_type_is(kind: int) -> Row:
    """`icmpv6 type 135`, with `meta l4proto ipv6-icmp` before it."""
    load = Payload(dreg=1, base=TRANSPORT_HEADER, offset=0, length=1)
    return (Meta(key=META_L4PROTO, dreg=1), Cmp(data=bytes((ICMP6,))), load, Cmp(data=bytes((kind,))))


def protocol_is(number: int) -> Row:
    """`meta l4proto gre`."""
    return (Meta(key=META_L4PROTO, dreg=1), Cmp(data=bytes((number,))))


def udp_port_is(port: int) -> Row:
    """`udp dport 4789`."""
    load = Payload(dreg=1, base=TRANSPORT_HEADER, offset=DESTINATION_PORT_OFFSET, length=2)
    return (*protocol_is(UDP), load, Cmp(data=port.to_bytes(2, "big")))


def sender(version: int) -> Row:
    """`ether saddr . ip saddr`, in registers; after `family` or `ethertype`."""
    mac = Payload(dreg=1, base=LINK_HEADER, offset=MAC_SOURCE_OFFSET, length=MAC_SIZE)
    return (mac, Payload(dreg=BEHIND_MAC, base=NETWORK_HEADER, offset=SOURCE_OFFSET[version], length={4: 4, 6: 16}[version]))


def sender_in(version: int, name: str) -> Row:
    """`ether saddr . ip saddr @name`; after `family` or `ethertype`."""
    return (*sender(version), Lookup(set=name))


def has_one_hop_left(version: int) -> Row:
    """`ip ttl & 254 == 0`: one or none; after `family` or `ethertype`. It takes less than `ip ttl 0-1`."""
    load = Payload(dreg=1, base=NETWORK_HEADER, offset=HOPS_LEFT_OFFSET[version], length=1)
    return (load, Bitwise(length=1, mask=bytes((0xFE,)), xor=bytes(1)), Cmp(data=bytes(1)))


def has_hop_by_hop_options() -> Row:
    """`ip6 nexthdr 0` (RFC 8200, 4.3): the one header that routers look into; after `ethertype`."""
    return (Payload(dreg=1, base=NETWORK_HEADER, offset=6, length=1), Cmp(data=bytes((HOP_BY_HOP,))))


def is_fragment() -> Row:
    """`ip frag-off & 0x3fff != 0`: a fragment of a packet (RFC 791), the first one too; after `ethertype`."""
    load = Payload(dreg=1, base=NETWORK_HEADER, offset=6, length=2)
    return (load, Bitwise(length=2, mask=b"\x3f\xff", xor=bytes(2)), Cmp(op=NOT_EQUAL, data=bytes(2)))


def has_extension_headers() -> Row:
    """`ip6 nexthdr != { tcp, udp, ipv6-icmp }`: a fragment, or whatever else; after `ethertype`."""
    usual = (Cmp(op=NOT_EQUAL, data=bytes((number,))) for number in (TCP, UDP, ICMP6))
    return (Payload(dreg=1, base=NETWORK_HEADER, offset=6, length=1), *usual)


def arp_of_ipv4() -> Row:
    """`ether type arp`, `arp htype 1`, `arp ptype ip`, `arp hlen 6`, `arp plen 4` (RFC 826)."""
    kind = Payload(dreg=1, base=LINK_HEADER, offset=12, length=2)
    head = Payload(dreg=1, base=NETWORK_HEADER, offset=0, length=6)
    return (kind, Cmp(data=b"\x08\x06"), head, Cmp(data=b"\x00\x01\x08\x00\x06\x04"))


def arp_sender_in(name: str) -> Row:
    """`ether saddr . arp saddr ether . arp saddr ip @name`; after `arp_of_ipv4`."""
    mac = Payload(dreg=1, base=LINK_HEADER, offset=6, length=6)
    told = Payload(dreg=10, base=NETWORK_HEADER, offset=8, length=6)
    ip = Payload(dreg=2, base=NETWORK_HEADER, offset=14, length=4)
    return (mac, told, ip, Lookup(sreg=1, set=name))


def set_ether_destination_from(version: int, name: str) -> Row:
    """`ether daddr set ip daddr map @name`; after `ethertype`. A packet to an address that is not in the map goes on to the next rule."""
    found = Lookup(set=name, dreg=1)
    return (
        _address(version, DESTINATION_OFFSET[version]),
        found,
        Payload(dreg=0, sreg=1, base=LINK_HEADER, offset=0, length=6),
    )


def set_other_host() -> Row:
    """`meta pkttype set other`: the packet is addressed to somebody else, so this host doesn't take it as its own."""
    return (Immediate(dreg=1, data=bytes((PACKET_OTHERHOST,))), Meta(key=META_PKTTYPE, sreg=1))


def _address(version: int, offset: int, base: int = NETWORK_HEADER) -> Payload:
    return Payload(base=base, offset=offset, length=4 if version == 4 else 16)


def in_network(version: int, offset: int, network: IPNetwork, base: int = NETWORK_HEADER, op: int = EQUAL) -> Row:
    """The address at this offset of a header is in a network; with `op` NOT_EQUAL, it is not."""
    size = network.max_prefixlen // 8
    load, compare = _address(version, offset, base), Cmp(op=op, data=network.network_address.packed)
    if network.prefixlen == network.max_prefixlen:
        return (load, compare)
    if network.prefixlen % 8 == 0:  # nft's own short form: load just the bytes of the prefix
        length = network.prefixlen // 8
        return (
            Payload(base=base, offset=offset, length=length),
            Cmp(op=op, data=network.network_address.packed[:length]),
        )
    return (load, Bitwise(length=size, mask=network.netmask.packed, xor=bytes(size)), compare)


def source_in(network: IPNetwork) -> Row:
    """`ip saddr 10.244.1.0/24`; after `family`."""
    return in_network(network.version, SOURCE_OFFSET[network.version], network)


def source_not_in(network: IPNetwork) -> Row:
    """`ip saddr != 10.244.0.0/16`; after `family`."""
    return in_network(network.version, SOURCE_OFFSET[network.version], network, op=NOT_EQUAL)


def destination_not_in_set(version: int, name: str) -> Row:
    """`ip daddr != @name`; after `family`."""
    return (_address(version, DESTINATION_OFFSET[version]), Lookup(set=name, flags=INVERT))


def destination_in(network: IPNetwork) -> Row:
    """`ip daddr 10.96.0.0/16`; after `family`."""
    return in_network(network.version, DESTINATION_OFFSET[network.version], network)


def destination_not_in(network: IPNetwork) -> Row:
    """`ip daddr != 10.96.0.0/16`; after `family`."""
    return in_network(network.version, DESTINATION_OFFSET[network.version], network, op=NOT_EQUAL)


def input_is(name: str) -> Row:
    """`iifname "cbr0"`."""
    return (Meta(key=META_IIFNAME, dreg=1), Cmp(data=name.encode().ljust(NAME_SIZE, b"\0")))


def input_is_not(name: str) -> Row:
    """`iifname != "cbr0"`."""
    return (Meta(key=META_IIFNAME, dreg=1), Cmp(op=NOT_EQUAL, data=name.encode().ljust(NAME_SIZE, b"\0")))


def input_begins_not(prefix: str) -> Row:
    """`iifname != "pp*"`."""
    return (Meta(key=META_IIFNAME, dreg=1), Cmp(op=NOT_EQUAL, data=prefix.encode()))


def input_in(name: str) -> Row:
    """`iifname @name`."""
    return (Meta(dreg=1, key=META_IIFNAME), Lookup(set=name))


def output_is(name: str) -> Row:
    """`oifname "eth0"`."""
    return (Meta(key=META_OIFNAME, dreg=1), Cmp(data=name.encode().ljust(NAME_SIZE, b"\0")))


def output_is_not(name: str) -> Row:
    """`oifname != "eth0"`: also what goes to this machine."""
    return (Meta(key=META_OIFNAME, dreg=1), Cmp(op=NOT_EQUAL, data=name.encode().ljust(NAME_SIZE, b"\0")))


def opens_connection() -> Row:
    """`meta l4proto tcp`, `tcp flags syn / syn,rst`: the first packet of a TCP connection, or the answer to it."""
    flags = Payload(dreg=1, base=TRANSPORT_HEADER, offset=TCP_FLAGS_OFFSET, length=1)
    masked = Bitwise(length=1, mask=bytes((TCP_SYN | TCP_RST,)), xor=bytes(1))
    return (Meta(key=META_L4PROTO, dreg=1), Cmp(data=bytes((TCP,))), flags, masked, Cmp(data=bytes((TCP_SYN,))))


def clamp_segments() -> Row:
    """`tcp option maxseg size set rt mtu`: the segments that a side of a TCP connection asks for are no larger than the route of this
    packet carries, nor than that of the answer (nft_rt, get_tcpmss)."""
    order = ByteOrder(op=TO_NETWORK, length=2, size=2)
    return (RouteLoad(key=RT_TCPMSS), order, SetTcpOption(option=MAXIMUM_SEGMENT, offset=2, length=2))


def counter() -> Row:
    """`counter`."""
    return (Counter(),)


def count_in(name: str) -> Row:
    """`counter name "in-7f3a"`."""
    return (CounterReference(name=name),)


def masquerade(flags: int = FULLY_RANDOM) -> Row:
    """`masquerade fully-random`."""
    return (Masquerade(flags=flags),)


def jump(chain: str) -> Row:
    """`jump chain`."""
    return (Immediate(data=Verdict(JUMP, chain)),)


def goto(chain: str) -> Row:
    """`goto chain`."""
    return (Immediate(data=Verdict(GOTO, chain)),)


def verdict(code: int) -> Row:
    """`accept`, `drop`, `return`."""
    return (Immediate(data=Verdict(code)),)

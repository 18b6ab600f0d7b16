"""Expressions for rules of policies, each function named after what its row does.

`side` is the end of a packet that a match is about: "source" or "destination".
"""

from __future__ import annotations

from podplane.state.nft import Bitwise, Cmp, Ct, Lookup, Meta, Payload, Range, Reject
from podplane.state.nft_nat import (
    CT_STATUS,
    FIRST,
    PORT_OFFSET,
    PORT_SIZE,
    address,
    any_bit,
    frontend,
    protocol_and_port,
)
from podplane.state.nft_rules import (
    DESTINATION_OFFSET,
    HOPS_LEFT_OFFSET,
    ICMP6,
    META_L4PROTO,
    NETWORK_HEADER,
    SOURCE_OFFSET,
    TRANSPORT_HEADER,
    Row,
    in_network,
    sender,
)
from podplane.state.value import IPNetwork

SOURCE, DESTINATION = "source", "destination"
OFFSET = {SOURCE: SOURCE_OFFSET, DESTINATION: DESTINATION_OFFSET}
CONFIRMED = 1 << 3
"""IPS_CONFIRMED: the first packet of the connection passed all hooks (include/uapi/linux/netfilter/nf_conntrack_common.h)."""
CT_STATE, CT_DIRECTION, CT_MARK = 0, 1, 3
"""NFT_CT_STATE, NFT_CT_DIRECTION, NFT_CT_MARK."""
INVALID, UNTRACKED = 1 << 0, 1 << 6
"""NF_CT_STATE_INVALID_BIT, NF_CT_STATE_UNTRACKED_BIT."""
ALL_BITS = 0xFFFF_FFFF
ICMP, TCP_RESET = 1, 1
"""IPPROTO_ICMP, NFT_REJECT_TCP_RST."""


def is_confirmed() -> Row:
    """`ct status confirmed`."""
    return (Ct(key=CT_STATUS, dreg=FIRST), *any_bit(CONFIRMED))


def has_state(bits: int) -> Row:
    """`ct state invalid,untracked`."""
    return (Ct(key=CT_STATE, dreg=FIRST), *any_bit(bits))


def has_mark(bits: int, *, any_of: bool = True) -> Row:
    """`ct mark & 0x60000000 != 0`; or, of none of them, `== 0`."""
    return (
        Ct(key=CT_MARK, dreg=FIRST),
        Bitwise(length=4, mask=bits.to_bytes(4, "little"), xor=bytes(4)),
        Cmp(op=1 if any_of else 0, data=bytes(4)),
    )


def set_mark(bits: int, *, on: bool) -> Row:
    """`ct mark set ct mark | 0x40000000`, or `& 0xdfffffff`."""
    mask, xor = (~bits & ALL_BITS).to_bytes(4, "little"), (bits if on else 0).to_bytes(4, "little")
    return (Ct(key=CT_MARK, dreg=FIRST), Bitwise(length=4, mask=mask, xor=xor), Ct(key=CT_MARK, sreg=FIRST))


def reject_with_reset() -> Row:
    """`reject with tcp reset`; after `protocol("tcp")`."""
    return (Reject(type=TCP_RESET),)


def is_answer() -> Row:
    """`ct direction reply`."""
    return (Ct(key=CT_DIRECTION, dreg=FIRST), Cmp(data=bytes((1,))))


def verdict_of(version: int, side: str, name: str) -> Row:
    """`ip saddr vmap @name`; after `family`."""
    return (address(version, OFFSET[side][version]), Lookup(set=name, dreg=0))


def verdict_of_sender(version: int, name: str) -> Row:
    """`ether saddr . ip saddr vmap @name`; after `family`."""
    return (*sender(version), Lookup(set=name, dreg=0))


def address_in(version: int, side: str, name: str) -> Row:
    """`ip saddr @name`; after `family`."""
    return (address(version, OFFSET[side][version]), Lookup(set=name))


def address_and_port_in(version: int, name: str) -> Row:
    """`ip daddr . meta l4proto . th dport @name`; after `family`."""
    return (*frontend(version), Lookup(set=name))


def peer_and_port_in(version: int, side: str, name: str) -> Row:
    """`ip saddr . meta l4proto . th dport @name`, or with daddr; after `family`."""
    _, *protocol_and_destination = frontend(version)
    return (address(version, OFFSET[side][version]), *protocol_and_destination, Lookup(set=name))


def port_in(name: str) -> Row:
    """`meta l4proto . th dport @name`."""
    return (*protocol_and_port(), Lookup(set=name))


def network_is(network: IPNetwork, side: str) -> Row:
    """`ip saddr 10.0.0.0/8`; after `family`. Nothing for a network of all addresses."""
    return in_network(network.version, OFFSET[side][network.version], network) if network.prefixlen else ()


def ports_between(first: int, last: int) -> Row:
    """`th dport 8000-8100`, or one port; after `protocol`."""
    load = Payload(dreg=FIRST, base=TRANSPORT_HEADER, offset=PORT_OFFSET, length=PORT_SIZE)
    low, high = (port.to_bytes(PORT_SIZE, "big") for port in (first, last))
    return (load, Cmp(data=low) if first == last else Range(low=low, high=high))


def is_icmp() -> Row:
    """`meta l4proto icmp`."""
    return (Meta(key=META_L4PROTO, dreg=FIRST), Cmp(data=bytes((ICMP,))))


def is_icmp6() -> Row:
    """`meta l4proto ipv6-icmp`."""
    return (Meta(key=META_L4PROTO, dreg=FIRST), Cmp(data=bytes((ICMP6,))))


def type_is(first: int, last: int) -> Row:
    """`icmpv6 type 133-137`; after `is_icmp6`, or the same of ICMP after `is_icmp`."""
    kind = Payload(dreg=FIRST, base=TRANSPORT_HEADER, offset=0, length=1)
    return (kind, Cmp(data=bytes((first,))) if first == last else Range(low=bytes((first,)), high=bytes((last,))))


def hop_limit_is(number: int) -> Row:
    """`ip6 hoplimit 255`; after `family`."""
    return (Payload(dreg=FIRST, base=NETWORK_HEADER, offset=HOPS_LEFT_OFFSET[6], length=1), Cmp(data=bytes((number,))))

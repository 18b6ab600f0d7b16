"""Expressions for rules of Services, each function named after what its row does.

Registers: an IPv6 address fills one of 16 bytes, an IPv4 address one of 4 bytes; the next part of a key is in the register behind.
"""

from __future__ import annotations

from typing import NamedTuple

from podplane.state.nft import (
    ACCEPT,
    DROP,
    Bitwise,
    Cmp,
    Ct,
    Dynset,
    Immediate,
    Lookup,
    Meta,
    Numgen,
    Payload,
    Reject,
    Verdict,
)
from podplane.state.nft_nat import (
    CT_STATE,
    FIRST,
    PORT_SIZE,
    SECOND,
    SIZE,
    SOURCE_PORT_OFFSET,
    THIRD,
    address,
    any_bit,
    dnat,
    frontend,
    protocol,
)
from podplane.state.nft_rules import (
    DESTINATION_OFFSET,
    INVERT,
    META_L4PROTO,
    META_OIFNAME,
    NAME_SIZE,
    SOURCE_OFFSET,
    TRANSPORT_HEADER,
    Row,
    in_network,
)
from podplane.state.value import IPNetwork

META_MARK = 3
CT_DESTINATION = {4: 20, 6: 22}
ESTABLISHED_OR_RELATED, NEW, UNTRACKED = 2 | 4, 8, 64
"""NF_CT_STATE_BIT(IP_CT_ESTABLISHED, IP_CT_RELATED), of IP_CT_NEW; NF_CT_STATE_UNTRACKED_BIT."""
ORIGINAL, RANDOM = 0, 1
TCP_RESET, ICMPX, PORT_UNREACHABLE = 1, 2, 1
CHAIN_BITS = 14
CHAIN_MASK = (1 << CHAIN_BITS) - 1
"""The lower bits of a mark are the number of the load-balancing chain, or of a member; those above are the group's number."""
MAX_MEMBERS = CHAIN_MASK
"""The most endpoints of a group with session affinity that are used."""
PLAIN_COUNTS = 1 << CHAIN_BITS - 1
"""Up to this many endpoints, the number of a chain without affinity is their count."""
FRONTENDS, CLUSTER_FRONTENDS = "frontends", "inside"
"""Maps from a frontend to its group: of all, and for clients inside the cluster where theirs is another group."""
ICMP_NUMBER = {4: 1, 6: 58}


class Inner(NamedTuple):
    """Where an ICMP error has fields of the packet that it is about: offsets from its own header, which has 8 bytes."""

    source: int
    destination: int
    protocol: int
    port: int


INNER = {4: Inner(8 + 12, 8 + 16, 8 + 9, 8 + 20), 6: Inner(8 + 8, 8 + 24, 8 + 6, 8 + 40)}
"""Of packets without IP options or extension headers (RFC 791, RFC 8200)."""
DYNSET_UPDATE, DYNSET_DELETE = 1, 2
"""NFT_DYNSET_OP_UPDATE, NFT_DYNSET_OP_DELETE."""


def is_frontend(version: int, name: str) -> Row:
    """`ip daddr . meta l4proto . th dport @name`."""
    return (*frontend(version), Lookup(set=name))


def to_group(version: int, kind: str = FRONTENDS, key: Row | None = None) -> Row:
    """`meta mark set ip daddr . meta l4proto . th dport map @frontends4`."""
    return (*(key or frontend(version)), Lookup(set=f"{kind}{version}", dreg=FIRST), Meta(key=META_MARK, sreg=FIRST))


def to_chain(name: str) -> Row:
    """`meta mark & 0x00003fff vmap @name`: to the load-balancing chain of the group."""
    return (Meta(key=META_MARK, dreg=FIRST), _masked(CHAIN_MASK), Lookup(set=name, dreg=0))


def clear_chain() -> Row:
    """`meta mark set meta mark & 0xffffc000`: keep the group's number only."""
    return (Meta(key=META_MARK, dreg=FIRST), _masked(~CHAIN_MASK & 0xFFFF_FFFF), Meta(key=META_MARK, sreg=FIRST))


def _masked(mask: int) -> Bitwise:
    return Bitwise(length=4, mask=mask.to_bytes(4, "little"), xor=bytes(4))


def dnat_to_random_endpoint(version: int, protocol_name: str, count: int) -> tuple[Row, ...]:
    """`meta l4proto tcp dnat ip to meta mark . numgen random mod 3 map @endpoints4`."""
    return (
        protocol(protocol_name),
        (
            Meta(key=META_MARK, dreg=FIRST),
            Numgen(dreg=9, modulus=count, type=RANDOM),
            Lookup(set=f"endpoints{version}", dreg=FIRST),
            dnat(version),
        ),
    )


def affinity_key(version: int) -> Row:
    """`ip saddr . meta mark & 0xffffc000`, in registers: the key of `affinity4`."""
    mark = SECOND[version]
    return (
        address(version, SOURCE_OFFSET[version]),
        Meta(key=META_MARK, dreg=mark),
        Bitwise(sreg=mark, dreg=mark, length=4, mask=(~CHAIN_MASK & 0xFFFF_FFFF).to_bytes(4, "little"), xor=bytes(4)),
    )


def load_affinity(version: int) -> tuple[Row, ...]:
    """`meta mark set ip saddr . … map @affinity4 meta mark @sticky4`: the stored endpoint, while it exists."""
    found = (*affinity_key(version), Lookup(set=f"affinity{version}", dreg=FIRST), Meta(key=META_MARK, sreg=FIRST))
    return (found, (Meta(key=META_MARK, dreg=FIRST), Lookup(set=f"sticky{version}")))


def delete_affinity(version: int) -> Row:
    """`delete @affinity4 { ip saddr . … : meta mark }`."""
    return _affinity(version, DYNSET_DELETE, 0)


def update_affinity(version: int, seconds: int) -> Row:
    """`update @affinity4 { ip saddr . … timeout 3h : meta mark }`."""
    return _affinity(version, DYNSET_UPDATE, seconds * 1000)


def _affinity(version: int, op: int, milliseconds: int) -> Row:
    data = THIRD[version]
    update = Dynset(set=f"affinity{version}", op=op, data=data, timeout=milliseconds)
    return (*affinity_key(version), Meta(key=META_MARK, dreg=data), update)


def random_member(version: int, count: int) -> Row:
    """`meta mark set meta mark . numgen random mod 3 map @ids4`: the mark of a random endpoint of the group."""
    return (
        Meta(key=META_MARK, dreg=FIRST),
        Numgen(dreg=9, modulus=count, type=RANDOM),
        Lookup(set=f"ids{version}", dreg=FIRST),
        Meta(key=META_MARK, sreg=FIRST),
    )


def dnat_to_member(version: int, protocol_name: str) -> tuple[Row, ...]:
    """`meta l4proto tcp dnat ip to meta mark map @targets4`: to the endpoint with this mark."""
    load = (Meta(key=META_MARK, dreg=FIRST), Lookup(set=f"targets{version}", dreg=FIRST), dnat(version))
    return (protocol(protocol_name), load)


def by_frontend(version: int, name: str) -> Row:
    """`ip daddr . meta l4proto . th dport vmap @name`."""
    return (*frontend(version), Lookup(set=name, dreg=0))


def destination_in_set(version: int, name: str) -> Row:
    """`ip daddr @name`."""
    return (address(version, DESTINATION_OFFSET[version]), Lookup(set=name))


def source_port_served(name: str) -> Row:
    """`meta l4proto . th sport @name`."""
    port = Payload(dreg=SECOND[4], base=TRANSPORT_HEADER, offset=SOURCE_PORT_OFFSET, length=PORT_SIZE)
    return (Meta(key=META_L4PROTO, dreg=FIRST), port, Lookup(set=name))


def source_served(version: int, name: str) -> Row:
    """`ip saddr . meta l4proto . th sport @name`."""
    port = Payload(dreg=THIRD[version], base=TRANSPORT_HEADER, offset=SOURCE_PORT_OFFSET, length=PORT_SIZE)
    protocol_number = Meta(key=META_L4PROTO, dreg=SECOND[version])
    return (address(version, SOURCE_OFFSET[version]), protocol_number, port, Lookup(set=name))


def is_icmp(version: int) -> Row:
    """`meta l4proto icmp`, `meta l4proto ipv6-icmp`."""
    return (Meta(key=META_L4PROTO, dreg=FIRST), Cmp(data=bytes((ICMP_NUMBER[version],))))


def error_about(version: int, end: str) -> Row:
    """`@th,192,32 . @th,136,8 . @th,240,16`: of the packet that an ICMP error is about, one end ("source", "destination") and its port, as
    a key of frontends. Its IP header is behind the 8 bytes of ICMP's own (RFC 792, RFC 4443)."""
    layout = INNER[version]
    where, port = (layout.source, layout.port) if end == "source" else (layout.destination, layout.port + PORT_SIZE)
    return (
        Payload(dreg=FIRST, base=TRANSPORT_HEADER, offset=where, length=SIZE[version]),
        Payload(dreg=SECOND[version], base=TRANSPORT_HEADER, offset=layout.protocol, length=1),
        Payload(dreg=THIRD[version], base=TRANSPORT_HEADER, offset=port, length=PORT_SIZE),
    )


def error_about_packet_into(network: IPNetwork, ports: str) -> Row:
    """`@th,192,16 0x0af4 @th,136,8 . @th,240,16 @ports`: an ICMP error about a packet to one of these ports of a network."""
    layout = INNER[network.version]
    return (
        *in_network(network.version, layout.destination, network, TRANSPORT_HEADER),
        Payload(dreg=FIRST, base=TRANSPORT_HEADER, offset=layout.protocol, length=1),
        Payload(dreg=SECOND[4], base=TRANSPORT_HEADER, offset=layout.port + PORT_SIZE, length=PORT_SIZE),
        Lookup(set=ports),
    )


def is_new() -> Row:
    """`ct state new`."""
    return (Ct(key=CT_STATE, dreg=FIRST), *any_bit(NEW))


def is_established() -> Row:
    """`ct state established,related`."""
    return (Ct(key=CT_STATE, dreg=FIRST), *any_bit(ESTABLISHED_OR_RELATED))


def is_untracked() -> Row:
    """`ct state untracked`."""
    return (Ct(key=CT_STATE, dreg=FIRST), *any_bit(UNTRACKED))


def went_to(version: int, name: str) -> Row:
    """`ct original ip daddr @name`: where the client sent it."""
    return (Ct(key=CT_DESTINATION[version], dreg=FIRST, direction=ORIGINAL), Lookup(set=name))


def went_into(network: IPNetwork) -> Row:
    """`ct original ip daddr 10.96.0.0/16`."""
    load = Ct(key=CT_DESTINATION[network.version], dreg=FIRST, direction=ORIGINAL)
    mask = Bitwise(length=SIZE[network.version], mask=network.netmask.packed, xor=bytes(SIZE[network.version]))
    return (load, mask, Cmp(data=network.network_address.packed))


def goes_into(network: IPNetwork) -> Row:
    """`ip daddr 10.96.0.0/16`."""
    return in_network(network.version, DESTINATION_OFFSET[network.version], network)


def source_not_in_set(version: int, name: str) -> Row:
    """`ip saddr != @name`."""
    return (address(version, SOURCE_OFFSET[version]), Lookup(set=name, flags=INVERT))


def leaves_not_by(link: str) -> Row:
    """`oifname != "cbr0"`."""
    return (Meta(key=META_OIFNAME, dreg=FIRST), Cmp(op=1, data=link.encode().ljust(NAME_SIZE, b"\0")))


def clear_mark() -> Row:
    """`meta mark set 0`."""
    return (Immediate(dreg=FIRST, data=bytes(4)), Meta(key=META_MARK, sreg=FIRST))


def reject_with_reset() -> Row:
    """`reject with tcp reset`."""
    return (Reject(type=TCP_RESET),)


def reject() -> Row:
    """`reject`: ICMP "port unreachable", in the packet's own family."""
    return (Reject(type=ICMPX, code=PORT_UNREACHABLE),)


def verdict(value: Verdict) -> Row:
    """`jump chain`, `goto chain`."""
    return (Immediate(data=value),)


def drop() -> Row:
    """`drop`."""
    return verdict(Verdict(DROP))


def accept() -> Row:
    """`accept`."""
    return verdict(Verdict(ACCEPT))

"""Expressions for rules that translate addresses, each function named after what its row does.

Registers: an IPv6 address fills one of 16 bytes, an IPv4 address one of 4 bytes; the next part of a key is in the register behind.
"""

from __future__ import annotations

from podplane.state.nft import Bitwise, Cmp, Ct, Fib, Lookup, Meta, Nat, Payload
from podplane.state.nft_rules import (
    DESTINATION_OFFSET,
    META_L4PROTO,
    NETWORK_HEADER,
    NFPROTO,
    SOURCE_OFFSET,
    TRANSPORT_HEADER,
    Row,
)

SOURCE_PORT_OFFSET, PORT_OFFSET, PORT_SIZE = 0, 2, 2
CT_STATE, INVALID = 0, 1
"""NFT_CT_STATE, NF_CT_STATE_INVALID_BIT."""
CT_STATUS, TRANSLATED = 2, 1 << 5
"""NFT_CT_STATUS, IPS_DST_NAT."""
FIB_ADDRESS_TYPE, FIB_DESTINATION, RTN_LOCAL = 3, 1 << 1, 2
"""NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR, RTN_LOCAL."""
DESTINATION_NAT = 1
ADDRESS_AND_PORT = 1 | 2
"""NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED."""
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
FIRST = 1
"""The first register."""
SIZE = {4: 4, 6: 16}
SECOND, THIRD = {4: 9, 6: 2}, {4: 10, 6: 13}
"""The register behind an address, and the next one."""


def address(version: int, offset: int, register: int = FIRST) -> Payload:
    """Load an address of the packet."""
    return Payload(dreg=register, base=NETWORK_HEADER, offset=offset, length=SIZE[version])


def frontend(version: int) -> Row:
    """`ip daddr . meta l4proto . th dport`, in registers."""
    return (
        address(version, DESTINATION_OFFSET[version]),
        Meta(key=META_L4PROTO, dreg=SECOND[version]),
        Payload(dreg=THIRD[version], base=TRANSPORT_HEADER, offset=PORT_OFFSET, length=PORT_SIZE),
    )


def dnat(version: int) -> Nat:
    """`dnat ip to` the address and port in registers, in the form in which the kernel dumps it."""
    family, port = NFPROTO[version], SECOND[version]
    return Nat(
        type=DESTINATION_NAT, family=family, address=FIRST, address_max=FIRST, port=port, port_max=port, flags=ADDRESS_AND_PORT
    )


def protocol(name: str) -> Row:
    """`meta l4proto tcp`."""
    return (Meta(key=META_L4PROTO, dreg=FIRST), Cmp(data=bytes((PROTOCOLS[name],))))


def was_translated() -> Row:
    """`ct status dnat`."""
    return (Ct(key=CT_STATUS, dreg=FIRST), *any_bit(TRANSLATED))


def is_invalid() -> Row:
    """`ct state invalid`: the packet is of no connection that is tracked, so nothing translates it."""
    return (Ct(key=CT_STATE, dreg=FIRST), *any_bit(INVALID))


def any_bit(mask: int) -> Row:
    """`& mask != 0`, of the first register."""
    return (Bitwise(length=4, mask=mask.to_bytes(4, "little"), xor=bytes(4)), Cmp(op=1, data=bytes(4)))


def pair_in(version: int, name: str) -> Row:
    """`ip saddr . ip daddr @name`."""
    return (
        address(version, SOURCE_OFFSET[version]),
        address(version, DESTINATION_OFFSET[version], SECOND[version]),
        Lookup(set=name),
    )


def port_is(port: int, end: str = "destination") -> Row:
    """`th dport 53`, or, for the end "source", `th sport 53`; after `protocol`."""
    offset = PORT_OFFSET if end == "destination" else SOURCE_PORT_OFFSET
    load = Payload(dreg=FIRST, base=TRANSPORT_HEADER, offset=offset, length=PORT_SIZE)
    return (load, Cmp(data=port.to_bytes(PORT_SIZE, "big")))


def protocol_and_port() -> Row:
    """`meta l4proto . th dport`, in registers."""
    return (
        Meta(key=META_L4PROTO, dreg=FIRST),
        Payload(dreg=SECOND[4], base=TRANSPORT_HEADER, offset=PORT_OFFSET, length=PORT_SIZE),
    )


def dnat_by(version: int, key: Row, name: str) -> Row:
    """`dnat ip to <key> map @name`: to the address and port that the map has for the key."""
    return (*key, Lookup(set=name, dreg=FIRST), dnat(version))


def destination_is_local() -> Row:
    """`fib daddr type local`: the destination is an address of this machine."""
    return (Fib(result=FIB_ADDRESS_TYPE, flags=FIB_DESTINATION), Cmp(data=RTN_LOCAL.to_bytes(4, "little")))

"""A node answers for load balancers' addresses only as long as its agent lives: rules that drop its answers otherwise. Pure.

    table arp podplane-announced            ARP answers of this node
        addresses    those that it advertises
        alive        the protocol, with a timeout: the agent adds it anew with each renewal of its lease term, until the term's end
        output       an answer for one of `addresses`, while `alive` has expired: drop
    table ip6 podplane-announced            the same of neighbour advertisements (RFC 4861, 4.4)

Another node acquires the addresses some time after the term is over, and announces them. So no moment has two nodes that answer, whether
the agent was killed, was stopped or hangs; one that starts again within its term continues it, and nobody notices. Nothing else has
to run on the node for that: the kernel has the clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from podplane.model.config import NetworkConfig
from podplane.state.nft import DROP, Chain, Cmp, Element, Hook, Lookup, Meta, Payload, Set, Table, label
from podplane.state.nft_rules import (
    INVERT,
    META_PROTOCOL,
    NETWORK_HEADER,
    TRANSPORT_HEADER,
    Row,
    counter,
    icmp6_type_is,
    rule,
    verdict,
)
from podplane.state.value import IPAddress, Value

NAME, ALIVE, ADDRESSES = "podplane-announced", "alive", "addresses"
FAMILIES = {4: "arp", 6: "ip6"}
TABLES = frozenset((family, NAME) for family in FAMILIES.values())
TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
ETHERTYPES = {4: b"\x08\x06", 6: b"\x86\xdd"}
"""ARP, IPv6."""
SIZE = 4
"""Of `alive`: it has one element."""
ARP_REPLY, NEIGHBOUR_ADVERTISEMENT = 2, 136
IPV4_OVER_ETHERNET = bytes.fromhex("000108000604")
"""The head of ARP: hardware type, protocol, lengths of addresses (RFC 826)."""
OPERATION_OFFSET, SENDER_IP_OFFSET, TARGET_OFFSET = 6, 14, 8
PRIORITY = 0


class Lifetime(NamedTuple):
    """The set with a timeout, and its element as bytes."""

    family: str
    table: str
    set: str
    key: bytes


def lifetimes(versions: Iterable[int], config: NetworkConfig) -> list[Lifetime]:
    """What has to be prolonged for answers of these IP versions."""
    return [Lifetime(FAMILIES[v], NAME, ALIVE, ETHERTYPES[v]) for v in versions if _is_limited(v, config)]


def _is_limited(version: int, config: NetworkConfig) -> bool:
    return version == 6 or config.arp_family


def plan(ips: Iterable[IPAddress], path: str, config: NetworkConfig) -> list[Value]:
    """The tables, and these addresses of a Service in them."""
    values: list[Value] = []
    for ip in ips:
        if _is_limited(ip.version, config):
            family = FAMILIES[ip.version]
            values += _table(ip.version)
            values.append(Element(family=family, table=NAME, set=ADDRESSES, key=(ip,), comment=label("svc", path)))
    return values


def _table(version: int) -> list[Value]:
    family = FAMILIES[version]
    dead = (Meta(key=META_PROTOCOL, dreg=1), Lookup(set=ALIVE, flags=INVERT))
    drop = rule(*_answer(version), dead, counter(), verdict(DROP), comment="the agent that answers for it is dead")
    return [
        Table(family=family, table=NAME),
        Set(family=family, table=NAME, name=ADDRESSES, key=(TYPES[version],)),
        Set(family=family, table=NAME, name=ALIVE, key=("ether_type",), size=SIZE),
        Chain(family=family, table=NAME, name="output", hook=Hook("filter", "output", PRIORITY), rules=(drop,)),
    ]


def _answer(version: int) -> tuple[Row, ...]:
    """An answer for one of the addresses."""
    known = Lookup(set=ADDRESSES)
    if version == 6:
        target = Payload(dreg=1, base=TRANSPORT_HEADER, offset=TARGET_OFFSET, length=16)
        return icmp6_type_is(NEIGHBOUR_ADVERTISEMENT), (target, known)
    head = Payload(dreg=1, base=NETWORK_HEADER, offset=0, length=len(IPV4_OVER_ETHERNET))
    operation = Payload(dreg=1, base=NETWORK_HEADER, offset=OPERATION_OFFSET, length=2)
    sender = Payload(dreg=1, base=NETWORK_HEADER, offset=SENDER_IP_OFFSET, length=4)
    reply = Cmp(data=ARP_REPLY.to_bytes(2, "big"))
    return (head, Cmp(data=IPV4_OVER_ETHERNET)), (operation, reply), (sender, known)

"""Generated nf_tables rulesets for a router between two networks, and packets to send through it.

All rules are such that the kernel takes them: actions fit their hook, chains are jumped to in one direction only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from podplane.services import rules as r
from podplane.state import nft
from podplane.state import nft_nat as nat
from podplane.state.nft import ACCEPT, DROP, GOTO, JUMP, RETURN, Chain, Element, Hook, Rule, Set, Table, Verdict
from podplane.state.nft_rules import DESTINATION_OFFSET, INVERT, NFPROTO, SOURCE_OFFSET, Row, counter, family, in_network, rule
from podplane.state.value import IPAddress, Value
from podplane.trace.packet import Packet

PLACE: dict[str, Any] = {"family": "inet", "table": "podplane-test"}
LEFT = {4: "10.1.0.{}", 6: "fd00:1::{}"}
RIGHT = {4: "10.2.0.{}", 6: "fd00:2::{}"}
NOWHERE = {4: "10.9.0.1", 6: "fd00:9::1"}
TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
PORTS = (80, 81, 8080)
VERSIONS = st.sampled_from((4, 6))
CHAINS = ("first", "second", "third")


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def places(version: int) -> list[IPAddress]:
    """The addresses that packets and rules speak of: of the router on both sides, of both neighbours, of nobody."""
    own = [LEFT[version].format(n) for n in (1, 2)] + [RIGHT[version].format(n) for n in (1, 2, 3)]
    return [ip(text) for text in (*own, NOWHERE[version])]


def targets(version: int) -> list[IPAddress]:
    """Who answers: the right neighbour's addresses."""
    return [ip(RIGHT[version].format(n)) for n in (2, 3)]


def _port(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _load_port() -> nft.Payload:
    return nft.Payload(base=2, offset=2, length=2)


@st.composite
def addresses_match(draw: st.DrawFn) -> Row:
    """`ip saddr`, `ip daddr`, in a network or not in a set."""
    version = draw(VERSIONS)
    offset = draw(st.sampled_from((SOURCE_OFFSET, DESTINATION_OFFSET)))[version]
    which = draw(st.sampled_from(("network", "set", "interval", "frontend")))
    invert = draw(st.sampled_from((0, INVERT)))
    if which == "network":
        length = draw(st.sampled_from((8, 15, 24, 31, 32) if version == 4 else (16, 31, 64, 127, 128)))
        network = ipaddress.ip_network((draw(st.sampled_from(places(version))), length), strict=False)
        return (*family(version), *in_network(version, offset, network))
    if which == "frontend":
        return (*family(version), *nat.frontend(version), nft.Lookup(set=f"frontends{version}", flags=invert))
    load = nft.Payload(base=1, offset=offset, length=len(ip(NOWHERE[version]).packed))
    name = f"{'addresses' if which == 'set' else 'networks'}{version}"
    return (*family(version), load, nft.Lookup(set=name, flags=invert))


@st.composite
def other_match(draw: st.DrawFn) -> Row:
    """Ports, protocols, interfaces, marks, states, hashes of the source, kinds of the destination."""
    port, op = draw(st.sampled_from(PORTS)), draw(st.sampled_from((0, 1)))
    link = draw(st.sampled_from(("vl", "vr", "lo"))).encode().ljust(16, b"\0")
    version = draw(VERSIONS)
    masked = nft.Bitwise(length=4, mask=b"\x0f\0\0\0", xor=draw(st.sampled_from((bytes(4), b"\1\0\0\0"))))
    rows: list[Row] = [
        (),
        (_load_port(), nft.Cmp(op=op, data=_port(port))),
        (_load_port(), nft.Range(op=op, low=_port(80), high=_port(port))),
        (_load_port(), nft.Cmp(op=draw(st.sampled_from((2, 3, 4, 5))), data=_port(port))),
        (
            nft.Payload(base=2, offset=0, length=2),
            nft.Bitwise(length=2, mask=b"\0\1", xor=b"\0\0"),
            nft.Cmp(op=op, data=b"\0\1"),
        ),
        (nft.Meta(key=16, dreg=1), nft.Cmp(op=op, data=bytes((draw(st.sampled_from((6, 17))),)))),
        (nft.Meta(key=draw(st.sampled_from((6, 7))), dreg=1), nft.Cmp(op=op, data=link)),
        (nft.Meta(key=3, dreg=1), masked, nft.Cmp(op=op, data=b"\1\0\0\0")),
        (nft.Ct(key=0, dreg=1), nft.Bitwise(length=4, mask=b"\x0a\0\0\0", xor=bytes(4)), nft.Cmp(op=op, data=b"\x08\0\0\0")),
        (*family(version), *nat.was_translated()),
        (*family(version), *r.went_to(version, f"addresses{version}")),
        (
            *family(version),
            nft.Payload(base=1, offset=SOURCE_OFFSET[version], length=len(ip(NOWHERE[version]).packed)),
            nft.Hash(length=len(ip(NOWHERE[version]).packed), modulus=2, seed=draw(st.integers(1, 1 << 31))),
            nft.Cmp(op=op, data=bytes(4)),
        ),
        (nft.Fib(result=3, flags=2), nft.Cmp(op=op, data=b"\2\0\0\0")),
        (nft.Payload(base=1, offset=0, length=1), nft.Bitwise(length=1, mask=b"\xf0", xor=b"\0"), nft.Cmp(op=op, data=b"\x40")),
    ]
    return draw(st.sampled_from(rows))


def _set_mark(number: int) -> Row:
    return (nft.Immediate(dreg=1, data=number.to_bytes(4, "little")), nft.Meta(key=3, sreg=1))


def _client(version: int) -> Row:
    """`ip saddr . th dport`, in registers."""
    return (
        nft.Payload(base=1, offset=SOURCE_OFFSET[version], length=nat.SIZE[version]),
        nft.Payload(dreg=nat.SECOND[version], base=2, offset=2, length=2),
    )


def _remember(version: int) -> Row:
    """`update @seen { ip saddr . th dport : meta mark }`."""
    data = nat.THIRD[version]
    update = nft.Dynset(set=f"seen{version}", op=1, data=data, timeout=3_600_000)
    return (*family(version), *_client(version), nft.Meta(key=3, dreg=data), update)


def _recall(version: int) -> Row:
    """`meta mark set ip saddr . th dport map @seen`."""
    return (*family(version), *_client(version), nft.Lookup(set=f"seen{version}", dreg=1), nft.Meta(key=3, sreg=1))


@st.composite
def plain_action(draw: st.DrawFn, later: Sequence[str]) -> Row:
    """What any chain may do: verdicts, marks, jumps to chains that are later, verdict maps, memory."""
    verdicts = [Verdict(ACCEPT), Verdict(DROP), Verdict(RETURN)]
    verdicts += [Verdict(code, name) for code in (JUMP, GOTO) for name in later]
    version = draw(VERSIONS)
    actions: list[Row] = [(nft.Immediate(data=verdict),) for verdict in verdicts]
    actions += [counter(), _set_mark(draw(st.integers(0, 3))), _remember(version)]
    actions += [_recall(version), (*_recall(version), nft.Immediate(data=Verdict(DROP)))]
    actions += [(_load_port(), nft.Lookup(set="by_port", dreg=0))] if len(later) == len(CHAINS) else []
    return draw(st.sampled_from(actions))


@st.composite
def rejection(draw: st.DrawFn) -> Row:
    """Refuse, with a reset for TCP only."""
    code = draw(st.sampled_from((0, 1, 2, 3)))
    reset = (*nat.protocol("tcp"), *r.reject_with_reset())
    own = draw(st.sampled_from((4, 6)))
    icmp = (*family(own), nft.Reject(type=0, code=3 if own == 4 else 4))
    return draw(st.sampled_from([reset, (nft.Reject(type=2, code=code),), icmp]))


@st.composite
def destination_nat(draw: st.DrawFn) -> Row:
    """To an address, to an address and port, to what a map says of a frontend, or to this machine."""
    version, port = draw(VERSIONS), draw(st.sampled_from(PORTS))
    load = nft.Immediate(dreg=1, data=draw(st.sampled_from(targets(version))).packed)
    second = nat.SECOND[version]
    to = nat.dnat(version)
    only = nft.Nat(type=1, family=NFPROTO[version], address=1, address_max=1, flags=1)
    rows: list[Row] = [
        (*family(version), load, only),
        (*family(version), load, nft.Immediate(dreg=second, data=_port(port)), to),
        (*family(version), *nat.frontend(version), nft.Lookup(set=f"to{version}", dreg=1), to),
        (*family(version), nft.Numgen(modulus=2, type=1), nft.Lookup(set=f"any{version}", dreg=1), to),
        (nft.Immediate(dreg=1, data=_port(port)), nft.Redirect(port=1, port_max=1, flags=2)),
    ]
    row = draw(st.sampled_from(rows))
    return (*draw(st.sampled_from((nat.protocol("tcp"), nat.protocol("udp")))), *row)


@st.composite
def source_nat(draw: st.DrawFn) -> Row:
    """Masquerade, or to one of the router's addresses."""
    version = draw(VERSIONS)
    own = draw(st.sampled_from((LEFT, RIGHT)))[version].format(1)
    fixed = nft.Nat(type=0, family=NFPROTO[version], address=1, address_max=1, flags=1)
    return draw(st.sampled_from([(nft.Masquerade(),), (*family(version), nft.Immediate(dreg=1, data=ip(own).packed), fixed)]))


@st.composite
def rules(draw: st.DrawFn, actions: st.SearchStrategy[Row], most: int = 4) -> tuple[Rule, ...]:
    """Some rules: a match of addresses, another match, or both, and an action."""
    made = []
    for number in range(draw(st.integers(0, most))):
        match = draw(st.one_of(st.just(()), addresses_match()))
        made.append(rule(match, draw(other_match()), draw(actions), comment=f"rule {number}"))
    return tuple(made)


PASS_ERRORS = (
    rule((nft.Meta(key=16, dreg=1), nft.Cmp(data=b"\1")), r.accept()),
    rule((nft.Meta(key=16, dreg=1), nft.Cmp(data=b"\x3a")), r.accept()),
    rule(
        nat.protocol("tcp"),
        (nft.Payload(base=2, offset=13, length=1), nft.Bitwise(length=1, mask=b"\4", xor=b"\0"), nft.Cmp(op=1, data=b"\0")),
        r.accept(),
    ),
)
"""Errors and resets that the router sends must arrive, or a rejection can't be told from a drop; so must neighbour solicitations."""
HOOKS = {"prerouting": -50, "input": 0, "forward": 0, "output": 0, "postrouting": 0}


@st.composite
def filters(draw: st.DrawFn) -> list[Chain]:
    """Base chains of type filter."""
    made = []
    for hook, priority in HOOKS.items():
        plain: st.SearchStrategy[Row] = plain_action(CHAINS)
        actions = plain if hook == "postrouting" else st.one_of(plain, rejection())
        for place in (priority, priority - 130):
            policy = draw(st.sampled_from(("accept", "accept", "accept", "drop")))
            own = (*PASS_ERRORS, *draw(rules(actions, 3)))
            if draw(st.booleans()):
                made.append(Chain(**PLACE, name=f"{hook}{abs(place)}", hook=Hook("filter", hook, place, policy), rules=own))
    return made


@st.composite
def translations(draw: st.DrawFn) -> list[Chain]:
    """Base chains of type nat."""
    to, from_ = draw(rules(destination_nat())), draw(rules(source_nat(), 2))
    return [
        Chain(**PLACE, name="dnat", hook=Hook("nat", "prerouting", -100), rules=to),
        Chain(**PLACE, name="dnat-out", hook=Hook("nat", "output", -100), rules=draw(rules(destination_nat(), 2))),
        Chain(**PLACE, name="snat", hook=Hook("nat", "postrouting", 100), rules=from_),
    ]


@st.composite
def sets(draw: st.DrawFn) -> list[Value]:
    """Sets and maps with some elements each."""
    values: list[Value] = [Set(**PLACE, name="by_port", key=("inet_service",), data=("verdict",))]
    for port in draw(st.lists(st.sampled_from(PORTS), unique=True)):
        verdicts = [Verdict(ACCEPT), Verdict(DROP), Verdict(RETURN), *(Verdict(GOTO, name) for name in CHAINS)]
        values.append(
            Element(**PLACE, set="by_port", key=(port,), data=draw(st.sampled_from(verdicts)), comment=f"port {port}")
        )
    for version in (4, 6):
        address, own = TYPE[version], places(version)
        frontend = (address, "inet_proto", "inet_service")
        shapes: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]] = {
            "addresses": ((address,), (), {}),
            "networks": ((address,), (), {"interval": True}),
            "frontends": (frontend, (), {}),
            "to": (frontend, (address, "inet_service"), {}),
            "any": (("mark",), (address, "inet_service"), {}),
            "seen": ((address, "inet_service"), ("mark",), {"size": 100}),
        }
        values += [Set(**PLACE, name=f"{name}{version}", key=k, data=d, **more) for name, (k, d, more) in shapes.items()]
        chosen = draw(st.lists(st.sampled_from(own), unique=True))
        values += [Element(**PLACE, set=f"addresses{version}", key=(one,)) for one in chosen]
        lengths = (16, 31, 32) if version == 4 else (48, 127, 128)
        found = draw(st.lists(st.tuples(st.sampled_from(own), st.sampled_from(lengths))))
        networks = ipaddress.collapse_addresses([ipaddress.ip_network(pair, strict=False) for pair in found])  # type: ignore[type-var]
        values += [Element(**PLACE, set=f"networks{version}", key=(network,)) for network in networks]
        keys = st.tuples(st.sampled_from(own), st.sampled_from(("tcp", "udp")), st.sampled_from(PORTS))
        values += [Element(**PLACE, set=f"frontends{version}", key=key) for key in draw(st.lists(keys, unique=True))]
        target = st.tuples(st.sampled_from(targets(version)), st.sampled_from(PORTS))
        values += [Element(**PLACE, set=f"to{version}", key=k, data=draw(target)) for k in draw(st.lists(keys, unique=True))]
        values += [Element(**PLACE, set=f"any{version}", key=(n,), data=draw(target)) for n in range(2)]
    return values


@st.composite
def rulesets(draw: st.DrawFn) -> list[Value]:
    """A whole table, in an order in which the kernel can take it."""
    plain = [
        Chain(**PLACE, name=name, rules=draw(rules(plain_action(CHAINS[number + 1 :]), 3)))
        for number, name in enumerate(CHAINS)
    ]
    return [Table(**PLACE), *draw(sets()), *plain, *draw(filters()), *draw(translations())]


@st.composite
def packets(draw: st.DrawFn) -> tuple[str, Packet]:
    """Who sends, and a packet, whose source port is chosen by who sends it."""
    version = draw(VERSIONS)
    netns = draw(st.sampled_from(("left", "left", "left", "")))
    source = ip(LEFT[version].format(2)) if netns == "left" else ip(RIGHT[version].format(1))
    packet = Packet(
        source=source,
        destination=draw(st.sampled_from([one for one in places(version) if one != source])),
        protocol=draw(st.sampled_from(("tcp", "udp"))),
        destination_port=draw(st.sampled_from(PORTS)),
    )
    return netns, packet

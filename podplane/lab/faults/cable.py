"""What goes wrong on the cable between a node and its switch, as rules of nf_tables at the switch: nobody on the node sees or undoes it.

Each fault of each node is a table of its own in the switch's namespace, of the family `bridge`, which sees every frame: of pods, of
tunnels, of ARP and neighbour discovery. What comes from the node passes the hook `prerouting`, what goes to it `postrouting`, and what
other ports of the same switch exchange with it `forward`. Functions that make or lift something block for some milliseconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from podplane.kernel.namespace import Namespace
from podplane.lab.faults import blockade, foreign
from podplane.lab.faults.arguments import PROTOCOLS, Loss, Port
from podplane.lab.faults.blockade import PRIORITY
from podplane.lab.underlay import MTU
from podplane.state.nft import ACCEPT, DROP, Chain, Cmp, Hook, Meta, Numgen, Rule, Table
from podplane.state.nft_nat import port_is
from podplane.state.nft_rules import (
    META_L4PROTO,
    Row,
    destination_in,
    ethertype,
    input_is,
    output_is,
    rule,
    source_in,
    verdict,
)
from podplane.state.operations import Operation
from podplane.state.value import IPAddress, IPNetwork, Value

FAMILY = "bridge"
FROM_NODE, TO_NODE, BETWEEN_PORTS = "prerouting", "postrouting", "forward"
AT_RANDOM, LESS = 1, 2
"""NFT_NG_RANDOM, NFT_CMP_LT."""
NUMBERS = (1 << 32) - 1
"""So many random numbers there are (`modulus`). They are compared byte by byte, in the machine's order of bytes, which is as random."""


class Cable(msgspec.Struct, frozen=True):
    """The cable of a node: the switch's namespace, its port there, the interface of its gateway, and which addresses nodes and gateways
    have. `second` is the port of the node's eth1, "" for none."""

    node: str
    switch: Namespace
    port: str
    gate: str
    networks: tuple[IPNetwork, ...]
    gateways: tuple[IPAddress, ...]
    second: str = ""

    @property
    def ports(self) -> tuple[str, ...]:
        """Of all its interfaces."""
        return tuple(filter(None, (self.port, self.second)))


def set_up(cable: Cable, fault: str, chains: Iterable[Chain]) -> None:
    """Have these rules in force as this fault of the node. KernelError when they can't be."""
    lift(cable, fault)
    table = Table(family=FAMILY, table=table_name(cable.node, fault))
    values: list[Value] = [table, *chains]
    blockade.carry_out(cable.switch, [Operation(None, value) for value in values])


def lift(cable: Cable, fault: str) -> None:
    """End this fault."""
    table = Table(family=FAMILY, table=table_name(cable.node, fault))
    blockade.carry_out(cable.switch, [Operation(table, None)], missing_ok=True)


def table_name(node: str, fault: str) -> str:
    """Of the table of one fault."""
    return f"fault-{node}-{fault}"


def loss(cable: Cable, wanted: Loss) -> Iterator[Chain]:
    """Some packets that the node sends are lost, and, unless it is `one_way`, of those to it."""
    for hook, row in ((FROM_NODE, input_is(cable.port)), (TO_NODE, output_is(cable.port))):
        if hook == FROM_NODE or not wanted.one_way:
            yield _chain(cable, "loss", hook, [rule(row, _at_random(wanted.share), verdict(DROP), comment="loss")])


def _at_random(share: float) -> Row:
    """`numgen random mod 4294967295 < share of that`; nothing to ask for when it is always so."""
    if share >= 1:
        return ()
    least = max(1, round(share * NUMBERS))
    return (Numgen(modulus=NUMBERS, type=AT_RANDOM), Cmp(op=LESS, data=least.to_bytes(4, "big")))


def blocked_port(cable: Cable, wanted: Port) -> Iterator[Chain]:
    """Packets of a protocol, or to a port of it, are dropped, whichever way they go."""
    for hook, row in ((FROM_NODE, input_is(cable.port)), (TO_NODE, output_is(cable.port))):
        rules = [
            rule(
                row,
                (Meta(key=META_L4PROTO, dreg=1), Cmp(data=bytes((PROTOCOLS[name],)))),
                port_is(wanted.number) if wanted.number else (),
                verdict(DROP),
                comment=f"block-port {wanted}",
            )
            for name in wanted.protocols
        ]
        yield _chain(cable, "block-port", hook, rules)


def isolated(cable: Cable) -> Iterator[Chain]:
    """Nothing passes between the node and other nodes: by its switches, nor by the router between subnets. The gateway is reached, and
    with it the API and the world outside."""
    drop = verdict(DROP)
    between = [rule(match(port), drop, comment="isolate") for port in cable.ports for match in (input_is, output_is)]
    yield _chain(cable, "isolate", BETWEEN_PORTS, between)
    for hook, at, match in ((FROM_NODE, input_is, destination_in), (TO_NODE, output_is, source_in)):
        networks: Sequence[tuple[IPNetwork, int]] = [
            *((ipaddress.ip_network(ip), ACCEPT) for ip in cable.gateways),
            *((network, DROP) for network in cable.networks),
        ]
        rules = [
            rule(at(port), ethertype(network.version), match(network), verdict(code), comment="isolate")
            for port in cable.ports
            for network, code in networks
        ]
        yield _chain(cable, "isolate", hook, rules)


def set_mtu(cable: Cable, mtu: int) -> None:
    """Have the switch's port take packets of at most so many bytes to the node, and from it of a VLAN tag more, as veth does whether a
    frame has one or not (is_skb_forwardable). FaultError when it can't.

    The switch's own interface, the gateway, follows its ports (br_mtu_auto_adjust) until it was given an MTU of its own; below 1280 it
    would lose its IPv6 addresses (addrconf_notify). It is given one before, by way of another: that which it has is none (dev_set_mtu).
    """
    for own in (MTU + 1, MTU):
        foreign.set_mtu(cable.switch, cable.gate, own)
    foreign.set_mtu(cable.switch, cable.port, mtu)


def _chain(cable: Cable, fault: str, hook: str, rules: Sequence[Rule]) -> Chain:
    table = table_name(cable.node, fault)
    return Chain(family=FAMILY, table=table, name=hook, hook=Hook("filter", hook, PRIORITY), rules=tuple(rules))

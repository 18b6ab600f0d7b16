"""Where a packet goes: `evaluate(world, packet) -> Trace`.

A packet is sent by a namespace, or comes to it by a link (`Packet.link`). It is followed through hooks, routes, bridges and veth pairs
until somebody takes it, refuses it, or the values say no more. What connections and dynamic sets remember goes in and comes out as a
`Memory`; `reply` sends the answer to a packet that was delivered.

Followed are unicast packets over links, veth pairs, bridges with and without br_netfilter, GRE tunnels (`tunnel`), routes, neighbours,
proxies, nf_tables of the families inet, ip, ip6 and bridge, connection tracking and translation. Not followed, and said to be unknown:
multicast, broadcast, VXLAN, expressions and tables that values don't describe. Not modelled: fragments, MTUs, TCP's own states (a packet
of a connection that is not remembered begins one), ICMP errors on their way back, and time: nothing expires.

    trace = evaluate(world, Packet(source=pod, destination=cluster_ip), "pod/uid-1")
    print(trace)                       # every step, with the API object that decided it
    assert reply(world, trace).end == Delivered("pod/uid-1", pod, 40000, "tcp")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from podplane.state.nft import Limit
from podplane.state.value import IPAddress
from podplane.trace import ip, link
from podplane.trace import packet as packets
from podplane.trace.expressions import Undecided
from podplane.trace.memory import Memory
from podplane.trace.packet import NO_MAC, Packet
from podplane.trace.trace import Delivered, Ending, Trace, Unknown
from podplane.trace.walk import Stage, Walk
from podplane.trace.world import End, World

MAX_STAGES = 2000
"""A packet's TTL ends routing loops; this ends every other."""
MAX_OUTCOMES = 1000
STAGES: Mapping[Stage, Callable[[Walk], Stage | Ending]] = {
    Stage.ARRIVE: link.arrive,
    Stage.BRIDGE_PREROUTING: link.bridge_prerouting,
    Stage.BRIDGE_FORWARD: link.bridge_forward,
    Stage.BRIDGE_INPUT: link.bridge_input,
    Stage.PREROUTING: ip.prerouting,
    Stage.ROUTE: ip.route,
    Stage.INPUT: ip.input_,
    Stage.FORWARD: ip.forward,
    Stage.OUTPUT: ip.output,
    Stage.POSTROUTING: ip.postrouting,
    Stage.NEIGHBOUR: ip.neighbour,
    Stage.BRIDGE_OUTPUT: link.bridge_output,
    Stage.BRIDGE_POSTROUTING: link.bridge_postrouting,
    Stage.TRANSMIT: link.transmit,
}


def first(_: int) -> int:
    """Of several choices, always the first."""
    return 0


def never(_: Limit) -> bool:
    """No limit is exceeded."""
    return False


def evaluate(
    world: World,
    packet: Packet,
    netns: str = "",
    memory: Memory | None = None,
    choose: Callable[[int], int] = first,
    exceeds: Callable[[Limit], bool] = never,
) -> Trace:
    """Follow a packet that namespace `netns` sends, or that comes to it by `packet.link`.

    `choose(n)` gives a number below n wherever the kernel takes a random one; `exceeds` says whether a limit is exceeded. `memory`
    is not changed; what it is afterwards is in the Trace. KeyError when there is no such namespace.
    """
    walk = Walk(world, world.namespaces[netns], packet, memory.copy() if memory else Memory(), choose, exceeds)
    try:
        end = _run(walk, _begin(walk))
    except Undecided as why:
        end = Unknown(str(why))
    return Trace(packet, tuple(walk.hops), end, walk.packet, walk.memory)


def _begin(walk: Walk) -> Stage | Ending:
    packet = walk.packet
    if packet.source.version != packet.destination.version:
        raise ValueError(f"a packet of two IP versions: {packet}")
    if packet.destination.is_multicast:
        return Unknown("a multicast is not followed")
    if not packet.link:
        return Stage.OUTPUT
    walk.port_in = packet.link
    if packet.destination_mac == NO_MAC:
        walk.change(destination_mac=walk.world.mac(End(walk.netns, packet.link)))
    return Stage.ARRIVE


def _run(walk: Walk, stage: Stage | Ending) -> Ending:
    for _ in range(MAX_STAGES):
        if not isinstance(stage, Stage):
            return stage
        stage = STAGES[stage](walk)
    return Unknown(f"it is still on its way after {MAX_STAGES} steps")


def reply(world: World, trace: Trace, choose: Callable[[int], int] = first, exceeds: Callable[[Limit], bool] = never) -> Trace:
    """The answer to a packet that was delivered, sent by who got it, with what the machines remember. ValueError when it was dropped."""
    if not isinstance(trace.end, Delivered):
        raise ValueError(f"nobody answers: {trace.end}")
    return evaluate(world, answer(trace.packet), trace.end.netns, trace.memory, choose, exceeds)


def answer(packet: Packet) -> Packet:
    """The packet that answers one, as its receiver sends it."""
    source, destination = packet.destination_port, packet.source_port
    if packet.protocol in packets.ICMP:
        source, destination = packet.source_port, packets.ECHO_REPLY[packet.protocol]
    return Packet(
        source=packet.destination,
        destination=packet.source,
        protocol=packet.protocol,
        source_port=source,
        destination_port=destination,
        tcp_flags=packets.SYN | packets.ACK,
    )


def outcomes(world: World, packet: Packet, netns: str = "", memory: Memory | None = None) -> list[Trace]:
    """All that may become of a packet: a trace for each row of choices. ValueError beyond MAX_OUTCOMES."""
    found: list[Trace] = []
    open_: list[tuple[int, ...]] = [()]
    while open_:
        prefix = open_.pop()
        made: list[int] = []

        def choose(modulus: int, prefix: tuple[int, ...] = prefix, made: list[int] = made) -> int:
            position = len(made)
            made.append(modulus)
            return prefix[position] if position < len(prefix) else 0

        found.append(evaluate(world, packet, netns, memory, choose))
        if len(found) > MAX_OUTCOMES:
            raise ValueError(f"more than {MAX_OUTCOMES} outcomes of {packet}")
        for position in range(len(prefix), len(made)):
            zeros = (0,) * (position - len(prefix))
            open_ += [(*prefix, *zeros, choice) for choice in reversed(range(1, made[position]))]
    return found


def packet_from(world: World, netns: str, destination: IPAddress, **fields: object) -> Packet:
    """A packet of a namespace with the source address that its kernel gives it. ValueError when it has no route."""
    source = world.namespaces[netns].routing.source_for(destination)
    if source is None:
        raise ValueError(f"{netns or 'the node'} has no route to {destination}, or no address")
    return msgspec.structs.replace(Packet(source=source, destination=destination), **fields)

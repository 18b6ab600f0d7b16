"""A frame at a link: it arrives, crosses a bridge, and leaves, with the hooks of the bridge family and those of IP on a bridge.

Sources: net/bridge/{br_input,br_forward,br_device,br_netfilter_hooks}.c (br_nf_pre_routing_finish for destinations that were
translated), drivers/net/veth.c (skb_scrub_packet).
"""

from __future__ import annotations

from podplane.state.mac import BROADCAST, is_group
from podplane.trace import packet as packets
from podplane.trace.bridge import is_local_mac, locks_out, port_to, resolve
from podplane.trace.expressions import Undecided
from podplane.trace.ip import Next, martian, next_hop
from podplane.trace.routing import LOCAL, UNICAST
from podplane.trace.trace import Forwarded
from podplane.trace.walk import Stage, Walk
from podplane.trace.world import End

BR_NETFILTER = 0
"""NF_BR_PRI_BRNF: where the hooks of IP are passed among those of the bridge family."""
LOWEST, HIGHEST = -(1 << 31), 1 << 31
BEFORE, AFTER, ALL = range(LOWEST, BR_NETFILTER + 1), range(BR_NETFILTER + 1, HIGHEST), range(LOWEST, HIGHEST)


def arrive(walk: Walk) -> Next:
    """A frame came in by `port_in`: it goes to IP, or to the bridge that the link is a port of."""
    link, end = walk.link(walk.port_in), walk.end(walk.port_in)
    if not link.up:
        return walk.drop(Stage.ARRIVE, f"{link.name} is down", link)
    walk.change(pkttype=_kind_of(walk.packet.destination_mac, walk.world.mac(end)))
    walk.tell(Stage.ARRIVE, f"by {link.name}", link)
    if not link.master:
        walk.link_in, walk.port_in = link.name, ""
        walk.change(link=link.name)
        return Stage.PREROUTING
    walk.link_in = link.master
    walk.change(link=link.master)
    if not walk.link(link.master).up:
        return walk.drop(Stage.ARRIVE, f"{link.master} is down", walk.link(link.master))
    return Stage.BRIDGE_PREROUTING


def _kind_of(destination: str, own: str) -> int:
    """For whom a frame is, by its MAC (eth_type_trans)."""
    if destination == own:
        return packets.HOST
    if destination == BROADCAST:
        return packets.BROADCAST
    return packets.MULTICAST if is_group(destination) else packets.OTHER


def _calls_ip(walk: Walk) -> bool:
    return walk.namespace.filters_bridged(walk.packet.version)


def bridge_prerouting(walk: Walk) -> Next:
    """The first hook on a bridge, with IP's within it."""
    if walk.packet.destination_mac == walk.world.mac(walk.end(walk.link_in)):
        walk.change(pkttype=packets.HOST)
    ending: Next | None = walk.pass_bridge_hook("prerouting", BEFORE)
    if ending is None and _calls_ip(walk):
        ending = _ip_prerouting(walk)
    ending = ending or walk.pass_bridge_hook("prerouting", AFTER)
    if ending is not None:
        return ending
    mac, bridge = walk.packet.destination_mac, walk.end(walk.link_in)
    if locks_out(walk.world, bridge, walk.link(walk.port_in), walk.packet.source_mac):
        return walk.drop(
            Stage.BRIDGE_PREROUTING, f"{walk.packet.source_mac} may not send by this port", walk.link(walk.port_in)
        )
    return Stage.BRIDGE_INPUT if is_local_mac(walk.world, bridge, mac) else Stage.BRIDGE_FORWARD


def _ip_prerouting(walk: Walk) -> Next | None:
    """IP's hook; a packet that got another destination there goes to the bridge's own interface, or on to another MAC of the bridge."""
    walk.bridged = True
    before, ending = walk.packet, walk.pass_hook("prerouting")
    if ending is not None or before.destination == walk.packet.destination:
        return ending
    why = martian(walk)
    if why:
        return walk.drop(Stage.BRIDGE_PREROUTING, why)
    packet = walk.packet
    found = walk.namespace.routing.find(packet.destination, packet.source, packet.mark)
    if found is None or found.kind not in (UNICAST, LOCAL):
        return walk.drop(Stage.BRIDGE_PREROUTING, f"no route to {packet.destination}", found.value if found else None)
    if found.kind == LOCAL or found.link != walk.link_in:
        walk.change(destination_mac=walk.world.mac(walk.end(walk.link_in)), pkttype=packets.HOST)
        return None
    ip = next_hop(packet, found)
    resolved = resolve(walk.world, walk.end(walk.link_in), ip)
    if resolved is None:
        return walk.drop(Stage.BRIDGE_PREROUTING, f"nobody on {walk.link_in} answers for {ip}")
    walk.change(destination_mac=resolved.mac)
    walk.tell(Stage.BRIDGE_PREROUTING, f"{ip} on {walk.link_in} is at {resolved.mac}", resolved.value)
    return None


def bridge_input(walk: Walk) -> Next:
    """Up to the bridge's own interface."""
    ending = walk.pass_bridge_hook("input", ALL)
    return ending or Stage.PREROUTING


def _choose_port(walk: Walk, bridge: str, stage: Stage) -> Next | None:
    """Find the port for a frame, or end."""
    mac = walk.packet.destination_mac
    if is_group(mac):
        raise Undecided(f"a frame to the group address {mac} is not followed")
    port = port_to(walk.world, walk.end(bridge), mac, walk.port_in)
    if port is None:
        return walk.drop(stage, f"no port of {bridge} leads to {mac}", walk.link(bridge))
    walk.port_out = port.link.name
    walk.tell(stage, f"{mac} is behind port {port.link.name}", port.value, port.link.alias)
    return None


def bridge_forward(walk: Walk) -> Next:
    """From port to port. IP's hooks see the bridge as both interfaces, and count no hop."""
    walk.link_out = walk.link_in
    ending = _choose_port(walk, walk.link_in, Stage.BRIDGE_FORWARD)
    if ending is not None:
        return ending
    ending = walk.pass_bridge_hook("forward", BEFORE)
    if ending is None and walk.bridged:
        ending = walk.pass_hook("forward")
    return ending or walk.pass_bridge_hook("forward", AFTER) or Stage.BRIDGE_POSTROUTING


def bridge_output(walk: Walk) -> Next:
    """From IP of this machine out through a bridge."""
    walk.port_in, walk.bridged = "", False
    ending = _choose_port(walk, walk.link_out, Stage.BRIDGE_OUTPUT)
    return ending or walk.pass_bridge_hook("output", ALL) or Stage.BRIDGE_POSTROUTING


def bridge_postrouting(walk: Walk) -> Next:
    """The last hook on a bridge; IP's hook is passed after it, unless IP itself sent the packet."""
    ending = walk.pass_bridge_hook("postrouting", ALL)
    if ending is None and walk.bridged:
        ending = walk.pass_hook("postrouting")
    walk.link_out = walk.port_out
    return ending or Stage.TRANSMIT


def transmit(walk: Walk) -> Next:
    """Over a veth pair or a network of several machines into another namespace, where nothing but the packet is known of it."""
    link, end = walk.link(walk.link_out), walk.end(walk.link_out)
    if link.vxlan is not None:
        raise Undecided(f"encapsulation by {link.name} is not followed")
    mac = walk.packet.destination_mac
    peer = walk.world.peer(end)
    others = [other for other in walk.world.segment(end) if other != end]
    if peer is None and not others:
        walk.tell(Stage.TRANSMIT, f"by {link.name} to {mac}", link)
        return Forwarded(walk.netns, link.name, mac)
    found = peer if peer is not None else _owner(walk, others, mac)
    walk.tell(Stage.TRANSMIT, f"by {link.name} to {mac}", link)
    if found is None:
        return walk.drop(Stage.TRANSMIT, f"nobody on the network of {link.name} has {mac}", link)
    walk.enter(found)
    return Stage.ARRIVE


def _owner(walk: Walk, others: list[End], mac: str) -> End | None:
    return next((other for other in others if walk.world.mac(other) == mac), None)

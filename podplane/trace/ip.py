"""IP on one machine: receive, route, deliver, forward, send, as net/ipv4/ip_{input,forward,output}.c and net/ipv6 have it."""

from __future__ import annotations

from podplane.state.value import IPAddress
from podplane.trace import packet as packets
from podplane.trace import tunnel
from podplane.trace.bridge import resolve
from podplane.trace.packet import Packet
from podplane.trace.routing import BROADCAST, LOCAL, UNICAST, NextHop
from podplane.trace.trace import Delivered, Ending, Forwarded, Unknown
from podplane.trace.walk import Stage, Walk

Next = Stage | Ending
REFUSALS = {
    "unreachable": {4: "icmp host unreachable", 6: "icmp no route"},
    "prohibit": {4: "icmp admin prohibited", 6: "icmp admin prohibited"},
    None: {4: "icmp net unreachable", 6: "icmp no route"},
}
"""How the sender is told that a route leads nowhere; None: there is no route. A blackhole tells nobody."""
STRICT, LOOSE = 1, 2


def prerouting(walk: Walk) -> Next:
    """A packet for this machine, or to be forwarded; what came over a bridge may have passed the hook there (ip_sabotage_in)."""
    if walk.packet.pkttype == packets.OTHER:
        return walk.drop(Stage.PREROUTING, f"the frame is for {walk.packet.destination_mac}, not for {walk.link_in}")
    if walk.bridged:
        walk.bridged = False
        return Stage.ROUTE
    return walk.pass_hook("prerouting") or Stage.ROUTE


def route(walk: Walk) -> Next:
    """The routing decision of a received packet."""
    packet, namespace = walk.packet, walk.namespace
    why = martian(walk) if walk.link_in != "lo" else ""
    if why:
        return walk.drop(Stage.ROUTE, why)
    found = namespace.routing.find(packet.destination, packet.source, packet.mark)
    if found is not None and found.kind == LOCAL:
        walk.tell(Stage.ROUTE, f"{packet.destination} is an address of this machine", found.value)
        return Stage.INPUT
    if found is not None and found.kind == BROADCAST:
        return Unknown("a broadcast is not followed")
    if not namespace.forwards(packet.version, walk.link_in):
        return walk.drop(Stage.ROUTE, f"{packet.destination} is not an address of this machine, and it does not forward")
    return _leads_somewhere(walk, found) or Stage.FORWARD


def _leads_somewhere(walk: Walk, found: NextHop | None) -> Ending | None:
    """Take the route, or end with what it says."""
    packet, value = walk.packet, found.value if found is not None else None
    if found is None or found.kind in REFUSALS:
        text = f"route to {packet.destination}: {found.kind}" if found is not None else f"no route to {packet.destination}"
        return walk.reject(Stage.ROUTE, text, REFUSALS[found.kind if found else None][packet.version], value)
    if found.kind != UNICAST:
        return walk.drop(Stage.ROUTE, f"route to {packet.destination}: {found.kind}", value)
    walk.route = found
    via = f" via {found.gateway}" if found.gateway else ""
    walk.tell(Stage.ROUTE, f"to {packet.destination}{via} by {found.link}", value)
    return None


def martian(walk: Walk) -> str:
    """Why a received packet's addresses are refused; "" when they are not (fib_validate_source, ip6_rcv_core)."""
    packet, namespace = walk.packet, walk.namespace
    localnet = packet.version == 4 and namespace.routes_localnet(walk.link_in)
    if not localnet and (packet.source.is_loopback or packet.destination.is_loopback):
        return "a loopback address from outside"
    if packet.version == 6:
        return ""
    if namespace.routing.is_local(packet.source) and not _interface_set(walk, "accept_local"):
        return f"its source {packet.source} is an address of this machine"
    filter_ = max(int(namespace.sysctls.get(f"net.ipv4.conf.{name}.rp_filter", "0")) for name in ("all", walk.link_in))
    back = namespace.routing.find(packet.source, packet.destination)
    is_wrong = back is None or (filter_ == STRICT and back.link != walk.link_in)
    return f"rp_filter: {packet.source} is not reached by {walk.link_in}" if filter_ and is_wrong else ""


def _interface_set(walk: Walk, name: str) -> bool:
    return any(walk.namespace.is_set(f"net.ipv4.conf.{link}.{name}") for link in ("all", walk.link_in))


def input_(walk: Walk) -> Next:
    """Up to a socket."""
    ending = walk.pass_hook("input")
    if ending is not None:
        return ending
    packet = walk.packet
    walk.tell(Stage.INPUT, f"delivered to {packet.destination}")
    port = packet.destination_port if packet.protocol in packets.WITH_PORTS else 0
    return Delivered(walk.netns, packet.destination, port, packet.protocol)


def forward(walk: Walk) -> Next:
    """On to the next machine."""
    if walk.packet.ttl <= 1:
        return walk.reject(Stage.FORWARD, "its time to live is over", "icmp time exceeded")
    assert walk.route is not None
    walk.link_out = walk.route.link
    walk.change(ttl=walk.packet.ttl - 1)
    return walk.pass_hook("forward") or Stage.POSTROUTING


def output(walk: Walk) -> Next:
    """From a socket of this machine."""
    packet = walk.packet
    found = walk.namespace.routing.find(packet.destination, packet.source, packet.mark)
    if found is not None and found.kind == BROADCAST:
        return Unknown("a broadcast is not followed")
    if found is not None and found.kind == LOCAL:
        walk.route = found
    else:
        ending = _leads_somewhere(walk, found)
        if ending is not None:
            return ending
    assert walk.route is not None
    walk.link_out = out_link(walk.route)
    return walk.pass_hook("output") or Stage.POSTROUTING


def out_link(found: NextHop) -> str:
    """The link by which a packet of this machine leaves; what is for the machine itself leaves by loopback."""
    return "lo" if found.kind == LOCAL else found.link


def postrouting(walk: Walk) -> Next:
    """The last hook of IP."""
    assert walk.route is not None
    walk.link_out = out_link(walk.route)
    return walk.pass_hook("postrouting") or Stage.NEIGHBOUR


def next_hop(packet: Packet, found: NextHop) -> IPAddress:
    """Whose MAC is needed."""
    return found.gateway or packet.destination


def neighbour(walk: Walk) -> Next:
    """Find the MAC of the next hop."""
    assert walk.route is not None
    link = walk.link(walk.link_out)
    if link.name == "lo":
        walk.change(pkttype=packets.HOST, link="lo")
        walk.link_in, walk.link_out, walk.port_in = "lo", "", ""
        return Stage.PREROUTING
    if tunnel.is_external(link):
        return tunnel.transmit(walk, link, tunnel.encap_of(walk.route.value))
    ip = next_hop(walk.packet, walk.route)
    found = resolve(walk.world, walk.end(link.name), ip)
    walk.change(source_mac=walk.world.mac(walk.end(link.name)))
    if found is None and walk.world.is_joined(walk.end(link.name)):
        return walk.reject(Stage.NEIGHBOUR, f"nobody on {link.name} answers for {ip}", "icmp host unreachable")
    if found is None:
        walk.tell(Stage.NEIGHBOUR, f"{ip} must be asked for on {link.name}", link)
        return Forwarded(walk.netns, link.name)
    walk.change(destination_mac=found.mac)
    walk.tell(Stage.NEIGHBOUR, f"{ip} on {link.name} is at {found.mac}", found.value)
    is_bridge = link.kind == "bridge" and not walk.world.segment(walk.end(link.name))
    return Stage.BRIDGE_OUTPUT if is_bridge else Stage.TRANSMIT

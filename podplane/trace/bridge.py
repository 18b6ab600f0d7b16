"""Links at layer 2: which interfaces a frame reaches, who answers for an address, which port of a bridge leads to a MAC.

Bridges are taken as if they had learned every MAC: a frame to a unicast MAC that a bridge does not know is flooded, and only the interface
that has the MAC takes it, so it arrives at the same place. A port that neither learns nor floods is left to static entries.

Sources: net/bridge/{br_input,br_forward,br_fdb}.c, net/ipv4/arp.c (arp_process), net/ipv6/ndisc.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from podplane.state.network import Link
from podplane.state.value import IPAddress, Value
from podplane.trace.routing import LOCAL, UNICAST
from podplane.trace.world import End, Namespace, World


class Resolved(NamedTuple):
    """The MAC of an address, and what says so: a permanent neighbour, or the link that answers."""

    mac: str
    value: Value | None


class Port(NamedTuple):
    """Where a bridge sends a frame, and what says so."""

    link: Link
    value: Value


def hosts(world: World, end: End, seen: set[End] | None = None) -> Iterator[End]:
    """The interfaces with IP that a frame that leaves by a link may reach; bridges pass it on."""
    seen = {end} if seen is None else seen
    link = world.link(end)
    if link is None or not link.up:
        return
    peer = world.peer(end)
    for other in (*world.segment(end), *((peer,) if peer is not None else ())):
        if other not in seen:
            seen.add(other)
            yield from _behind(world, other, seen)


def _behind(world: World, other: End, seen: set[End]) -> Iterator[End]:
    """What takes a frame that comes in by a link: the link itself, or its bridge and what is behind other ports."""
    link = world.link(other)
    if link is None or not link.up:
        return
    if not link.master:
        yield other
        return
    yield from on_bridge(world, End(other.netns, link.master), seen)


def on_bridge(world: World, bridge: End, seen: set[End]) -> Iterator[End]:
    """The bridge's own interface, and all behind its ports."""
    yield bridge
    for port in world.namespaces[bridge.netns].ports.get(bridge.link, ()):
        end = End(bridge.netns, port.name)
        if end not in seen:
            seen.add(end)
            yield from hosts(world, end, seen)


def neighbours(world: World, end: End) -> Iterator[End]:
    """The other interfaces with IP on the network of an interface."""
    namespace = world.namespaces[end.netns]
    found = on_bridge(world, end, {end}) if namespace.ports.get(end.link) else hosts(world, end)
    yield from (other for other in found if other != end)


def resolve(world: World, end: End, ip: IPAddress) -> Resolved | None:
    """The MAC for an address on a link: of a permanent neighbour, or of who answers when it is asked for."""
    known = world.namespaces[end.netns].routing.neighbour(end.link, ip)
    if known is not None:
        return Resolved(known.mac.lower(), known)
    for other in neighbours(world, end):
        says = _answers(world.namespaces[other.netns], other.link, ip)
        if says is not None:
            return Resolved(world.mac(other), says)
    return None


def _answers(namespace: Namespace, link: str, ip: IPAddress) -> Value | None:
    """What makes a namespace answer on a link for an address: IPv4's are of the whole machine, IPv6's of the link they are on."""
    routing = namespace.routing
    if ip.version == 4 and routing.is_local(ip):
        hop = routing.find(ip)
        return hop.value if hop is not None and hop.kind == LOCAL else None
    own = next((address for address in routing.addresses.get(link, ()) if address.ip == ip), None)
    if own is not None:
        return own
    proxy = routing.proxy(link, ip)
    if proxy is None or not namespace.forwards(ip.version, link):
        return None
    if ip.version == 6:
        return proxy if namespace.is_set(f"net.ipv6.conf.{link}.proxy_ndp") else None
    hop = routing.find(ip)
    return proxy if hop is not None and hop.kind == UNICAST and hop.link != link else None


def is_local_mac(world: World, bridge: End, mac: str) -> bool:
    """Is it a MAC of the bridge or of one of its ports? Frames to those go up to IP."""
    return world.mac(bridge) == mac or any(is_own for is_own, _ in learned(world, bridge).get(mac, ()))


def port_to(world: World, bridge: End, mac: str, port_in: str) -> Port | None:
    """The port to which a frame goes: that of a static entry, else one behind which the MAC is. It goes back by hairpin only."""
    namespace = world.namespaces[bridge.netns]
    static = namespace.fdb.get(mac)
    own = namespace.links.get(static.link) if static is not None else None
    came_by = namespace.links.get(port_in)
    if static is not None and own is not None and own.master == bridge.link:
        return Port(own, static) if _may_leave(own, port_in, came_by) else None
    for is_own, port in learned(world, bridge).get(mac, ()):
        is_open = port.learning or port.flood
        if not is_own and is_open and _may_leave(port, port_in, came_by):
            return Port(port, port)
    return None


def learned(world: World, bridge: End) -> Mapping[str, Sequence[tuple[bool, Link]]]:
    """By MAC, the ports of a bridge that have it themselves (True) or behind them (False); found once for each bridge of a world."""
    found = world.ports_by_mac.get(bridge)
    if found is None:
        found = world.ports_by_mac[bridge] = {}
        for port in world.namespaces[bridge.netns].ports.get(bridge.link, ()):
            end = End(bridge.netns, port.name)
            found.setdefault(world.mac(end), []).append((True, port))
            for other in hosts(world, end, {end, bridge}):
                found.setdefault(world.mac(other), []).append((False, port))
    return found


def locks_out(world: World, bridge: End, port: Link, mac: str) -> bool:
    """Is a frame from this MAC refused at a port? br_handle_frame_finish: a locked port takes what the bridge has an entry of there."""
    static = world.namespaces[bridge.netns].fdb.get(mac)
    return port.locked and (static is None or static.link != port.name or is_local_mac(world, bridge, mac))


def _may_leave(port: Link, port_in: str, came_by: Link | None) -> bool:
    """should_deliver of net/bridge/br_forward.c."""
    are_isolated = port.isolated and came_by is not None and came_by.isolated
    return port.up and (port.name != port_in or port.hairpin) and not are_isolated

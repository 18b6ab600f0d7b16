"""A packet through a GRE tunnel: encapsulated as its route says, and taken by the external device of who has the remote address.

The packet between both ends is not followed: neither the hooks of netfilter that it passes, nor its route. VXLAN is not followed at all.

Sources: net/ipv4/{ip_gre,ip_tunnel}.c (ip_md_tunnel_xmit, ip_tunnel_lookup), net/ipv6/ip6_gre.c.
"""

from __future__ import annotations

from podplane.state.network import Encap, Link, Route
from podplane.trace.expressions import Undecided
from podplane.trace.trace import Ending, Forwarded
from podplane.trace.walk import Stage, Walk
from podplane.trace.world import End


def transmit(walk: Walk, link: Link, encap: Encap | None) -> Stage | Ending:
    """Into the tunnel, and out of it at its other end; without any namespace that has the remote address it left the world."""
    if encap is None:
        return walk.drop(Stage.TRANSMIT, f"no route says to whom {link.name} sends it", link)
    walk.tell(Stage.TRANSMIT, f"by {link.name}, in GRE to {encap.remote}", link)
    owner = next(iter(walk.world.owners(encap.remote)), None)
    if owner is None:
        return Forwarded(walk.netns, link.name)
    devices = walk.world.namespaces[owner].links.values()
    device = next((one.name for one in devices if one.kind == link.kind and one.up and is_external(one)), None)
    if device is None:
        return walk.drop(Stage.TRANSMIT, f"{owner or 'the node'} takes no GRE", link)
    end = End(owner, device)
    walk.enter(end)
    walk.change(destination_mac=walk.world.mac(end))
    return Stage.ARRIVE


def is_external(link: Link) -> bool:
    """Is it a GRE device that asks routes where packets go? Undecided for others: where they lead is not known."""
    if link.gre is None:
        return False
    if not link.gre.external:
        raise Undecided(f"where the tunnel {link.name} leads is not known")
    return True


def encap_of(route: object) -> Encap | None:
    """How the route that a packet took has it encapsulated."""
    return route.encap if isinstance(route, Route) else None

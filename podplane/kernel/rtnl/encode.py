"""Values of rtnetlink's world as messages. Interfaces are named by index here: `index` looks one up, 0 is none."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

import msgspec

from podplane.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    be16,
    be64,
    nested,
    text,
    u8,
    u16,
    u32,
)
from podplane.kernel.rtnl import constants as c
from podplane.state.network import Address, Encap, Fdb, Link, Neighbour, Peer, Proxy, Route, Rule, Vxlan
from podplane.state.value import IPNetwork

Index = Callable[[str], int]
NamespaceFd = Callable[[str], int]
CREATE = NLM_F_CREATE | NLM_F_EXCL
PUT = NLM_F_CREATE | NLM_F_REPLACE
ADD = NLM_F_CREATE | NLM_F_APPEND
KEPT_MODES = 64


def mac_bytes(mac: str) -> bytes:
    """Six bytes of a MAC address in the usual notation."""
    return bytes.fromhex(mac.replace(":", ""))


def new_link(link: Link, own_index: int, index: Index, namespace_fd: NamespaceFd) -> Message:
    """Create a link, with all that one message can say; a veth's peer is made straight in its own namespace.

    The peer can't be up yet: it has no carrier until both ends exist (ENOTCONN in veth_newlink). Both ends are asked for with the one queue
    that they use: the kernel would make one for each processor, and wait for all its readers to take the others away (veth_init_queues).
    """
    info, queues = [text(c.IFLA_INFO_KIND, link.kind), *_bridge_data(link)], b""
    if link.peer is not None:
        queues = u32(c.IFLA_NUM_TX_QUEUES, 1) + u32(c.IFLA_NUM_RX_QUEUES, 1)
        peer = c.LINK.pack(0, 0, 0, 0, 0) + _peer_attributes(link.peer, namespace_fd) + queues
        info.append(nested(c.IFLA_INFO_DATA, attribute(c.VETH_INFO_PEER, peer)))
    if link.vxlan is not None:
        info.append(nested(c.IFLA_INFO_DATA, *_vxlan_attributes(link.vxlan, index)))
    if link.gre is not None and link.gre.external:
        info.append(nested(c.IFLA_INFO_DATA, attribute(c.IFLA_GRE_COLLECT_METADATA, b"")))
    payload = _link_header(own_index, link.up) + text(c.IFLA_IFNAME, link.name)
    at_once = msgspec.structs.replace(link, mtu=0) if link.kind == "bridge" else link
    payload += _link_attributes(at_once, index) + queues + nested(c.IFLA_LINKINFO, *info)
    return Message(c.RTM_NEWLINK, CREATE, payload, lambda: f"create link {link.name}")


def _link_header(index: int, up: bool) -> bytes:
    return c.LINK.pack(0, 0, index, c.IFF_UP if up else 0, c.IFF_UP)


def _link_attributes(link: Link, index: Index) -> bytes:
    parts = []
    if link.mtu:
        parts.append(u32(c.IFLA_MTU, link.mtu))
    if link.mac:
        parts.append(attribute(c.IFLA_ADDRESS, mac_bytes(link.mac)))
    if link.master:
        parts.append(u32(c.IFLA_MASTER, index(link.master)))
    return b"".join(parts)


def _bridge_data(link: Link) -> list[bytes]:
    if link.kind != "bridge":
        return []
    return [nested(c.IFLA_INFO_DATA, u8(c.IFLA_BR_MCAST_SNOOPING, int(link.snooping)))]


def _peer_attributes(peer: Peer, namespace_fd: NamespaceFd) -> bytes:
    parts = [text(c.IFLA_IFNAME, peer.name)]
    if peer.netns:
        parts.append(u32(c.IFLA_NET_NS_FD, namespace_fd(peer.netns)))
    if peer.mac:
        parts.append(attribute(c.IFLA_ADDRESS, mac_bytes(peer.mac)))
    if peer.mtu:
        parts.append(u32(c.IFLA_MTU, peer.mtu))
    return b"".join(parts)


def _vxlan_attributes(vxlan: Vxlan, index: Index) -> list[bytes]:
    parts = [u32(c.IFLA_VXLAN_ID, vxlan.vni), be16(c.IFLA_VXLAN_PORT, vxlan.port)]
    parts.append(u8(c.IFLA_VXLAN_LEARNING, int(vxlan.learning)))
    if vxlan.local is not None:
        kind = c.IFLA_VXLAN_LOCAL if vxlan.local.version == 4 else c.IFLA_VXLAN_LOCAL6
        parts.append(attribute(kind, vxlan.local.packed))
    if vxlan.device:
        parts.append(u32(c.IFLA_VXLAN_LINK, index(vxlan.device)))
    return parts


def set_link(link: Link, own_index: int, index: Index) -> Message:
    """Bring an existing link to what is wanted; no master is said only when the link shall have none and has a kind."""
    payload = _link_header(own_index, link.up) + _link_attributes(link, index)
    if link.kind and not link.master:
        payload += u32(c.IFLA_MASTER, 0)
    if link.kind == "bridge":
        payload += nested(c.IFLA_LINKINFO, text(c.IFLA_INFO_KIND, link.kind), *_bridge_data(link))
    return Message(c.RTM_NEWLINK, 0, payload, lambda: f"set link {link.name}")


def set_later(link: Link, own_index: int) -> Message | None:
    """What only an existing link can have (rtnl_newlink_create passes it over): its alias, and its modes as a bridge port.

    And the MTU of a bridge: one that it was made with follows the MTUs of its ports (br_mtu_auto_adjust), one that is set does not.
    """
    payload = u32(c.IFLA_MTU, link.mtu) if link.kind == "bridge" and link.mtu else b""
    if link.alias:
        payload += attribute(c.IFLA_IFALIAS, link.alias.encode())
    if link.master:
        modes = (
            link.hairpin,
            link.learning,
            link.flood,
            link.isolated,
            link.locked,
            link.multicast_flood,
            link.broadcast_flood,
        )
        payload += _port_modes(link.group_forward, *modes)
    if not payload:
        return None
    return Message(
        c.RTM_NEWLINK, 0, c.LINK.pack(0, 0, own_index, 0, 0) + payload, lambda: f"set alias and port mode of {link.name}"
    )


@functools.lru_cache(KEPT_MODES)
def _port_modes(
    group_forward: int,
    hairpin: bool,
    learning: bool,
    flood: bool,
    isolated: bool,
    locked: bool,
    multicast: bool,
    broadcast: bool,
) -> bytes:
    """The modes of a port of a bridge; those of all pods are the same."""
    modes = (
        u8(c.IFLA_BRPORT_MODE, int(hairpin)),
        u8(c.IFLA_BRPORT_LEARNING, int(learning)),
        u8(c.IFLA_BRPORT_UNICAST_FLOOD, int(flood)),
        u8(c.IFLA_BRPORT_ISOLATED, int(isolated)),
        u8(c.IFLA_BRPORT_LOCKED, int(locked)),
        u8(c.IFLA_BRPORT_MCAST_FLOOD, int(multicast)),
        u8(c.IFLA_BRPORT_BCAST_FLOOD, int(broadcast)),
        attribute(c.IFLA_BRPORT_GROUP_FWD_MASK, struct.pack("=H", group_forward)),
    )
    return nested(c.IFLA_LINKINFO, text(c.IFLA_INFO_SLAVE_KIND, "bridge"), nested(c.IFLA_INFO_SLAVE_DATA, *modes))


def delete_link(own_index: int, name: str) -> Message:
    """Delete a link."""
    return Message(c.RTM_DELLINK, 0, c.LINK.pack(0, 0, own_index, 0, 0), lambda: f"delete link {name}")


def set_group(own_index: int, name: str, group: int) -> Message:
    """Put a link, down and without master, into a group: the quick part of deleting many."""
    payload = _link_header(own_index, False) + u32(c.IFLA_MASTER, 0) + u32(c.IFLA_GROUP, group)
    return Message(c.RTM_NEWLINK, 0, payload, lambda: f"delete link {name}")


def delete_group(group: int) -> Message:
    """Delete all links of a group: the kernel waits for its readers (RCU) once, not once a link."""
    return Message(c.RTM_DELLINK, 0, c.LINK.pack(0, 0, 0, 0, 0) + u32(c.IFLA_GROUP, group), "delete links")


def address(value: Address, index: Index, kind: int, flags: int) -> Message:
    """RTM_NEWADDR or RTM_DELADDR. IPv6 without duplicate address detection: addresses are unique by allocation."""
    nodad = c.IFA_F_NODAD if value.ip.version == 6 else 0
    header = c.ADDRESS.pack(c.FAMILY[value.ip.version], value.prefix_length, nodad, 0, index(value.link))
    packed = value.ip.packed
    payload = header + attribute(c.IFA_LOCAL, packed) + attribute(c.IFA_ADDRESS, packed)
    return Message(kind, flags, payload, lambda: f"address {value.ip}/{value.prefix_length} on {value.link}")


def _layouts(head: struct.Struct, attributes: str) -> dict[int, struct.Struct]:
    """By IP version: a header and attributes that are there always, so that one call packs them all; `A` stands for an address.

    Thousands of routes and neighbours come at once: put together of single attributes, each would take three times as long.
    """
    return {version: struct.Struct(head.format + attributes.replace("A", f"HH{BYTES[version]}s")) for version in BYTES}


BYTES = {4: 4, 6: 16}
"""Of an address, by IP version."""
ROUTE_BY_GATEWAY = _layouts(c.ROUTE, "A HHI A HHI")
MARKED_NEIGHBOUR = _layouts(c.NEIGHBOUR, "A HH6sxx HHBxxx")
FDB_TO = _layouts(c.NEIGHBOUR, "HH6sxx A")


def route(value: Route, index: Index, flags: int) -> Message:
    """RTM_NEWROUTE."""
    gateway = value.gateway
    more = value.metric or value.source is not None or value.encap is not None or value.mtu or value.table > 255
    if gateway is None or not value.link or more:
        return _any_route(value, index, flags)
    network = value.destination
    size = 4 + BYTES[network.version]
    payload = ROUTE_BY_GATEWAY[network.version].pack(
        *(c.FAMILY[network.version], network.prefixlen, 0, 0, value.table, value.protocol),
        *(c.RT_SCOPE_UNIVERSE, c.ALL_ROUTE_TYPES[value.kind], c.RTNH_F_ONLINK if value.onlink else 0),
        *(size, c.RTA_DST, network.network_address.packed, 8, c.RTA_TABLE, value.table),
        *(size, c.RTA_GATEWAY, gateway.packed, 8, c.RTA_OIF, index(value.link)),
    )
    return Message(c.RTM_NEWROUTE, flags, payload, lambda: f"route {_route_text(value)}")


def _any_route(value: Route, index: Index, flags: int) -> Message:
    is_on_link = value.destination.version == 4 and value.gateway is None and value.kind == "unicast"
    header = _route_header(value, c.RT_SCOPE_LINK if is_on_link else c.RT_SCOPE_UNIVERSE)
    parts = [header, *_route_key(value)]
    if value.gateway is not None:
        parts.append(attribute(c.RTA_GATEWAY, value.gateway.packed))
    if value.link:
        parts.append(u32(c.RTA_OIF, index(value.link)))
    if value.metric:
        parts.append(u32(c.RTA_PRIORITY, value.metric))
    if value.source is not None:
        parts.append(attribute(c.RTA_PREFSRC, value.source.packed))
    if value.encap is not None:
        parts += [u16(c.RTA_ENCAP_TYPE, c.LWTUNNEL_ENCAP[value.encap.remote.version]), _encap(value.encap)]
    if value.mtu:
        parts.append(nested(c.RTA_METRICS, u32(c.RTAX_MTU, value.mtu)))
    return Message(c.RTM_NEWROUTE, flags, b"".join(parts), lambda: f"route {_route_text(value)}")


def _encap(encap: Encap) -> bytes:
    """What the tunnel device is told (ip_tun_build_state, ip6_tun_build_state)."""
    parts = [attribute(c.LWTUNNEL_DST, encap.remote.packed)]
    if encap.local is not None:
        parts.append(attribute(c.LWTUNNEL_SRC, encap.local.packed))
    if encap.hops:
        parts.append(u8(c.LWTUNNEL_TTL, encap.hops))
    if encap.id:
        parts.append(be64(c.LWTUNNEL_ID, encap.id))
    if encap.flags:
        parts.append(be16(c.LWTUNNEL_FLAGS, encap.flags))
    return nested(c.RTA_ENCAP, *parts)


def delete_route(value: Route) -> Message:
    """RTM_DELROUTE of the route with this identity and protocol, wherever it leads: the kernel compares what the message says."""
    metric = value.metric or (c.IP6_DEFAULT_METRIC if value.destination.version == 6 else 0)
    parts = [_route_header(value, c.RT_SCOPE_NOWHERE), *_route_key(value)]
    if metric:
        parts.append(u32(c.RTA_PRIORITY, metric))
    return Message(c.RTM_DELROUTE, 0, b"".join(parts), lambda: f"route {_route_text(value)}")


def _route_header(value: Route, scope: int) -> bytes:
    table = value.table if value.table < 256 else 0
    onlink = c.RTNH_F_ONLINK if value.onlink and scope != c.RT_SCOPE_NOWHERE else 0
    family, length = c.FAMILY[value.destination.version], value.destination.prefixlen
    return c.ROUTE.pack(family, length, 0, 0, table, value.protocol, scope, c.ALL_ROUTE_TYPES[value.kind], onlink)


def _route_key(value: Route) -> list[bytes]:
    return [attribute(c.RTA_DST, value.destination.network_address.packed), u32(c.RTA_TABLE, value.table)]


def _route_text(value: Route) -> str:
    via = f" via {value.gateway}" if value.gateway is not None else ""
    kind = "" if value.kind == "unicast" else f"{value.kind} "
    return f"{kind}{value.destination}{via}" + (f" dev {value.link}" if value.link else "")


def neighbour(value: Neighbour, index: Index, kind: int, flags: int) -> Message:
    """RTM_NEWNEIGH or RTM_DELNEIGH of a permanent entry."""
    if value.protocol and value.mac and kind == c.RTM_NEWNEIGH:
        version = value.ip.version
        payload = MARKED_NEIGHBOUR[version].pack(
            *(c.FAMILY[version], index(value.link), c.NUD_PERMANENT, 0, 0),
            *(4 + BYTES[version], c.NDA_DST, value.ip.packed, 10, c.NDA_LLADDR, mac_bytes(value.mac)),
            *(5, c.NDA_PROTOCOL, value.protocol),
        )
        return Message(kind, flags, payload, lambda: f"neighbour {value.ip} on {value.link}")
    header = c.NEIGHBOUR.pack(c.FAMILY[value.ip.version], index(value.link), c.NUD_PERMANENT, 0, 0)
    payload = header + attribute(c.NDA_DST, value.ip.packed)
    if value.mac:
        payload += attribute(c.NDA_LLADDR, mac_bytes(value.mac))
    if value.protocol and kind == c.RTM_NEWNEIGH:
        payload += u8(c.NDA_PROTOCOL, value.protocol)
    return Message(kind, flags, payload, lambda: f"neighbour {value.ip} on {value.link}")


def get_neighbour(value: Neighbour | Proxy, index: int) -> bytes:
    """Payload that asks for one neighbour or proxy."""
    flags = c.NTF_PROXY if isinstance(value, Proxy) else 0
    return c.NEIGHBOUR.pack(c.FAMILY[value.ip.version], index, 0, flags, 0) + attribute(c.NDA_DST, value.ip.packed)


def proxy(value: Proxy, index: Index, kind: int, flags: int) -> Message:
    """RTM_NEWNEIGH or RTM_DELNEIGH of an address that is answered for (NTF_PROXY)."""
    header = c.NEIGHBOUR.pack(c.FAMILY[value.ip.version], index(value.link), c.NUD_PERMANENT, c.NTF_PROXY, 0)
    payload = header + attribute(c.NDA_DST, value.ip.packed) + u8(c.NDA_PROTOCOL, value.protocol)
    return Message(kind, flags, payload, lambda: f"proxy for {value.ip} on {value.link}")


def fdb(value: Fdb, index: Index, kind: int, flags: int) -> Message:
    """A permanent entry of the device itself (NTF_SELF), as VXLAN has them, or a static one of the port's bridge (NTF_MASTER)."""
    state, flags_ = (c.NUD_NOARP, c.NTF_MASTER) if value.master else (c.NUD_PERMANENT | c.NUD_NOARP, c.NTF_SELF)
    head = c.AF_BRIDGE, index(value.link), state, flags_, 0
    if (remote := value.remote) is None:
        payload = c.NEIGHBOUR.pack(*head) + attribute(c.NDA_LLADDR, mac_bytes(value.mac))
    else:
        to = 4 + BYTES[remote.version], c.NDA_DST, remote.packed
        payload = FDB_TO[remote.version].pack(*head, 10, c.NDA_LLADDR, mac_bytes(value.mac), *to)
    return Message(kind, flags, payload, lambda: f"fdb {value.mac} on {value.link}")


def forwarding_entries(index: int, *, of_bridge: bool) -> bytes:
    """Payload that asks for the forwarding entries of a device itself, or of a bridge, with all its ports."""
    if of_bridge:
        return c.NEIGHBOUR.pack(c.AF_BRIDGE, 0, 0, 0, 0) + u32(c.NDA_MASTER, index)
    return c.NEIGHBOUR.pack(c.AF_BRIDGE, index, 0, 0, 0)


def rule(value: Rule, kind: int, flags: int) -> Message:
    """RTM_NEWRULE or RTM_DELRULE."""
    header = c.RULE.pack(
        c.FAMILY[value.family],
        value.destination.prefixlen if value.destination else 0,
        value.source.prefixlen if value.source else 0,
        0,
        value.table if value.table < 256 else 0,
        0,
        0,
        c.FR_ACT_TO_TBL,
        0,
    )
    parts = [header, u32(c.FRA_PRIORITY, value.priority), u32(c.FRA_TABLE, value.table)]
    parts += [_network(c.FRA_SRC, value.source), _network(c.FRA_DST, value.destination)]
    if value.mark:
        parts += [u32(c.FRA_FWMARK, value.mark), u32(c.FRA_FWMASK, value.mark_mask or 0xFFFF_FFFF)]
    if value.protocol:
        parts.append(u8(c.FRA_PROTOCOL, value.protocol))
    return Message(kind, flags, b"".join(parts), lambda: f"rule {value.priority}")


def _network(kind: int, network: IPNetwork | None) -> bytes:
    return attribute(kind, network.network_address.packed) if network else b""


def get_link(name: str) -> bytes:
    """Payload that asks for one link by name, without its statistics."""
    return c.LINK.pack(0, 0, 0, 0, 0) + text(c.IFLA_IFNAME, name) + without_statistics()


def without_statistics() -> bytes:
    """Attribute of a question for links: half of the answer would be counters."""
    return u32(c.IFLA_EXT_MASK, c.RTEXT_FILTER_SKIP_STATS)


def route_table(table: int) -> bytes:
    """Attribute that narrows a dump of routes to one table."""
    return u32(c.RTA_TABLE, table)

"""Dumps of rtnetlink as values: the inverse of `encode` for what podplane makes.

An interface is named by index in a dump; `names` says what that is called. What podplane never makes (multipath routes,
dynamic neighbours, …) decodes to None.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Mapping
from typing import TypedDict

import msgspec

from podplane.kernel.netlink import find_attribute, parse_attributes
from podplane.kernel.rtnl import constants as c
from podplane.state.network import Address, Encap, Fdb, Gre, Link, Neighbour, Proxy, Route, Rule, Vxlan
from podplane.state.value import IPAddress, IPNetwork

Names = Mapping[int, str]
MAC_BYTES = 6


def ip_from(packed: bytes) -> IPAddress:
    """The address of 4 or 16 bytes."""
    return ipaddress.IPv4Address(packed) if len(packed) == 4 else ipaddress.IPv6Address(packed)


def network_from(family: int, packed: bytes | None, length: int) -> IPNetwork:
    """The network of an address and a prefix length; without address it is the default route's."""
    if family == c.AF_INET:
        return ipaddress.IPv4Network((packed or bytes(4), length))
    return ipaddress.IPv6Network((packed or bytes(16), length))


def _text(value: bytes | None) -> str:
    return (value or b"").split(b"\0")[0].decode(errors="replace")


def _u32(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0


def link_name(payload: bytes) -> tuple[int, str]:
    """(index, name) of a link in a dump."""
    index = c.LINK.unpack_from(payload)[2]
    return index, _text(find_attribute(payload, c.IFLA_IFNAME, c.LINK.size))


def link(payload: bytes, names: Names) -> Link:
    """A link as it is; a veth's peer is not read back, as it may be in another namespace."""
    _, _, _, flags, _ = c.LINK.unpack_from(payload)
    found = parse_attributes(payload, c.LINK.size)
    info = parse_attributes(found.get(c.IFLA_LINKINFO, b""))
    slave = info.get(c.IFLA_INFO_SLAVE_DATA, b"") if _text(info.get(c.IFLA_INFO_SLAVE_KIND)) == "bridge" else b""
    kind = _text(info.get(c.IFLA_INFO_KIND))
    return Link(
        name=_text(found.get(c.IFLA_IFNAME)),
        kind=kind,
        up=bool(flags & c.IFF_UP),
        mtu=_u32(found.get(c.IFLA_MTU)),
        mac=found.get(c.IFLA_ADDRESS, b"").hex(":"),
        master=names.get(_u32(found.get(c.IFLA_MASTER)), ""),
        snooping=kind != "bridge" or _snoops(info.get(c.IFLA_INFO_DATA, b"")),
        alias=_text(found.get(c.IFLA_IFALIAS)),
        vxlan=_vxlan(info.get(c.IFLA_INFO_DATA, b""), names) if kind == "vxlan" else None,
        gre=_gre(info.get(c.IFLA_INFO_DATA, b"")) if kind in c.GRE_KINDS else None,
        **_port_modes(parse_attributes(slave)),
    )


def master_index(payload: bytes) -> int:
    """The index of a link's master; 0 when it has none."""
    return _u32(parse_attributes(payload, c.LINK.size).get(c.IFLA_MASTER))


def with_port_modes(value: Link, modes: Mapping[int, bytes]) -> Link:
    """The link with its modes as a port as a bridge says them (IFLA_BRPORT_*)."""
    return msgspec.structs.replace(value, **_port_modes(modes))


def _snoops(data: bytes) -> bool:
    """Of a kernel without multicast snooping, no bridge does."""
    return parse_attributes(data).get(c.IFLA_BR_MCAST_SNOOPING, b"\0") != b"\0"


class _PortModes(TypedDict):
    hairpin: bool
    learning: bool
    flood: bool
    isolated: bool
    locked: bool
    multicast_flood: bool
    broadcast_flood: bool
    group_forward: int


def _port_modes(modes: Mapping[int, bytes]) -> _PortModes:
    """The modes of a port; of what is no port, their defaults."""
    return _PortModes(
        hairpin=modes.get(c.IFLA_BRPORT_MODE, b"\0") != b"\0",
        learning=modes.get(c.IFLA_BRPORT_LEARNING, b"\1") != b"\0",
        flood=modes.get(c.IFLA_BRPORT_UNICAST_FLOOD, b"\1") != b"\0",
        isolated=modes.get(c.IFLA_BRPORT_ISOLATED, b"\0") != b"\0",
        locked=modes.get(c.IFLA_BRPORT_LOCKED, b"\0") != b"\0",
        multicast_flood=modes.get(c.IFLA_BRPORT_MCAST_FLOOD, b"\1") != b"\0",
        broadcast_flood=modes.get(c.IFLA_BRPORT_BCAST_FLOOD, b"\1") != b"\0",
        group_forward=int.from_bytes(modes.get(c.IFLA_BRPORT_GROUP_FWD_MASK, b""), sys.byteorder),
    )


def _vxlan(data: bytes, names: Names) -> Vxlan:
    found = parse_attributes(data)
    local = found.get(c.IFLA_VXLAN_LOCAL) or found.get(c.IFLA_VXLAN_LOCAL6)
    return Vxlan(
        vni=_u32(found.get(c.IFLA_VXLAN_ID)),
        local=ip_from(local) if local else None,
        port=int.from_bytes(found.get(c.IFLA_VXLAN_PORT, b""), "big"),
        device=names.get(_u32(found.get(c.IFLA_VXLAN_LINK)), ""),
        learning=found.get(c.IFLA_VXLAN_LEARNING, b"\0") != b"\0",
    )


def _gre(data: bytes) -> Gre:
    return Gre(external=c.IFLA_GRE_COLLECT_METADATA in parse_attributes(data))


def address(payload: bytes, names: Names) -> Address | None:
    """An address; None for those that the kernel made itself (link-local)."""
    _, length, _, _, index = c.ADDRESS.unpack_from(payload)
    found = parse_attributes(payload, c.ADDRESS.size)
    packed = found.get(c.IFA_LOCAL) or found.get(c.IFA_ADDRESS)
    if packed is None or index not in names:
        return None
    ip = ip_from(packed)
    return None if ip.version == 6 and ip.is_link_local else Address(link=names[index], ip=ip, prefix_length=length)


def route(payload: bytes, names: Names) -> Route | None:
    """A route with at most one next hop; None for types that podplane doesn't make."""
    kind = c.ROUTE.unpack_from(payload)[7]
    return any_route(payload, names) if kind in c.ROUTE_TYPE_NAMES else None


def any_route(payload: bytes, names: Names) -> Route | None:
    """A route of whatever type with at most one next hop. IPv6 names `lo` as the device of an unreachable one."""
    family, length, _, _, table, protocol, _, kind, flags = c.ROUTE.unpack_from(payload)
    if family not in (c.AF_INET, c.AF_INET6):
        return None
    found = parse_attributes(payload, c.ROUTE.size)
    metric = _u32(found.get(c.RTA_PRIORITY))
    gateway, source = found.get(c.RTA_GATEWAY), found.get(c.RTA_PREFSRC)
    return Route(
        destination=network_from(family, found.get(c.RTA_DST), length),
        kind=c.ROUTE_TYPE_NAMES.get(kind) or c.OTHER_ROUTE_TYPE_NAMES.get(kind, str(kind)),
        gateway=ip_from(gateway) if gateway else None,
        link=names.get(_u32(found.get(c.RTA_OIF)), "") if kind == c.ROUTE_TYPES["unicast"] else "",
        source=ip_from(source) if source else None,
        onlink=bool(flags & c.RTNH_F_ONLINK),
        encap=_encap(found) if c.RTA_ENCAP in found else None,
        mtu=_u32(parse_attributes(found.get(c.RTA_METRICS, b"")).get(c.RTAX_MTU)),
        metric=0 if family == c.AF_INET6 and metric == c.IP6_DEFAULT_METRIC else metric,
        table=_u32(found.get(c.RTA_TABLE)) or table,
        protocol=protocol,
    )


def _encap(route: Mapping[int, bytes]) -> Encap | None:
    """Of tunnels by IP; None for other ways to encapsulate, which podplane does not use."""
    found, kind = parse_attributes(route[c.RTA_ENCAP]), int.from_bytes(route.get(c.RTA_ENCAP_TYPE, b""), sys.byteorder)
    if kind not in c.LWTUNNEL_ENCAP.values() or c.LWTUNNEL_DST not in found:
        return None
    local = found.get(c.LWTUNNEL_SRC, b"")
    return Encap(
        remote=ip_from(found[c.LWTUNNEL_DST]),
        local=ip_from(local) if any(local) else None,
        hops=found.get(c.LWTUNNEL_TTL, b"\0")[0],
        id=int.from_bytes(found.get(c.LWTUNNEL_ID, b""), "big"),
        flags=int.from_bytes(found.get(c.LWTUNNEL_FLAGS, b""), "big"),
    )


def neighbour(payload: bytes, names: Names) -> Neighbour | None:
    """A permanent neighbour."""
    _, _, state, _, _ = c.NEIGHBOUR.unpack_from(payload)
    return any_neighbour(payload, names) if state & c.NUD_PERMANENT else None


def any_neighbour(payload: bytes, names: Names) -> Neighbour | None:
    """A neighbour in whatever state; its MAC is "" when none is known, or the link has none."""
    _, index, _, _, _ = c.NEIGHBOUR.unpack_from(payload)
    found = parse_attributes(payload, c.NEIGHBOUR.size)
    if index not in names or c.NDA_DST not in found:
        return None
    return Neighbour(
        link=names[index],
        ip=ip_from(found[c.NDA_DST]),
        mac=_mac(found.get(c.NDA_LLADDR, b"")),
        protocol=found.get(c.NDA_PROTOCOL, b"\0")[0],
    )


def _mac(address: bytes) -> str:
    """What has another size is an address of a tunnel's end."""
    return address.hex(":") if len(address) == MAC_BYTES else ""


def proxy(payload: bytes, names: Names) -> Proxy | None:
    """An address that is answered for."""
    _, index, _, _, _ = c.NEIGHBOUR.unpack_from(payload)
    found = parse_attributes(payload, c.NEIGHBOUR.size)
    if index not in names or c.NDA_DST not in found:
        return None
    return Proxy(link=names[index], ip=ip_from(found[c.NDA_DST]), protocol=found.get(c.NDA_PROTOCOL, b"\0")[0])


def fdb(payload: bytes, names: Names) -> Fdb | None:
    """A permanent forwarding entry of a device itself, or a static one of the bridge that a port belongs to."""
    _, index, state, flags, _ = c.NEIGHBOUR.unpack_from(payload)
    found = parse_attributes(payload, c.NEIGHBOUR.size)
    mac, remote = found.get(c.NDA_LLADDR, b""), found.get(c.NDA_DST)
    if index not in names:
        return None
    if c.NDA_MASTER in found:
        is_static = state & c.NUD_NOARP and not state & c.NUD_PERMANENT  # permanent ones are the port's own addresses
        return Fdb(link=names[index], mac=mac.hex(":"), master=True) if is_static and c.NDA_VLAN not in found else None
    if not state & c.NUD_PERMANENT or not flags & c.NTF_SELF or remote is None:
        return None
    return Fdb(link=names[index], mac=mac.hex(":"), remote=ip_from(remote))


def rule(payload: bytes) -> Rule | None:
    """A rule that looks into a table."""
    family, to_length, from_length, _, table, _, _, action, _ = c.RULE.unpack_from(payload)
    if action != c.FR_ACT_TO_TBL or family not in (c.AF_INET, c.AF_INET6):
        return None
    found = parse_attributes(payload, c.RULE.size)
    mark = _u32(found.get(c.FRA_FWMARK))
    mask = _u32(found.get(c.FRA_FWMASK))
    return Rule(
        priority=_u32(found.get(c.FRA_PRIORITY)),
        family=4 if family == c.AF_INET else 6,
        table=_u32(found.get(c.FRA_TABLE)) or table,
        source=network_from(family, found[c.FRA_SRC], from_length) if c.FRA_SRC in found else None,
        destination=network_from(family, found[c.FRA_DST], to_length) if c.FRA_DST in found else None,
        mark=mark,
        mark_mask=0 if mask == 0xFFFF_FFFF else mask,
        protocol=found.get(c.FRA_PROTOCOL, b"\0")[0],
    )

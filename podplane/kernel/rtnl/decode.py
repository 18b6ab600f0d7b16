"""Dumps of rtnetlink as values: the inverse of `encode` for what podplane makes.

An interface is named by index in a dump; `names` says what that is called. What podplane never makes (multipath routes,
dynamic neighbours, …) decodes to None.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping

from podplane.kernel.netlink import parse_attributes
from podplane.kernel.rtnl import constants as c
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Route, Rule
from podplane.state.value import IPAddress, IPNetwork

Names = Mapping[int, str]


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
    return index, _text(parse_attributes(payload, c.LINK.size).get(c.IFLA_IFNAME))


def link(payload: bytes, names: Names) -> Link:
    """A link as it is; its peer and VXLAN options are not read back."""
    _, _, _, flags, _ = c.LINK.unpack_from(payload)
    found = parse_attributes(payload, c.LINK.size)
    info = parse_attributes(found.get(c.IFLA_LINKINFO, b""))
    slave = info.get(c.IFLA_INFO_SLAVE_DATA, b"") if _text(info.get(c.IFLA_INFO_SLAVE_KIND)) == "bridge" else b""
    modes = parse_attributes(slave)
    return Link(
        name=_text(found.get(c.IFLA_IFNAME)),
        kind=_text(info.get(c.IFLA_INFO_KIND)),
        up=bool(flags & c.IFF_UP),
        mtu=_u32(found.get(c.IFLA_MTU)),
        mac=found.get(c.IFLA_ADDRESS, b"").hex(":"),
        master=names.get(_u32(found.get(c.IFLA_MASTER)), ""),
        hairpin=modes.get(c.IFLA_BRPORT_MODE, b"\0") != b"\0",
        learning=modes.get(c.IFLA_BRPORT_LEARNING, b"\1") != b"\0",
        flood=modes.get(c.IFLA_BRPORT_UNICAST_FLOOD, b"\1") != b"\0",
        alias=_text(found.get(c.IFLA_IFALIAS)),
    )


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
    """A route with at most one next hop; None for types that podplane doesn't make. IPv6 names `lo` as the device of an unreachable one."""
    family, length, _, _, table, protocol, _, kind, flags = c.ROUTE.unpack_from(payload)
    if kind not in c.ROUTE_TYPE_NAMES or family not in (c.AF_INET, c.AF_INET6):
        return None
    found = parse_attributes(payload, c.ROUTE.size)
    metric = _u32(found.get(c.RTA_PRIORITY))
    gateway, source = found.get(c.RTA_GATEWAY), found.get(c.RTA_PREFSRC)
    return Route(
        destination=network_from(family, found.get(c.RTA_DST), length),
        kind=c.ROUTE_TYPE_NAMES[kind],
        gateway=ip_from(gateway) if gateway else None,
        link=names.get(_u32(found.get(c.RTA_OIF)), "") if kind == c.ROUTE_TYPES["unicast"] else "",
        source=ip_from(source) if source else None,
        onlink=bool(flags & c.RTNH_F_ONLINK),
        mtu=_u32(parse_attributes(found.get(c.RTA_METRICS, b"")).get(c.RTAX_MTU)),
        metric=0 if family == c.AF_INET6 and metric == c.IP6_DEFAULT_METRIC else metric,
        table=_u32(found.get(c.RTA_TABLE)) or table,
        protocol=protocol,
    )


def neighbour(payload: bytes, names: Names) -> Neighbour | None:
    """A permanent neighbour."""
    _, index, state, _, _ = c.NEIGHBOUR.unpack_from(payload)
    found = parse_attributes(payload, c.NEIGHBOUR.size)
    mac = found.get(c.NDA_LLADDR, b"")
    if not state & c.NUD_PERMANENT or index not in names or len(mac) != 6 or c.NDA_DST not in found:
        return None
    return Neighbour(link=names[index], ip=ip_from(found[c.NDA_DST]), mac=mac.hex(":"))


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

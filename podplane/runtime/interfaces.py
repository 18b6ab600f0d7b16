"""The network interfaces of a container, as the built-in prober tells them.

It reads netlink messages itself: `kernel.rtnl` knows all of them, and each container would be a copy of that (see `runtime.zygote`).
"""

from __future__ import annotations

import ipaddress
import struct

from podplane.kernel import netlink

NETLINK_ROUTE = 0
RTM_GETLINK, RTM_GETADDR = 18, 22
IFLA_IFNAME, IFLA_MTU, IFA_ADDRESS, IFA_LOCAL = 3, 4, 1, 2
"""Of linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h."""
LINK, ADDRESS, U32 = struct.Struct("=BxHiII"), struct.Struct("=BBBBi"), struct.Struct("=I")
"""struct ifinfomsg, struct ifaddrmsg."""


def interfaces() -> tuple[list[str], int]:
    """(addresses of all interfaces but lo, without those that the kernel makes; the smallest MTU of these interfaces, or 0)."""
    with netlink.Socket(NETLINK_ROUTE) as sock:
        links = [payload for _, payload in sock.dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0))]
        addresses = [payload for _, payload in sock.dump(RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0))]
    mtus = dict(filter(None, map(_mtu, links)))
    found = [_ip(payload) for payload in addresses if ADDRESS.unpack_from(payload)[4] in mtus]
    return [str(ip) for ip in found if not (ip.version == 6 and ip.is_link_local)], min(mtus.values(), default=0)


def _mtu(link: bytes) -> tuple[int, int] | None:
    """(index, MTU) of an interface; None for lo."""
    found = netlink.parse_attributes(link, LINK.size)
    return None if found[IFLA_IFNAME] == b"lo\0" else (LINK.unpack_from(link)[2], U32.unpack(found[IFLA_MTU])[0])


def _ip(address: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = netlink.parse_attributes(address, ADDRESS.size)
    return ipaddress.ip_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])

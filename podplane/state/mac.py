"""MAC addresses made from IP addresses, so that a neighbour entry needs no question to be asked.

`0a:58` and the last four bytes of the address: locally administered, unicast (IEEE 802). Addresses of one bridge are
of one block and differ in these bytes.
"""

from __future__ import annotations

import ipaddress

from podplane.state.value import IPAddress

BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac_of(ip: IPAddress) -> str:
    """The MAC of the interface that has this address first."""
    return "0a:58:" + ip.packed[-4:].hex(":")


def link_local_of(mac: str) -> ipaddress.IPv6Address:
    """The address that the kernel gives an interface with this MAC on its link (RFC 4291, 2.5.6 and appendix A)."""
    own = bytes.fromhex(mac.replace(":", ""))
    interface = bytes((own[0] ^ 2,)) + own[1:3] + b"\xff\xfe" + own[3:]
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def is_group(mac: str) -> bool:
    """Is it a broadcast or multicast (IEEE 802.3, 3.2.3)?"""
    return bool(int(mac[:2], 16) & 1)

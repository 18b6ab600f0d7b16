"""MAC addresses made from IP addresses, so that a neighbour entry needs no question to be asked.

`0a:58` and the last four bytes of the address: locally administered, unicast (IEEE 802). Addresses of one bridge are
of one block and differ in these bytes.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence

from podplane.state.value import PARSED, IPAddress, address_of

BROADCAST, NO_MAC = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
NOTATION = re.compile("[0-9A-Fa-f]{2}(?:(:[0-9A-Fa-f]{2}){5}|(-[0-9A-Fa-f]{2}){5})")


def mac_of(ip: IPAddress) -> str:
    """The MAC of the interface that has this address first."""
    return "0a:58:" + ip.packed[-4:].hex(":")


def interface_mac(asked: str, ips: Sequence[str]) -> str:
    """The MAC of a pod's interface: the one that was asked for, else the one made of its first address; "" when it has neither."""
    return asked or (mac_of(address_of(ips[0])) if ips else "")


def asked_mac(text: str) -> str:
    """A MAC that a pod asks for, in the notation of `ip link`. ValueError when an interface can't have it."""
    if not NOTATION.fullmatch(text):
        raise ValueError(f"MAC {text!r} is not of six bytes, as in 0a:58:0a:f4:01:02")
    mac = text.replace("-", ":").lower()
    if is_group(mac):
        raise ValueError(f"MAC {mac} is one of a group: the lowest bit of its first byte must be 0")
    if mac == NO_MAC:
        raise ValueError(f"MAC {mac} is none that an interface can have")
    return mac


@functools.lru_cache(PARSED)
def link_local_of(mac: str) -> ipaddress.IPv6Address:
    """The address that the kernel gives an interface with this MAC on its link (RFC 4291, 2.5.6 and appendix A)."""
    own = bytes.fromhex(mac.replace(":", ""))
    interface = bytes((own[0] ^ 2,)) + own[1:3] + b"\xff\xfe" + own[3:]
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def is_group(mac: str) -> bool:
    """Is it a broadcast or multicast (IEEE 802.3, 3.2.3)?"""
    return bool(int(mac[:2], 16) & 1)

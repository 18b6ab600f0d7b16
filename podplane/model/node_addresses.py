"""Which addresses and MACs can be those of a node, and which networks those of its pods, whatever else there is in the cluster. Pure.

An API takes what the writer of a Node says: a kubelet with a wrong option, or a controller of somebody's own. What no packet could be
sent to is left out where objects are read, so that nothing plans with it, and is told with the reason.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from typing import NamedTuple

KEPT = 16_384
"""So many texts are remembered: a cluster of 5,000 nodes with both IP versions has some 10,000 of each kind."""
SMALLEST = 2
"""Bits that a block leaves for pods, at least: its first address but one is the gateway's."""
MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class _Range(NamedTuple):
    """Addresses that nobody can have on a network of nodes, or of pods."""

    first: int
    last: int
    what: str


def _ranges(**networks: str) -> tuple[_Range, ...]:
    found = ((ipaddress.ip_network(text), what) for what, text in networks.items())
    return tuple(_Range(int(one[0]), int(one[-1]), what.replace("_", "-")) for one, what in found)


RESERVED = {
    4: _ranges(
        unspecified="0.0.0.0/8",
        loopback="127.0.0.0/8",
        link_local="169.254.0.0/16",
        multicast="224.0.0.0/4",
        reserved="240.0.0.0/4",
    ),
    16: _ranges(
        unspecified="::/128", loopback="::1/128", IPv4_mapped="::ffff:0:0/96", link_local="fe80::/10", multicast="ff00::/8"
    ),
}
"""By the bytes of an address (RFC 6890, RFC 4291)."""


@functools.lru_cache(KEPT)
def why_no_address(text: str) -> str:
    """Why this can't be the address of a node: `is a loopback address`; "" when it can."""
    packed = _packed(text)
    if not packed:
        return "is no IP address"
    what = _reserved(packed, 0)
    return f"is {'an' if what[0] in 'uI' else 'a'} {what} address" if what else ""


@functools.lru_cache(KEPT)
def why_no_mac(text: str) -> str:
    """Why this can't be the MAC of a node: `is that of a group`; "" when it can (IEEE 802.3, 3.2.3)."""
    if not MAC.fullmatch(text):
        return "is no MAC address, as in 0a:58:0a:f4:01:02"
    if int(text[:2], 16) & 1:
        return "is that of a group, not of one interface"
    return "is that of no interface" if not text.strip("0:") else ""


@functools.lru_cache(KEPT)
def why_no_block(text: str) -> str:
    """Why this can't be a block of pods: `holds multicast addresses`; "" when it can."""
    address, _, length = text.partition("/")
    packed = _packed(address)
    if not packed or not (length.isascii() and length.isdecimal() and len(length) < 4 and int(length) <= 8 * len(packed)):
        return "is no network"
    room = 8 * len(packed) - int(length)
    if room == 8 * len(packed):
        return "holds every address"
    if int.from_bytes(packed, "big") & ((1 << room) - 1):
        return "has bits behind its prefix"
    if what := _reserved(packed, room):
        return f"holds {what} addresses"
    return "has no room for pods" if room < SMALLEST else ""


def _packed(text: str) -> bytes:
    """The bytes of an address; none where it is no address."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):  # ValueError: a NUL in it, or what is no ASCII
        return b""


def _reserved(packed: bytes, room: int) -> str:
    """For what some of these addresses are reserved, which differ in their last `room` bits; "" where none is."""
    first = int.from_bytes(packed, "big")
    last = first + (1 << room) - 1
    return next((one.what for one in RESERVED[len(packed)] if one.first <= last and first <= one.last), "")

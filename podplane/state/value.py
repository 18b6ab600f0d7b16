"""What every value of desired state is: frozen, comparable, and named by an identity.

Two values with one identity describe the same kernel object; they are equal, or one replaces the other. `netns` says in
which network namespace the object lives: "" is the node's own, any other name was given to the kernel door before
(`pod/<uid>`, say).
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import msgspec

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

PARSED = 16_384
"""So many texts are remembered: where more are gone through in turns than that, none is found."""


@functools.lru_cache(PARSED)
def address_of(text: str) -> IPAddress:
    """An address; ValueError when the text is none. Several features read the addresses of one pod.

    The C library reads it in a fifth of the time that `ipaddress` takes, which has the last word on what the library takes for none.
    """
    try:
        if ":" in text:
            return IPv6Address(socket.inet_pton(socket.AF_INET6, text))
        return IPv4Address(socket.inet_pton(socket.AF_INET, text))
    except (OSError, ValueError):
        return IPv6Address(text) if ":" in text else IPv4Address(text)


@functools.lru_cache(PARSED)
def text_of(ip: IPAddress) -> str:
    """An address in its canonical text: that of IPv6 takes some microseconds."""
    return str(ip)


@functools.lru_cache(PARSED)
def canonical(text: str) -> str:
    """An address in its canonical text; ValueError when the text is none. Of IPv4 there is no other text (inet_pton(3))."""
    ip = address_of(text)
    return text if ip.version == 4 else str(ip)


@functools.lru_cache(PARSED)
def network_of(text: str) -> IPNetwork:
    """A network; ValueError when the text is none, or has bits behind its prefix. All pods of a node read its blocks."""
    address, _, length = text.partition("/")
    if length.isascii() and length.isdecimal() and "%" not in address:
        with contextlib.suppress(ValueError):
            ip = address_of(address)
            return (IPv4Network if ip.version == 4 else IPv6Network)((int(ip), int(length)))
    return ipaddress.ip_network(text)


Identity = tuple[Any, ...]
"""(kind, netns, what the kernel finds the object by …); hashable, and sortable among values of one kind."""


class Value(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Base of all desired values."""

    netns: str = ""

    @property
    def identity(self) -> Identity:
        """What the kernel finds this object by; equal for the versions of one object."""
        return (type(self).__name__, self.netns)


Fragment = Mapping[Identity, Value]
"""Identity → desired value: what one key (a pod, a node, a Service) asks of the kernel."""


def fragment(values: Iterable[Value], *parts: Fragment) -> Fragment:
    """The fragment of these values, and of those of other fragments. ValueError when two unequal values claim one identity."""
    rows = [(value.identity, value) for value in values]
    for part in parts:
        rows += part.items()
    result = dict(rows)
    if len(result) != len(rows):
        for identity, value in rows:
            if (other := result[identity]) is not value and other != value:
                raise ValueError(f"two values for one kernel object: {value} and {other}")
    return result

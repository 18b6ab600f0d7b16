"""What every value of desired state is: frozen, comparable, and named by an identity.

Two values with one identity describe the same kernel object; they are equal, or one replaces the other. `netns` says in
which network namespace the object lives: "" is the node's own, any other name was given to the kernel door before
(`pod/<uid>`, say).
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import msgspec

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

PARSED = 4096


@functools.lru_cache(PARSED)
def address_of(text: str) -> IPAddress:
    """An address; ValueError when the text is none. Several features read the addresses of one pod."""
    return IPv6Address(text) if ":" in text else IPv4Address(text)


@functools.lru_cache(PARSED)
def text_of(ip: IPAddress) -> str:
    """An address in its canonical text: that of IPv6 takes some microseconds."""
    return str(ip)


@functools.lru_cache(PARSED)
def network_of(text: str) -> IPNetwork:
    """A network; ValueError when the text is none, or has bits behind its prefix. All pods of a node read its blocks."""
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
    result: dict[Identity, Value] = {}
    rows = ((value.identity, value) for value in values)
    for identity, value in itertools.chain(rows, *(part.items() for part in parts)):
        other = result.setdefault(identity, value)
        if other is not value and other != value:
            raise ValueError(f"two values for one kernel object: {other} and {value}")
    return result

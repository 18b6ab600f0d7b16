"""Addresses of API objects, parsed. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.state.value import IPAddress, IPNetwork

OCTETS = {str(number): number for number in range(256)}
"""The decimal forms that an IPv4 address may consist of: no leading zero, no sign, no space."""


def parse(text: str) -> IPAddress:
    """An address; ValueError when the text is none. For IPv4 five times as fast as `ipaddress.ip_address`."""
    octets = text.split(".")
    if len(octets) == 4:
        try:
            first, second, third, fourth = map(OCTETS.__getitem__, octets)
        except KeyError:
            return ipaddress.ip_address(text)
        return ipaddress.IPv4Address(first << 24 | second << 16 | third << 8 | fourth)
    return ipaddress.ip_address(text)


def addresses(texts: Iterable[str], version: int) -> Iterator[IPAddress]:
    """The addresses of one IP version, each once; whatever is no address is left out."""
    for text in dict.fromkeys(texts):
        try:
            address = parse(text)
        except ValueError:
            continue
        if address.version == version:
            yield address


def network(text: str) -> IPNetwork | None:
    """A network, bits behind the prefix ignored; None when the text is none."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return None

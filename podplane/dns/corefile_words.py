"""What words of a Corefile mean: zones, times."""

from __future__ import annotations

import ipaddress
import re

from podplane.dns.config import domain_name
from podplane.dns.message import Name, name_of

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
DURATION = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h))+")
SCHEMES = ("tls://", "https://", "https3://", "quic://", "grpc://")
DIGIT_BITS = {4: 8, 6: 4}
"""Bits of an address that a label of its reverse name has."""


class Left(ValueError):
    """A directive that is left out, and why."""


def zone_of(key: str) -> Name:
    """The zone of a key, whatever its port: `.`, `corp.example:53`, `10.0.0.0/8`. Left when it is none, or not one of plain DNS."""
    text = key.removeprefix("dns://")
    if text.startswith(SCHEMES):
        raise Left(f"{key} has no counterpart: questions are taken over UDP and TCP")
    network, slash, length = text.partition("/")
    if slash:
        return _reverse_zone(f"{network}/{length.partition(':')[0]}")
    text = re.sub(r":[0-9]*$", "", text)
    try:
        return () if text in (".", "") else domain_name(text)
    except ValueError as error:
        raise Left(str(error)) from None


def _reverse_zone(text: str) -> Name:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            return domain_name(text)
        except ValueError as error:
            raise Left(str(error)) from None
    bits = DIGIT_BITS[network.version]
    if network.prefixlen % bits:
        raise Left(f"{text} is no whole reverse zone: write those that it has")
    labels = name_of(network.network_address.reverse_pointer)
    return labels[len(labels) - 2 - network.prefixlen // bits :]


def seconds(text: str) -> int:
    """A time: `30`, `30s`, `1h30m`. Left when it is none."""
    if text.isascii() and text.isdecimal():
        return int(text[:9])
    if not DURATION.fullmatch(text):
        raise Left(f"{text} is no time")
    return round(sum(int(count) * UNITS[unit] for count, unit in re.findall(r"([0-9]+)(ms|s|m|h)", text)))

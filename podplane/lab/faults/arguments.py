"""What faults are given on the command line, and what of it makes no sense: errors are one line for the user."""

from __future__ import annotations

import re

import msgspec

DURATION = re.compile(r"(?P<number>[0-9]+)(?P<unit>s|m|h)")
MAX_DIGITS = 6
UNITS = {"s": 1, "m": 60, "h": 3600}
SHARE = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?%")
ONE_WAY, UNSEEN, NEW_MAC, NEW_IP = "--one-way", "--unseen", "--new-mac", "--new-ip"
PORT_PROTOCOLS = ("tcp", "udp", "sctp")
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "gre": 47}
"""Numbers of IANA, "Protocol Numbers"."""
MTUS = range(68, 65536)
"""What IPv4 can do with (RFC 791), and what a veth pair takes (ETH_MAX_MTU)."""


class FaultError(Exception):
    """A fault can't be made: one line for the user."""


def seconds_of(text: str) -> float:
    """Seconds of a duration such as 90s, 2m or 1h. FaultError when it is none, no time at all, or too long."""
    found = DURATION.fullmatch(text)
    if found and len(found["number"]) > MAX_DIGITS:
        raise FaultError(f"{text[:40]!r} is too long: a duration has {MAX_DIGITS} digits at most, as 999999h")
    if found is None or not int(found["number"]):
        raise FaultError(f"{text!r} is no duration: write 90s, 2m or 1h, after the name of the node")
    return float(int(found["number"]) * UNITS[found["unit"]])


def any_text(text: str) -> object:
    """An argument that only the node can judge."""
    return text


class Loss(msgspec.Struct, frozen=True):
    """A share of packets, above 0 and at most 1; `one_way`: of those that the node sends."""

    share: float
    one_way: bool = False


def loss_of(text: str) -> Loss:
    """Of `10%`, or `10% --one-way`. FaultError when it is no share, none at all, or more than all."""
    share, *flags = text.split()
    number = float(share[:-1]) / 100 if SHARE.fullmatch(share) else 0.0
    if not 0 < number <= 1:
        raise FaultError(f"{share[:40]!r} is no share of packets: write 10%, 0.5% or 100%")
    return Loss(number, ONE_WAY in flags)


class Port(msgspec.Struct, frozen=True):
    """A port of protocols, or, without a number, all of a protocol."""

    protocols: tuple[str, ...]
    number: int = 0

    def __str__(self) -> str:
        return f"{self.number}/{'+'.join(self.protocols)}" if self.number else "+".join(self.protocols)


def port_of(text: str) -> Port:
    """Of `4789`, `4789/udp` or `gre`. FaultError when it is none of these."""
    number, slash, protocol = text.partition("/")
    if text in PROTOCOLS and text not in PORT_PROTOCOLS:
        return Port((text,))
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and 0 < int(number) < 1 << 16):
        raise FaultError(f"{text[:40]!r} is no port: write 4789, 4789/udp or gre")
    if slash and protocol not in PORT_PROTOCOLS:
        raise FaultError(f"{protocol[:40]!r} has no ports: write {', '.join(PORT_PROTOCOLS)}, or nothing for all of them")
    return Port((protocol,) if slash else PORT_PROTOCOLS, int(number))


class Boot(msgspec.Struct, frozen=True):
    """What a machine has when it boots that it had not before."""

    new_mac: bool = False
    new_ip: bool = False


def boot_of(text: str) -> Boot:
    """Of the flags."""
    return Boot(NEW_MAC in text.split(), NEW_IP in text.split())


class Narrow(msgspec.Struct, frozen=True):
    """An MTU in bytes; `unseen`: of the network that the node is connected to, and not of its own interface."""

    mtu: int
    unseen: bool = False


def mtu_of(text: str) -> Narrow:
    """Of `1400`, or `1400 --unseen`. FaultError when a veth pair can't have it."""
    number, *flags = text.split()
    if not (number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS and int(number) in MTUS):
        raise FaultError(f"{number[:40]!r} is no MTU: write a number of bytes from {MTUS.start} to {MTUS.stop - 1}")
    return Narrow(int(number), UNSEEN in flags)

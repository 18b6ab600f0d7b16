"""Addresses and networks in objects: what they may be (apimachinery, util/validation; core/validation). Pure."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Iterator

from podplane.apiserver.problems import Cause
from podplane.model.policy import network

LEADING_ZERO = re.compile("0[0-9]")
LINK_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))


def is_canonical(text: str) -> bool:
    """Is it a network, written as it should be (RFC 5952, no bit beyond the length)? False may mean that this takes a closer look, which
    takes ten times as long."""
    address, _, length = text.partition("/")
    is_6 = ":" in address
    try:
        packed = socket.inet_pton(socket.AF_INET6 if is_6 else socket.AF_INET, address)
    except (OSError, ValueError):  # ValueError: a NUL in it, or what is no ASCII
        return False
    if len(length) > 3 or not (length.isascii() and length.isdecimal()) or (is_6 and "." in address):
        return False
    beyond = 8 * len(packed) - int(length)
    if beyond < 0 or str(int(length)) != length or int.from_bytes(packed, "big") & ((1 << beyond) - 1):
        return False
    return socket.inet_ntop(socket.AF_INET6 if is_6 else socket.AF_INET, packed) == address


def check_ip(text: str, path: str) -> Iterator[Cause]:
    """An IP address without a zone; an IPv4 address in IPv6's form is taken for either one by others (KEP-4858, StrictIPCIDRValidation)."""
    if _is_canonical_ip(text):
        return
    try:
        ip = ipaddress.ip_address("" if "%" in text else text)
    except ValueError:
        yield Cause.invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        return
    if ip.version == 6 and ip.ipv4_mapped is not None:
        yield Cause.invalid(path, text, "must not be an IPv4-mapped IPv6 address")


def _is_canonical_ip(text: str) -> bool:
    """Is it an address, written as it should be? False may mean that this takes a closer look."""
    try:
        if ":" not in text:
            return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, text)) == text
        return "." not in text and socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text)) == text
    except (OSError, ValueError):  # ValueError: a NUL in it, or what is no ASCII
        return False


def check_cidr(text: str, path: str, known: Collection[str] = ()) -> Iterator[Cause]:
    """A network, written as others understand it, too (KEP-4858, StrictIPCIDRValidation); what is `known` may stay as it is."""
    if is_canonical(text):
        return
    try:
        canonical = network(text)
    except ValueError:
        yield Cause.invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
        return
    address, _, length = text.partition("/")
    if text in known:
        return
    if LEADING_ZERO.match(length) or (":" not in address and any(map(LEADING_ZERO.match, address.split(".")))):
        yield Cause.invalid(path, text, "must not have leading 0s in IP or prefix length")
    elif getattr(ip := ipaddress.ip_address(address), "ipv4_mapped", None) is not None:
        yield Cause.invalid(path, text, "must not have an IPv4-mapped IPv6 address")
    elif ip != ipaddress.ip_network(canonical).network_address:
        yield Cause.invalid(path, text, "must not have bits set beyond the prefix length")


def cidr_warnings(text: str, path: str) -> Iterator[str]:
    """What the API says of a valid network that is written otherwise than it should be (GetWarningsForCIDR); bits beyond the length and
    leading zeros are valid only where they were there before."""
    if is_canonical(text):
        return
    canonical, (address, _, length) = network(text), text.partition("/")
    is_odd = bool(LEADING_ZERO.match(length)) or (":" not in address and any(map(LEADING_ZERO.match, address.split("."))))
    ip = ipaddress.ip_address(
        ".".join(part.lstrip("0") or "0" for part in address.split(".")) if ":" not in address else address
    )
    mapped = getattr(ip, "ipv4_mapped", None)
    if (mapped or ip) != ipaddress.ip_network(canonical).network_address:
        single = f"{mapped or ip}/{ip.max_prefixlen}"
        yield f'{path}: CIDR value "{text}" is ambiguous in this context (should be "{canonical}" or "{single}"?)'
        if not is_odd and mapped is None:
            return
    if is_odd or mapped is not None:
        yield f'{path}: non-standard CIDR value "{text}" is invalid: use "{canonical}"'
    elif ip.version == 6 and text != canonical:
        yield f'{path}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{canonical}")'


def check_common_ip(text: str, path: str) -> Iterator[Cause]:
    """An address that can be an endpoint's or a Service's: one host's, and the same one everywhere (ValidateNonSpecialIP)."""
    wrong = list(check_ip(text, path))
    yield from wrong
    if wrong:
        return
    ip = ipaddress.ip_address(text)
    if ip.is_unspecified:
        yield Cause.invalid(path, text, f"may not be unspecified ({text})")
    elif ip.is_loopback:
        yield Cause.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    elif ip.is_link_local:
        yield Cause.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    elif any(ip in network for network in LINK_LOCAL_MULTICAST):
        yield Cause.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    elif ip.is_multicast:
        yield Cause.invalid(path, text, "may not be in the multicast range (224.0.0.0/4, ff00::/8)")

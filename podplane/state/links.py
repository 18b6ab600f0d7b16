"""What each link of a router has: sysctls, and room for packets."""

from __future__ import annotations

from collections.abc import Iterator

from podplane.state.network import Sysctl

LEAST_MTU = {4: 68, 6: 1280}
"""Bytes: what a link has to carry for IPv4 (RFC 791) and for IPv6 (RFC 8200, section 5). On one that carries less the kernel has no IPv6,
neither addresses nor sysctls (addrconf_notify)."""


def carries(version: int, mtu: int) -> bool:
    """Can packets of this IP version be sent where so many bytes are carried?"""
    return mtu >= LEAST_MTU[version]


def forwarding(version: int, link: str) -> str:
    """The sysctl of a link that says whether what comes by it is forwarded (IPv4), and whether it is the link of a router (IPv6).

    A write of the namespace's sysctl sets it on all links, and others may unset it on one. Source: ip-sysctl, `forwarding`.
    """
    return f"{_folder(version, link)}.forwarding"


def distrusted(version: int, link: str) -> tuple[str, ...]:
    """The sysctls of a link that say whether senders may tell a node of ways, or choose them: redirects, source routes (ip-sysctl)."""
    folder = _folder(version, link)
    return f"{folder}.accept_redirects", f"{folder}.accept_source_route"


def loose_filter(link: str) -> Sysctl:
    """What comes by the link counts wherever the route back to its sender leads (ip-sysctl, `rp_filter`; RFC 3704, section 2.4): the kernel
    takes the greater one of this and `conf.all`, where 1 is strict and 2 is loose."""
    return Sysctl(name=f"{_folder(4, link)}.rp_filter", value="2", link=link)


def router_sysctls(version: int, link: str) -> Iterator[Sysctl]:
    """Those of a link that podplane makes: it forwards, and trusts no sender in which way."""
    if version == 6:
        yield Sysctl(name=f"{_folder(6, link)}.disable_ipv6", value="0", link=link)
    yield Sysctl(name=forwarding(version, link), value="1", link=link)
    for name in distrusted(version, link):
        yield Sysctl(name=name, value="0", link=link)


def _folder(version: int, link: str) -> str:
    return f"net.ipv{version}.conf.{link.replace('.', '/')}"

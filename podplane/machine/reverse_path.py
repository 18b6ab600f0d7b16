"""Does the machine's filter of reverse paths (ip-sysctl, `rp_filter`; RFC 3704) drop what other nodes send it? Pure.

A strict filter drops a packet of IPv4 that comes by another link than the one by which its sender is reached. Other nodes send to the
uplink, which has the node's address; where the way back leads elsewhere, by a default route of another link, say, nothing of them gets in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from podplane.model.config import ROUTE_PROTOCOL
from podplane.model.words import counted
from podplane.state.network import MAIN_TABLE, Address, Route
from podplane.state.value import IPAddress, IPNetwork, Value, address_of

STRICT = 1


def sysctls(link: str) -> tuple[str, str]:
    """The two of which the greater one is in force for a link."""
    return "net.ipv4.conf.all.rp_filter", f"net.ipv4.conf.{link.replace('.', '/')}.rp_filter"


def dropped(values: Iterable[Value], found: Mapping[str, str], uplink: str, peers: Iterable[tuple[str, str]]) -> list[str]:
    """What the machine's filter drops of these peers, (name, address), in one line at most; `found` has the values of `sysctls(uplink)`."""
    names = sysctls(uplink)
    if max(int(found.get(name, "0")) for name in names) != STRICT:
        return []
    ways = sorted(_ways(values), key=lambda way: -way[0].prefixlen)
    wrong = [
        (name, ip, link) for name, ip in peers if ":" not in ip and (link := _back(ways, address_of(ip))) != uplink and link
    ]
    if not wrong:
        return []
    name, ip, link = wrong[0]
    whose = f"{name} ({ip}) and {counted(len(wrong) - 1, 'other node')} send" if len(wrong) > 1 else f"{name} ({ip}) sends"
    return [
        f"rp_filter is 1 on {uplink}, so the kernel drops what {whose} there: the way back leads by {link}; set {names[1]} to 2, or "
        f"a route by {uplink}"
    ]


def _ways(values: Iterable[Value]) -> Iterator[tuple[IPNetwork, str]]:
    """Where packets of IPv4 go, as far as the main table says: (to, by which link); "" for what has several ways."""
    for value in values:
        match value:
            case Address() if value.ip.version == 4:
                yield ipaddress.ip_network((value.ip, value.prefix_length), strict=False), value.link
            case Route() if value.destination.version == 4 and value.table == MAIN_TABLE and value.protocol != ROUTE_PROTOCOL:
                yield value.destination, value.link


def _back(ways: Iterable[tuple[IPNetwork, str]], ip: IPAddress) -> str:
    """The link by which an address is reached; "" when none or several are."""
    found = ""
    longest: int | None = None
    for network, link in ways:
        if longest is not None and network.prefixlen < longest:
            break
        if ip in network:
            if longest is not None and link != found:
                return ""
            found, longest = link, network.prefixlen
    return found

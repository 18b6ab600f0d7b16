"""Routes of one namespace: policy rules, tables, the longest prefix, local addresses, neighbours, proxies.

What the kernel adds by itself is derived: local and connected routes of addresses, loopback, the rules for the tables local,
main and default. Routes by links that are down don't count.

Sources: net/ipv4/{fib_frontend,fib_rules,fib_semantics}.c, net/ipv6/route.c, ip-rule(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from podplane.state.network import MAIN_TABLE, Address, Link, Neighbour, Proxy, Route, Rule
from podplane.state.value import IPAddress, IPNetwork, Value

LOCAL_TABLE, DEFAULT_TABLE = 255, 253
UNICAST, LOCAL, BROADCAST = "unicast", "local", "broadcast"
LOOPBACK = (("127.0.0.1", 8), ("::1", 128))


class NextHop(NamedTuple):
    """Where a route leads: its kind (unicast, local, broadcast, unreachable, …), link, gateway, and what says so."""

    kind: str
    link: str
    gateway: IPAddress | None
    value: Value | None
    source: IPAddress | None = None


@dataclass(slots=True)
class Entry:
    """One route of a table."""

    metric: int
    hop: NextHop


class Table:
    """Routes of one family in one table, by prefix length."""

    def __init__(self) -> None:
        self._lengths: dict[int, dict[int, list[Entry]]] = {}
        self._descending: list[int] = []

    def add(self, network: IPNetwork, metric: int, hop: NextHop) -> None:
        """One more route; of equal ones that of the lowest metric counts, and among those the first."""
        own = self._lengths.setdefault(network.prefixlen, {}).setdefault(int(network.network_address), [])
        own.append(Entry(metric, hop))
        own.sort(key=lambda entry: entry.metric)
        self._descending = sorted(self._lengths, reverse=True)

    def find(self, ip: IPAddress, link: str = "") -> NextHop | None:
        """The route of the longest prefix; with `link`, among those that leave by it."""
        number, size = int(ip), ip.max_prefixlen
        for length in self._descending:
            shift = size - length
            for entry in self._lengths[length].get(number >> shift << shift, ()):
                if not link or entry.hop.link == link:
                    return entry.hop
        return None


class Routing:
    """The routing of one namespace."""

    def __init__(self, links: Mapping[str, Link], values: Iterable[Value]) -> None:
        self._links = links
        self._tables: dict[tuple[int, int], Table] = {}
        self.addresses: dict[str, list[Address]] = {}
        self._neighbours: dict[tuple[str, IPAddress], Neighbour] = {}
        self._proxies: dict[tuple[str, IPAddress], Proxy] = {}
        self._rules: list[Rule] = []
        routes: list[Route] = []
        for value in values:
            match value:
                case Address():
                    self._add_address(value)
                case Route():
                    routes.append(value)
                case Neighbour():
                    self._neighbours[value.link, value.ip] = value
                case Proxy():
                    self._proxies[value.link, value.ip] = value
                case Rule():
                    self._rules.append(value)
        self._add_loopback()
        for route in routes:
            self._add_route(route)
        self._rules.sort(key=lambda rule: rule.priority)

    def _table(self, version: int, number: int) -> Table:
        return self._tables.setdefault((version, number), Table())

    def _is_up(self, link: str) -> bool:
        return link in self._links and self._links[link].up

    def _add_loopback(self) -> None:
        known = {address.ip for address in self.addresses.get("lo", ())}
        if self._is_up("lo"):
            for text, length in LOOPBACK:
                ip = ipaddress.ip_address(text)
                if ip not in known:
                    self._add_address(Address(link="lo", ip=ip, prefix_length=length))

    def _add_address(self, address: Address) -> None:
        """Its local route, its connected route, and IPv4's broadcast address."""
        ip, link, size = address.ip, address.link, address.ip.max_prefixlen
        self.addresses.setdefault(link, []).append(address)
        if not self._is_up(link) and ip.version == 6:
            return
        network = ipaddress.ip_network((ip, address.prefix_length), strict=False)
        local = self._table(ip.version, LOCAL_TABLE)
        local.add(ipaddress.ip_network(ip), 0, NextHop(LOCAL, link, None, address, ip))
        if link == "lo" and ip.version == 4:
            local.add(network, 0, NextHop(LOCAL, link, None, address, ip))
            return
        if not self._is_up(link):
            return
        if address.prefix_length < size:
            self._table(ip.version, MAIN_TABLE).add(network, 0, NextHop(UNICAST, link, None, address, ip))
        if ip.version == 4 and address.prefix_length < size - 1:
            last = ipaddress.ip_network(network.broadcast_address)
            local.add(last, 0, NextHop(BROADCAST, link, None, address, ip))

    def _add_route(self, route: Route) -> None:
        kind = route.kind
        if kind == UNICAST:
            link = route.link or self._link_of(route.gateway)
            if not self._is_up(link):
                return
            hop = NextHop(kind, link, route.gateway, route, route.source)
        else:
            hop = NextHop(kind, "", None, route)
        self._table(route.destination.version, route.table).add(route.destination, route.metric, hop)

    def _link_of(self, gateway: IPAddress | None) -> str:
        """Where a gateway is, of a route that names no link."""
        found = self._table(gateway.version, MAIN_TABLE).find(gateway) if gateway is not None else None
        return found.link if found is not None else ""

    def _tables_for(self, source: IPAddress | None, destination: IPAddress, mark: int) -> Iterator[int]:
        """The numbers of the tables in the order in which rules name them."""
        default = [(0, LOCAL_TABLE), (32766, MAIN_TABLE), (32767, DEFAULT_TABLE)]
        own = [(rule.priority, rule.table) for rule in self._rules if _matches(rule, source, destination, mark)]
        yield from (table for _, table in sorted(default + own, key=lambda pair: pair[0]))

    def find(self, destination: IPAddress, source: IPAddress | None = None, mark: int = 0, link: str = "") -> NextHop | None:
        """The route that a packet takes; None when there is no route. With `link`, one that leaves by it."""
        for number in self._tables_for(source, destination, mark):
            table = self._tables.get((destination.version, number))
            found = table.find(destination, link) if table is not None else None
            if found is not None:
                return found
        return None

    def local_kind(self, ip: IPAddress, link: str = "") -> str:
        """What the table local says of an address: local, broadcast, or, when it says nothing, unicast (inet_dev_addr_type)."""
        found = self._table(ip.version, LOCAL_TABLE).find(ip, link)
        return found.kind if found is not None else UNICAST

    def is_local(self, ip: IPAddress) -> bool:
        """Is it an address of this namespace?"""
        return self.local_kind(ip) == LOCAL

    def own_address(self, link: str, near: IPAddress | None, version: int) -> IPAddress | None:
        """The address for what leaves by a link, or another link's when that has none.

        IPv4 takes the first, of the next hop's subnet if there is one (inet_select_addr); IPv6 the destination itself if it
        is local, else the one with the longest prefix in common (RFC 6724).
        """
        if near is not None and version == 6 and self.is_local(near):
            return near
        own = [address for address in self.addresses.get(link, ()) if address.ip.version == version and _is_wide(address.ip)]
        if near is not None:
            own.sort(key=lambda address: _distance(address, near))
        others = (address for name, addresses in self.addresses.items() if name != "lo" for address in addresses)
        fallback = (address for address in others if address.ip.version == version and _is_wide(address.ip))
        found = own[0] if own else next(fallback, None)
        return found.ip if found is not None else None

    def source_for(self, destination: IPAddress) -> IPAddress | None:
        """The source address that the kernel gives to a packet of this namespace."""
        hop = self.find(destination)
        if hop is None:
            return None
        if hop.kind == LOCAL:
            return hop.source if destination.version == 4 and destination not in _own_ips(self) else destination
        return hop.source or self.own_address(hop.link, hop.gateway or destination, destination.version)

    def neighbour(self, link: str, ip: IPAddress) -> Neighbour | None:
        """The permanent entry of an address on a link."""
        return self._neighbours.get((link, ip))

    def proxy(self, link: str, ip: IPAddress) -> Proxy | None:
        """The entry by which this namespace answers on a link for an address that is not its own."""
        return self._proxies.get((link, ip))


def _distance(address: Address, ip: IPAddress) -> int:
    """0 when an IPv4 address is of the subnet; of IPv6, how many bits are not in common."""
    if ip.version == 6:
        return (int(address.ip) ^ int(ip)).bit_length()
    return int(ip not in ipaddress.ip_network((address.ip, address.prefix_length), strict=False))


def _own_ips(routing: Routing) -> set[IPAddress]:
    return {address.ip for addresses in routing.addresses.values() for address in addresses}


def _is_wide(ip: IPAddress) -> bool:
    """Is it good beyond its link?"""
    return not (ip.is_link_local or ip.is_loopback)


def _matches(rule: Rule, source: IPAddress | None, destination: IPAddress, mark: int) -> bool:
    if rule.family != destination.version:
        return False
    if rule.source is not None and (source is None or source not in rule.source):
        return False
    if rule.destination is not None and destination not in rule.destination:
        return False
    mask = rule.mark_mask or (0xFFFF_FFFF if rule.mark else 0)
    return mark & mask == rule.mark & mask

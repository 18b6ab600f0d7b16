"""What the kernel holds where a value is to be put: links by name, and whatever has the identity of a value.

Links are asked for by name once in each `Rtnl.apply`: a name may stand for another link than before. The rest is asked for only
where it matters (see `conflicts`): one by one where the kernel can say one, as a table where it can't, or where many are asked for.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from podplane.kernel.errors import NotFound
from podplane.kernel.netlink import NLM_F_ACK, NLM_F_ECHO, Socket
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import decode, encode, traffic_control
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Qdisc, Redirect, Route, Rule
from podplane.state.ownership import is_foreign
from podplane.state.value import Identity, Value

FIRST_INDEX = 1000
"""Indexes that we give begin here, far from those that the kernel counts up from 1."""
LOOPBACK_INDEX = 1
"""LOOPBACK_IFINDEX: the same in every network namespace."""
ALL_LINKS = c.LINK.pack(0, 0, 0, 0, 0) + encode.without_statistics()
MANY = 64
"""So many neighbours are quicker read as a table than one by one."""
OCCUPIED = c.NUD_PERMANENT | c.NUD_NOARP
"""States of neighbours that somebody set; others the kernel found out by itself, and a permanent entry may replace them."""


class Found(NamedTuple):
    """A link: its index, and what the kernel says of it."""

    number: int
    payload: bytes


class Links:
    """The links of one namespace by name; those that were looked up are remembered until `clear`."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._found: dict[str, Found] = {}
        self._given: dict[str, int] = {}
        self._next_index = 0

    def clear(self) -> None:
        """Forget what was looked up."""
        self._found.clear()
        self._given.clear()

    def find(self, name: str) -> Found:
        """A link. NotFound when there is none of this name."""
        if name not in self._found:
            try:
                rows = self._socket.dump(c.RTM_GETLINK, encode.get_link(name), flags=0)
            except OSError as error:
                raise NotFound(f"link {name}", error.strerror or "", error.errno or errno.ENODEV) from None
            payload = rows[0][1]
            self._found[name] = Found(decode.link_name(payload)[0], payload)
        return self._found[name]

    def index(self, name: str) -> int:
        """The index of a link, or the one that `give` gave to it. NotFound when there is no such link."""
        if name == "lo":
            return LOOPBACK_INDEX
        return self._given[name] if name in self._given else self.find(name).number

    def give(self, name: str) -> int:
        """An index for a new link that nothing else has: one more than the greatest, which is asked for once."""
        if not self._next_index:
            self._next_index = max([FIRST_INDEX - 1, *self.names()])
        self._next_index += 1
        self._given[name] = self._next_index
        return self._next_index

    def is_given(self, name: str) -> bool:
        """Did `give` give an index to this link?"""
        return name in self._given

    def take_back(self, name: str) -> None:
        """The link was not made with the index that was given to it, or it is gone."""
        self._given.pop(name, None)
        self._found.pop(name, None)

    def recount(self) -> None:
        """Somebody else has an index that was to be given: ask for the greatest again."""
        self._next_index = 0

    def names(self) -> dict[int, str]:
        """Index → name of all links."""
        rows = self._socket.dump(c.RTM_GETLINK, c.LINK.pack(0, 0, 0, 0, 0) + encode.without_statistics())
        return dict(decode.link_name(payload) for _, payload in rows)


class Present:
    """Answers what stands at the identities of values, in one namespace."""

    def __init__(self, socket: Socket, links: Links) -> None:
        self._socket = socket
        self._links = links

    def of(self, values: Collection[Value]) -> dict[Identity, Value]:
        """What the kernel holds at the identities of these values; dynamic neighbours don't count."""
        names: Mapping[int, str] = self._links.names() if values else {}
        found: dict[Identity, Value] = {}
        for kind, reader in self._readers().items():
            wanted = [value for value in values if type(value) is kind]
            if wanted:
                rows = (value for value in reader(wanted, names) if value is not None)
                found |= _at(rows, {local_identity(value): value for value in wanted})
        return found

    def links(self) -> list[Link]:
        """All links."""
        names = self._links.names()
        return [decode.link(payload, names) for payload in self._dump(c.RTM_GETLINK, ALL_LINKS)]

    def _readers(self) -> dict[type[Value], Callable[[list[Value], Mapping[int, str]], list[Value | None]]]:
        return {
            Link: self._read_links,
            Address: lambda _, names: [
                decode.address(p, names) for p in self._dump(c.RTM_GETADDR, c.ADDRESS.pack(0, 0, 0, 0, 0))
            ],
            Route: self._read_routes,
            Neighbour: self._read_neighbours,
            Proxy: self._read_neighbours,
            Fdb: self._read_fdb,
            Qdisc: self._read_qdiscs,
            Redirect: self._read_redirects,
            Rule: lambda _, names: [decode.rule(p) for p in self._dump(c.RTM_GETRULE, c.RULE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))],
        }

    def _dump(self, kind: int, query: bytes) -> list[bytes]:
        return [payload for _, payload in self._socket.dump(kind, query)]

    def _read_links(self, wanted: list[Value], names: Mapping[int, str]) -> list[Value | None]:
        there = set(names.values())
        return [
            decode.link(self._links.find(value.name).payload, names)
            for value in wanted
            if isinstance(value, Link) and value.name in there
        ]

    def _read_routes(self, wanted: list[Value], names: Mapping[int, str]) -> list[Value | None]:
        tables = {(v.destination.version, v.table) for v in wanted if isinstance(v, Route)}
        found: list[Value | None] = []
        for version, table in sorted(tables):
            header = c.ROUTE.pack(c.FAMILY[version], 0, 0, 0, min(table, 255) if table < 256 else 0, 0, 0, 0, 0)
            query = header + encode.route_table(table)
            found += [decode.any_route(p, names) for p in self._dump_table(c.RTM_GETROUTE, query)]
        return found

    def _dump_table(self, kind: int, query: bytes) -> list[bytes]:
        """A table that was never used does not exist (ENOENT): it is empty."""
        try:
            return self._dump(kind, query)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return []
            raise

    def _read_neighbours(self, wanted: list[Value], names: Mapping[int, str]) -> list[Value | None]:
        values = [value for value in wanted if isinstance(value, Neighbour | Proxy)]
        rows: list[bytes] = []
        if len(values) < MANY:
            for value in values:
                rows += self._one_neighbour(value)
        else:
            flags = c.NTF_PROXY if isinstance(values[0], Proxy) else 0
            for family in {c.FAMILY[value.ip.version] for value in values}:
                rows += self._dump(c.RTM_GETNEIGH, c.NEIGHBOUR.pack(family, 0, 0, flags, 0))
        return [decode.proxy(p, names) if isinstance(values[0], Proxy) else _occupant(p, names) for p in rows]

    def _one_neighbour(self, value: Neighbour | Proxy) -> list[bytes]:
        try:
            query = encode.get_neighbour(value, self._links.index(value.link))
            return [payload for _, payload in self._socket.dump(c.RTM_GETNEIGH, query, flags=0)]
        except (OSError, NotFound):  # no such neighbour (ENOENT), or no such link
            return []

    def _read_fdb(self, wanted: list[Value], names: Mapping[int, str]) -> list[Value | None]:
        own = {value.link for value in wanted if isinstance(value, Fdb) and not value.master}
        ports = {value.link for value in wanted if isinstance(value, Fdb) and value.master}
        queries = [encode.forwarding_entries(index, of_bridge=False) for index, name in names.items() if name in own]
        queries += [encode.forwarding_entries(index, of_bridge=True) for index in self._bridges_of(ports)]
        return [decode.fdb(payload, names) for query in queries for payload in self._dump(c.RTM_GETNEIGH, query)]

    def _read_qdiscs(self, wanted: list[Value], names: Mapping[int, str]) -> list[Value | None]:
        asked = (traffic_control.root_of(index) for index in self._indexes(wanted))
        rows = (payload for query in asked for payload in self._one(c.RTM_GETQDISC, query))
        return [traffic_control.decode_qdisc(payload, names) for payload in rows]

    def _one(self, kind: int, query: bytes) -> list[bytes]:
        """One object, if it is there. The kernel tells those who subscribed, and who asks only by NLM_F_ECHO (qdisc_get_notify); of what
        can't be shown it says nothing, so an acknowledgement is asked for."""
        try:
            return [payload for _, payload in self._socket.dump(kind, query, flags=NLM_F_ECHO | NLM_F_ACK)]
        except OSError:
            return []

    def _read_redirects(self, wanted: list[Value], names: Mapping[int, str]) -> list[Value | None]:
        rows = (payload for index in self._indexes(wanted) for payload in self._filters(index))
        return [traffic_control.decode_redirect(payload, names) for payload in rows]

    def _filters(self, index: int, parent: int = c.TC_H_INGRESS) -> list[bytes]:
        return self._dump(c.RTM_GETTFILTER, traffic_control.filters_of(index, parent))

    def has_only_our_filters(self, link: str) -> bool:
        """Are all filters of a link podplane's, and so the qdisc that they lie in?"""
        found = (
            payload for parent in (c.TC_H_INGRESS, c.TC_H_EGRESS) for payload in self._filters(self._links.index(link), parent)
        )
        return all(map(traffic_control.is_ours, found))

    def _indexes(self, values: Iterable[Value]) -> Iterator[int]:
        """The indexes of the links, of those that are there, that these are on."""
        for name in dict.fromkeys(str(getattr(value, "link", "")) for value in values):
            with contextlib.suppress(NotFound):
                yield self._links.find(name).number

    def _bridges_of(self, ports: Iterable[str]) -> set[int]:
        """The indexes of the bridges that these links are ports of."""
        found = set()
        for name in ports:
            with contextlib.suppress(NotFound):
                found.add(decode.master_index(self._links.find(name).payload))
        return found - {0}


def local_identity(value: Value) -> Identity:
    """The identity of a value as its own namespace knows it."""
    kind, _, *rest = value.identity
    return (kind, "", *rest)


def _at(rows: Iterable[Value], wanted: Mapping[Identity, Value]) -> dict[Identity, Value]:
    """Those rows that have an identity of a wanted value; of several (rules) the one with the wanted one's mark."""
    found: dict[Identity, Value] = {}
    for row in rows:
        value = wanted.get(row.identity)
        if value is not None and (row.identity not in found or is_foreign(value, found[row.identity])):
            found[row.identity] = row
    return found


def _occupant(payload: bytes, names: Mapping[int, str]) -> Neighbour | None:
    _, _, state, flags, _ = c.NEIGHBOUR.unpack_from(payload)
    found = decode.any_neighbour(payload, names)
    if found is not None and found.ip.is_multicast and not state & c.NUD_PERMANENT:
        return None  # the kernel makes it of the address, and gives it the state NOARP (arp_constructor, ndisc_constructor)
    return found if state & OCCUPIED or flags & c.NTF_EXT_LEARNED else None

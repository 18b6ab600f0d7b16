"""Reading back what one network namespace holds: dumps of rtnetlink as values, those of an owner or all."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

from podplane.kernel.netlink import Socket, attribute, find_attribute, parse_attributes, u32
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import decode, encode, traffic_control
from podplane.state.network import QDISC_HANDLE, Link, Route
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, IPAddress, Value

ADDRESSES = c.ADDRESS.pack(0, 0, 0, 0, 0)
RULES = c.RULE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)
FAMILIES = (c.AF_INET, c.AF_INET6)
FORWARDING_KINDS = ("bridge", "vxlan")
"""Kinds of links that have forwarding entries."""
MOST_QUESTIONS = 50
TYPE_OF_ROUTE, RTN_LOCAL = 7, 2
"""The place of rtm_type in struct rtmsg."""
IS_UP = bytes((6,))
"""IF_OPER_UP (RFC 2863)."""


def owned(socket: Socket, owner: Ownership) -> dict[Identity, Value]:
    """What carries the marks of this owner (see `state.ownership`)."""
    names, links = _links(socket)
    mine = {index: link for index, link in links.items() if owner.owns_link(link.name, link.alias)}
    own = {index: link.name for index, link in mine.items()}
    found: list[Value | None] = [*mine.values()]
    found += [decode.address(p, own) for p in _dump(socket, c.RTM_GETADDR, ADDRESSES)]
    found += _traffic_control(socket, own, names)
    marked: list[Value | None] = []
    for family in FAMILIES:
        marked += _routes(socket, family, owner.route_protocol, names)
        marked += _neighbours(socket, family, names)
        marked += _proxies(socket, family, names)
    marked += [decode.rule(p) for p in _dump(socket, c.RTM_GETRULE, RULES)]
    found += [value for value in marked if value is not None and has_protocol(value, owner.route_protocol)]
    masters = {link.master for link in mine.values()}  # a bridge has the entries of its ports, also when it is somebody else's
    for index, link in links.items():
        if (index in mine and link.kind in FORWARDING_KINDS) or link.name in masters:
            query = encode.forwarding_entries(index, of_bridge=link.kind == "bridge")
            found += [decode.fdb(p, own) for p in _dump_of_link(socket, c.RTM_GETNEIGH, query)]
    return {value.identity: value for value in found if value is not None}


def _traffic_control(socket: Socket, own: dict[int, str], names: dict[int, str]) -> Iterator[Value | None]:
    """The shapers and filters with podplane's marks on these links."""
    for payload in _dump(socket, c.RTM_GETQDISC, c.TRAFFIC.pack(0, 0, 0, 0, 0)):
        shaper = traffic_control.decode_qdisc(payload, own)
        if shaper is not None and shaper.handle == QDISC_HANDLE:
            yield shaper
        index = traffic_control.link_index(payload)
        if traffic_control.is_clsact(payload) and index in own:
            for row in _dump_of_link(socket, c.RTM_GETTFILTER, traffic_control.filters_of(index)):
                yield traffic_control.decode_redirect(row, names)


def everything(socket: Socket) -> dict[Identity, Value]:
    """All links, addresses, routes, permanent neighbours, proxies and rules but those that the kernel made itself."""
    names, links = _links(socket)
    found: list[Value | None] = [*links.values()]
    found += [decode.address(p, names) for p in _dump(socket, c.RTM_GETADDR, ADDRESSES)]
    for family in FAMILIES:
        found += [route for route in _routes(socket, family, 0, names) if route is None or route.protocol != c.RTPROT_KERNEL]
        found += _neighbours(socket, family, names)
        found += _proxies(socket, family, names)
    rules = [decode.rule(p) for p in _dump(socket, c.RTM_GETRULE, RULES)]
    found += [rule for rule in rules if rule is None or rule.protocol != c.RTPROT_KERNEL]
    return {value.identity: value for value in found if value is not None}


def owned_proxies(socket: Socket, owner: Ownership) -> dict[Identity, Value]:
    """The proxies with the protocol of this owner. Two small dumps; of links, only those are asked for that have proxies."""
    rows = [payload for family in FAMILIES for payload in _proxy_rows(socket, family)]
    known = {index: _name(socket, index) for index in {c.NEIGHBOUR.unpack_from(payload)[1] for payload in rows}}
    names = {index: name for index, name in known.items() if name}
    found = (decode.proxy(payload, names) for payload in rows)
    return {value.identity: value for value in found if value is not None and has_protocol(value, owner.route_protocol)}


def _name(socket: Socket, index: int) -> str:
    """The name of a link; "" when it is gone."""
    query = c.LINK.pack(0, 0, index, 0, 0) + encode.without_statistics()
    try:
        ((_, payload),) = socket.dump(c.RTM_GETLINK, query, flags=0)
    except OSError:
        return ""
    return decode.link_name(payload)[1]


def has_link(socket: Socket, name: str) -> bool:
    """Is there a link of this name?"""
    return link_index(socket, name) != 0


def link_index(socket: Socket, name: str) -> int:
    """The index of a link; 0 when there is none of this name."""
    try:
        ((_, payload),) = socket.dump(c.RTM_GETLINK, encode.get_link(name), flags=0)
    except OSError:
        return 0
    index: int = c.LINK.unpack_from(payload)[2]
    return index


def namespace_id(socket: Socket, fd: int) -> int | None:
    """The number by which this namespace speaks of another one, of which this is a descriptor; None when it has none for it."""
    query = bytes(4) + u32(c.NETNSA_FD, fd)
    ((_, payload),) = socket.dump(c.RTM_GETNSID, query, flags=0)
    return _signed(parse_attributes(payload, 4).get(c.NETNSA_NSID))


def peer_namespace_id(socket: Socket, name: str) -> int | None:
    """The number of the namespace where the far end of a veth pair is; None when that is here, or there is no such link."""
    try:
        ((_, payload),) = socket.dump(c.RTM_GETLINK, encode.get_link(name), flags=0)
    except OSError:
        return None
    return _signed(parse_attributes(payload, c.LINK.size).get(c.IFLA_LINK_NETNSID))


def _signed(value: bytes | None) -> int | None:
    number = -1 if value is None else int.from_bytes(value, sys.byteorder, signed=True)
    return number if number >= 0 else None


def await_carrier(socket: Socket, name: str) -> None:
    """Ask for a link until the kernel has seen that it has a carrier. Until then it drops what is sent by the link.

    One end of a veth pair that is up gets its carrier when the other end is set up, and the kernel acts on that some time later
    (net/core/link_watch.c). Since Linux 6.8 it does so when one link is asked for (rtnl_getlink, linkwatch_sync_dev); before, asking
    takes about as long as that takes.
    """
    for _ in range(MOST_QUESTIONS):
        try:
            ((_, payload),) = socket.dump(c.RTM_GETLINK, encode.get_link(name), flags=0)
        except OSError:
            return
        if find_attribute(payload, c.IFLA_OPERSTATE, c.LINK.size) == IS_UP:
            return


def is_local(socket: Socket, ip: IPAddress) -> bool:
    """Is a packet to this address one for this machine? The routing table is asked."""
    family = c.AF_INET6 if ip.version == 6 else c.AF_INET
    query = c.ROUTE.pack(family, ip.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + attribute(c.RTA_DST, ip.packed)
    try:
        ((_, payload),) = socket.dump(c.RTM_GETROUTE, query, flags=0)
    except OSError:
        return False
    return bool(c.ROUTE.unpack_from(payload)[TYPE_OF_ROUTE] == RTN_LOCAL)


def has_protocol(value: Value, protocol: int) -> bool:
    """Is this the protocol of a value that has one?"""
    return bool(protocol) and getattr(value, "protocol", 0) == protocol


def list_links(socket: Socket) -> list[bytes]:
    """All links as the kernel dumps them, without statistics."""
    return _dump(socket, c.RTM_GETLINK, c.LINK.pack(0, 0, 0, 0, 0) + encode.without_statistics())


def _links(socket: Socket) -> tuple[dict[int, str], dict[int, Link]]:
    """Index → name, and index → link, of all links."""
    rows = list_links(socket)
    names = dict(decode.link_name(payload) for payload in rows)
    return names, {decode.link_name(payload)[0]: decode.link(payload, names) for payload in rows}


def _routes(socket: Socket, family: int, protocol: int, names: dict[int, str]) -> list[Route | None]:
    query = c.ROUTE.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0)
    return [decode.route(p, names) for p in _dump(socket, c.RTM_GETROUTE, query)]


def _neighbours(socket: Socket, family: int, names: dict[int, str]) -> list[Value | None]:
    query = c.NEIGHBOUR.pack(family, 0, 0, 0, 0)
    return [decode.neighbour(p, names) for p in _dump(socket, c.RTM_GETNEIGH, query)]


def _proxies(socket: Socket, family: int, names: dict[int, str]) -> list[Value | None]:
    return [decode.proxy(p, names) for p in _proxy_rows(socket, family)]


def _proxy_rows(socket: Socket, family: int) -> list[bytes]:
    return _dump(socket, c.RTM_GETNEIGH, c.NEIGHBOUR.pack(family, 0, 0, c.NTF_PROXY, 0))


def _dump(socket: Socket, kind: int, query: bytes) -> list[bytes]:
    return [payload for _, payload in socket.dump(kind, query)]


def _dump_of_link(socket: Socket, kind: int, query: bytes) -> list[bytes]:
    """The same of one link, which may have gone since links were read: then it has nothing."""
    try:
        return _dump(socket, kind, query)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return []

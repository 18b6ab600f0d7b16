"""Connection tracking: who talks through Services, and which connections are to begin anew.

When an entry is deleted, the next packet is the first of a new connection, and an endpoint is chosen for it.

The kernel is asked to filter what it dumps (CTA_FILTER since Linux 5.8, CTA_STATUS_MASK since 5.19); an older one overlooks that and
dumps all, so every entry is looked at again here.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from podplane.kernel.namespace import Namespace
from podplane.kernel.netlink import Message, Socket, attribute, find_attribute, parse_attributes
from podplane.kernel.rtnl.decode import ip_from
from podplane.state.conntrack import JUDGE_AGAIN, REVOKED, Allowed, Connection, Frontend, Revoked, Sent, Target, TrackedFlow
from podplane.state.value import IPAddress

NETLINK_NETFILTER = 12
CTNETLINK = 1 << 8
SET, GET, DELETE, GET_STATS = CTNETLINK | 0, CTNETLINK | 1, CTNETLINK | 2, CTNETLINK | 5
STATS_ENTRIES = 1
"""CTA_STATS_GLOBAL_ENTRIES: the number of connections of the namespace."""
GENERIC = struct.Struct(">BBH")
"""struct nfgenmsg: family, version, resource."""
AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
ORIGINAL, REPLY = 1, 2
TUPLE_IP, TUPLE_PROTO = 1, 2
V4_SOURCE, V4_DESTINATION, V6_SOURCE, V6_DESTINATION = 1, 2, 3, 4
PROTO_NUMBER, PROTO_SOURCE_PORT, PROTO_DESTINATION_PORT = 1, 2, 3
STATUS, STATUS_MASK, TRANSLATED = 3, 26, 1 << 5
"""CTA_STATUS, CTA_STATUS_MASK, IPS_DST_NAT."""
FILTER, REPLY_FLAGS, BY_PROTOCOL = 25, 2, 1 << 3
"""CTA_FILTER, CTA_FILTER_REPLY_FLAGS, CTA_FILTER_F_CTA_PROTO_NUM."""
ORIGINAL_FLAGS, BY_SOURCE, BY_DESTINATION, BY_PORT = 1, 1 << 0, 1 << 1, 1 << 5
"""CTA_FILTER_ORIG_FLAGS, CTA_FILTER_F_CTA_IP_SRC, _IP_DST, _PROTO_DST_PORT."""
MARK, MARK_MASK = 8, 21
FILTERED, WALK = 8, 10_000
"""By up to so many frontends the kernel is asked to filter, a question each. Each question goes through the machine's whole hash table,
which takes as long as it takes to tell of so many connections, and to read that."""
ORIGINAL_COUNTERS, REPLY_COUNTERS, PACKETS, BYTES = 9, 10, 1, 2
"""Counted with net.netfilter.nf_conntrack_acct."""
ZONE = 18
ZONE_HEAD = struct.pack("=HH", 6, ZONE)
"""CTA_ZONE, and how the attribute begins: two bytes, network order."""
PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
NUMBERS = {name: number for number, name in PROTOCOLS.items()}
NESTED = 1 << 15
HEAD = struct.Struct("=HHHHHH")


class Layout(NamedTuple):
    """Where the kernel puts what tells a connection of one family, if its protocol has ports: headers of attributes and their order are
    always the same, so a hundred thousand entries need not be parsed for it. `end` is that of the original tuple, an attribute."""

    head: bytes
    reply_head: bytes
    end: int
    reply: slice
    source: slice
    destination: slice
    port: slice
    answering: slice
    protocol: slice
    answering_port: slice

    @classmethod
    def of(cls, size: int, kind: int) -> Layout:
        """The layout of tuples with addresses of so many bytes: IP (source, destination), then protocol (number, ports)."""
        ips = 4 + 2 * (4 + size)
        length = 4 + ips + 4 + 3 * 8
        head, reply_head = (
            HEAD.pack(length, one | NESTED, ips, TUPLE_IP | NESTED, 4 + size, kind) for one in (ORIGINAL, REPLY)
        )
        end, source, port = 4 + length, 16, 4 + 4 + ips + 4 + 8 + 4
        return cls(
            head,
            reply_head,
            end,
            slice(end, end + 12),
            slice(source, source + size),
            slice(source + size + 4, source + 2 * size + 4),
            slice(port + 8, port + 10),
            slice(source + length, source + length + size),
            slice(port - 8, port - 7),
            slice(port + length, port + length + 2),
        )

    def is_of(self, content: bytes) -> bool:
        """Is an entry laid out so?"""
        return content[4:16] == self.head and content[self.reply] == self.reply_head


LAYOUTS = {AF_INET: Layout.of(4, V4_SOURCE), AF_INET6: Layout.of(16, V6_SOURCE)}


class Conntrack:
    """The table of the namespace in which `socket` was opened."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def translated(self) -> list[Connection]:
        """The connections that were translated to another destination."""
        bit = struct.pack(">I", TRANSLATED)
        query = GENERIC.pack(AF_UNSPEC, 0, 0) + attribute(STATUS, bit) + attribute(STATUS_MASK, bit)
        found = (_connection(parse_attributes(content, GENERIC.size)) for _, content in self._socket.dump(GET, query))
        return [connection for connection in found if connection is not None]

    def flush(self, allowed: Allowed) -> int:
        """Delete the connections to these frontends that do not go where they may; how many those were.

        All namespaces of a machine share one hash table, which a dump goes through: where a namespace has no connections, that is spared.
        """
        if not self._count():
            return 0
        if len(allowed) <= FILTERED:
            queries = list(map(_query_to, allowed))
        else:
            kinds = {(AF_INET if ip.version == 4 else AF_INET6, protocol) for protocol, ip, _ in allowed}
            queries = [_query(family, protocol) for family, protocol in sorted(kinds)]
        asked = {(ip.packed, port.to_bytes(2, "big")) for _, ip, port in allowed}
        stale: dict[bytes, int] = {}
        for query in queries:
            for _, content in self._socket.dump(GET, query):
                layout = LAYOUTS.get(content[0])
                if (
                    layout is not None
                    and layout.is_of(content)
                    and (content[layout.destination], content[layout.port]) not in asked
                ):
                    continue
                parts = parse_attributes(content, GENERIC.size)
                if _is_stale(parts, allowed):
                    stale[parts[ORIGINAL]] = content[0]
        messages = [
            Message(
                DELETE, 0, GENERIC.pack(family, 0, 0) + attribute(ORIGINAL | NESTED, original), "delete a tracked connection"
            )
            for original, family in stale.items()
        ]
        refused = self._socket.request(messages)  # one that ended by itself meanwhile
        return len(messages) - len(refused)

    def judge_again(self, ips: Collection[IPAddress]) -> int:
        """Mark the connections from and to these addresses so that the node's tables judge them again; how many those are.

        An address is the client's, or that of who answers it.
        """
        bit = struct.pack(">I", JUDGE_AGAIN)
        return self._change(SET, ips, attribute(MARK, bit) + attribute(MARK_MASK, bit), "mark a connection")

    def revoked(self) -> list[Revoked]:
        """The TCP connections that were let pass and are no more: something that their clients sent was denied."""
        if not self._count():
            return []
        bit = struct.pack(">I", REVOKED)
        query = GENERIC.pack(AF_UNSPEC, 0, 0) + attribute(MARK, bit) + attribute(MARK_MASK, bit)
        rows = (parse_attributes(content, GENERIC.size) for _, content in self._socket.dump(GET, query))
        found = (_revoked(parts) for parts in rows if int.from_bytes(parts.get(MARK, b""), "big") & REVOKED)
        return [one for one in found if one is not None]

    def flows(self, ips: Collection[IPAddress]) -> set[TrackedFlow]:
        """Who is connected from and to these addresses, or was a moment ago: TCP connections that have ended are tracked for two minutes
        more."""
        if not ips or not self._count():
            return set()
        plain: dict[int, set[bytes]] = {AF_INET: set(), AF_INET6: set()}
        found: set[TrackedFlow] = set()
        for _, content in self._socket.dump(GET, GENERIC.pack(AF_UNSPEC, 0, 0)):
            layout = LAYOUTS.get(content[0])
            if layout is not None and layout.is_of(content):
                plain[content[0]].add(
                    content[layout.source]
                    + content[layout.answering]
                    + content[layout.protocol]
                    + content[layout.answering_port]
                )
            elif (other := _flow(parse_attributes(content, GENERIC.size))) is not None:
                found.add(other)
        for family, size in ((AF_INET, 4), (AF_INET6, 16)):
            found |= {
                TrackedFlow(one[:size], one[size : 2 * size], one[2 * size], int.from_bytes(one[2 * size + 1 :], "big"))
                for one in plain[family]
            }
        packed = {ip.packed for ip in ips}
        return {one for one in found if one.source in packed or one.destination in packed}

    def forget(self, ips: Collection[IPAddress]) -> int:
        """Delete the connections from and to these addresses; how many those were."""
        return self._change(DELETE, ips, b"", "delete a tracked connection")

    def _change(self, what: int, ips: Collection[IPAddress], more: bytes, why: str) -> int:
        messages = [
            Message(what, 0, GENERIC.pack(family, 0, 0) + attribute(ORIGINAL | NESTED, original) + more, why)
            for original, family in self._about(ips).items()
        ]
        return len(messages) - len(self._socket.request(messages))  # some may have ended meanwhile

    def _about(self, ips: Collection[IPAddress]) -> dict[bytes, int]:
        """The connections from and to these addresses, by what their clients send to, with the family."""
        count = self._count()
        if not count:
            return {}
        found: dict[bytes, int] = {}
        packed = {ip.packed for ip in ips}
        everything = 2 * len(ips) * WALK > WALK + count
        for query in (GENERIC.pack(AF_UNSPEC, 0, 0),) if everything else _queries_about(ips):
            for _, content in self._socket.dump(GET, query):
                layout = LAYOUTS.get(content[0])
                if layout is not None and layout.is_of(content):
                    if content[layout.source] in packed or content[layout.answering] in packed:
                        found[content[8 : layout.end]] = content[0]
                    continue
                parts = parse_attributes(content, GENERIC.size)
                if ORIGINAL in parts and not _ends(parts).isdisjoint(packed):
                    found[parts[ORIGINAL]] = content[0]
        return found

    def _count(self) -> int:
        """The number of connections."""
        content = self._socket.ask(GET_STATS, GENERIC.pack(AF_UNSPEC, 0, 0))
        return int.from_bytes(parse_attributes(content, GENERIC.size)[STATS_ENTRIES], "big")


def _query(family: int, protocol: str) -> bytes:
    """For the connections of one family and protocol."""
    number = attribute(TUPLE_PROTO | NESTED, attribute(PROTO_NUMBER, bytes((NUMBERS[protocol],))))
    by_protocol = attribute(FILTER | NESTED, attribute(REPLY_FLAGS, struct.pack("=I", BY_PROTOCOL)))
    return GENERIC.pack(family, 0, 0) + attribute(REPLY | NESTED, number) + by_protocol


def _query_to(frontend: Frontend) -> bytes:
    """For the connections to one frontend, of IPv6 for all to its port; an older kernel overlooks the filter and tells all.

    By an address of IPv6 the kernel tells those that have another one (ctnetlink_filter_match_tuple, ipv6_addr_cmp).
    """
    protocol, ip, port = frontend
    numbers = attribute(PROTO_NUMBER, bytes((NUMBERS[protocol],))) + attribute(PROTO_DESTINATION_PORT, struct.pack(">H", port))
    tuple_, flags = attribute(TUPLE_PROTO | NESTED, numbers), BY_PROTOCOL | BY_PORT
    if ip.version == 4:
        tuple_ += attribute(TUPLE_IP | NESTED, attribute(V4_DESTINATION, ip.packed))
        flags |= BY_DESTINATION
    by_all = attribute(FILTER | NESTED, attribute(ORIGINAL_FLAGS, struct.pack("=I", flags)))
    return GENERIC.pack(AF_INET if ip.version == 4 else AF_INET6, 0, 0) + attribute(ORIGINAL | NESTED, tuple_) + by_all


def _queries_about(ips: Collection[IPAddress]) -> Iterator[bytes]:
    """For the connections of each of these addresses of IPv4, and for all of IPv6 if there is such an address (see `_query_to`); an older
    kernel overlooks the filter and tells all."""
    for ip in ips:
        address = attribute(TUPLE_IP | NESTED, attribute(V4_SOURCE, ip.packed))
        for tuple_, flags in ((ORIGINAL, ORIGINAL_FLAGS), (REPLY, REPLY_FLAGS)) if ip.version == 4 else ():
            by_source = attribute(FILTER | NESTED, attribute(flags, struct.pack("=I", BY_SOURCE)))
            yield GENERIC.pack(AF_INET, 0, 0) + attribute(tuple_ | NESTED, address) + by_source
    if any(ip.version == 6 for ip in ips):
        yield GENERIC.pack(AF_INET6, 0, 0)


def _flow(parts: Mapping[int, bytes]) -> TrackedFlow | None:
    """A connection of a protocol without ports, say; None for what is none of IP."""
    if not {ORIGINAL, REPLY} <= parts.keys():
        return None
    (source, _, _), (destination, protocol, port) = (_sender(parts[kind]) for kind in (ORIGINAL, REPLY))
    return TrackedFlow(source, destination, protocol, port) if source and destination else None


def _sender(tuple_: bytes) -> tuple[bytes, int, int]:
    """Who sends in one direction: address, protocol and port."""
    parts = parse_attributes(tuple_)
    ip, proto = parse_attributes(parts.get(TUPLE_IP, b"")), parse_attributes(parts.get(TUPLE_PROTO, b""))
    address = ip.get(V4_SOURCE) or ip.get(V6_SOURCE) or b""
    return address, proto.get(PROTO_NUMBER, b"\0")[0], int.from_bytes(proto.get(PROTO_SOURCE_PORT, b""), "big")


def _ends(parts: Mapping[int, bytes]) -> set[bytes]:
    """The address of the client of a connection, and of who answers."""
    found = set()
    for kind in (ORIGINAL, REPLY):
        ip = parse_attributes(parse_attributes(parts[kind])[TUPLE_IP]) if kind in parts else {}
        content = ip.get(V4_SOURCE) or ip.get(V6_SOURCE)
        if content:
            found.add(content)
    return found


def _revoked(parts: Mapping[int, bytes]) -> Revoked | None:
    """None for what is not of TCP."""
    reply = parts.get(REPLY, b"")
    server, client = (
        _end(reply, V4_SOURCE, V6_SOURCE, PROTO_SOURCE_PORT) if reply else None,
        _end(reply, V4_DESTINATION, V6_DESTINATION, PROTO_DESTINATION_PORT) if reply else None,
    )
    if server is None or client is None or server.protocol != "tcp":
        return None
    original = parts.get(ORIGINAL, b"")
    source, to = (
        _end(original, V4_SOURCE, V6_SOURCE, PROTO_SOURCE_PORT) if original else None,
        _end(original, V4_DESTINATION, V6_DESTINATION, PROTO_DESTINATION_PORT) if original else None,
    )
    sent = None if source is None or to is None else Sent(*source[1:], *to[1:])
    return Revoked(*server[1:], *client[1:], sent)


def _is_stale(parts: Mapping[int, bytes], allowed: Allowed) -> bool:
    if not {ORIGINAL, REPLY} <= parts.keys():
        return False
    end = _end(parts[ORIGINAL], V4_DESTINATION, V6_DESTINATION, PROTO_DESTINATION_PORT)
    answering = _end(parts[REPLY], V4_SOURCE, V6_SOURCE, PROTO_SOURCE_PORT)
    return end is not None and end in allowed and answering is not None and Target(*answering[1:]) not in allowed[end]


def _is_translated(parts: Mapping[int, bytes]) -> bool:
    return bool(int.from_bytes(parts[STATUS], "big") & TRANSLATED)


def _end(content: bytes, v4: int, v6: int, port: int) -> Frontend | None:
    """One end of a tuple; None when its protocol has no ports, or is none of ours."""
    parts = parse_attributes(content)
    ip, proto = parse_attributes(parts[TUPLE_IP]), parse_attributes(parts[TUPLE_PROTO])
    protocol = PROTOCOLS.get(proto[PROTO_NUMBER][0])
    if protocol is None or port not in proto:
        return None
    return Frontend(protocol, ip_from(ip.get(v4) or ip[v6]), int.from_bytes(proto[port], "big"))


def _connection(parts: Mapping[int, bytes]) -> Connection | None:
    """A connection; None for one that goes where it was sent, or has no ports."""
    if not {ORIGINAL, REPLY, STATUS} <= parts.keys() or not _is_translated(parts):
        return None
    asked = _end(parts[ORIGINAL], V4_DESTINATION, V6_DESTINATION, PROTO_DESTINATION_PORT)
    answering = _end(parts[REPLY], V4_SOURCE, V6_SOURCE, PROTO_SOURCE_PORT)
    if asked is None or answering is None:
        return None
    sums = [parse_attributes(parts[kind]) for kind in (ORIGINAL_COUNTERS, REPLY_COUNTERS) if kind in parts]
    packets, octets = (sum(int.from_bytes(one.get(kind, b""), "big") for one in sums) for kind in (PACKETS, BYTES))
    return Connection(*asked, *answering[1:], packets, octets)


def zones(namespace: Namespace) -> list[int]:
    """The zones of the connections that a namespace tracks, but for zone 0, which is not told. OSError where it tells nothing."""
    found = set[int]()
    with namespace.run(Socket, NETLINK_NETFILTER) as socket:
        for rows in socket.dump_steps(GET, GENERIC.pack(AF_UNSPEC, 0, 0)):
            for _, payload in rows:
                if ZONE_HEAD in payload:  # most have none, and are not gone through for it
                    zone = find_attribute(payload, ZONE, GENERIC.size)
                    found |= {int.from_bytes(zone, "big")} if zone else set()
    return sorted(found)

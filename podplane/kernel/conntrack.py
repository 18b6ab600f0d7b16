"""Connection tracking: who talks through Services, and to whom a connection without an end (UDP, SCTP) goes that is gone.

An entry of the latter lives as long as its client goes on sending, and sends it to nobody. When it is deleted, the next packet is the
first of a new connection, and an endpoint is chosen for it.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection, Mapping

from podplane.kernel.netlink import Message, Socket, attribute, parse_attributes
from podplane.kernel.rtnl.decode import ip_from
from podplane.services.report import Flow
from podplane.state.value import IPAddress

NETLINK_NETFILTER = 12
CTNETLINK = 1 << 8
GET, DELETE = CTNETLINK | 1, CTNETLINK | 2
GENERIC = struct.Struct(">BBH")
"""struct nfgenmsg: family, version, resource."""
AF_UNSPEC = 0
ORIGINAL, REPLY = 1, 2
TUPLE_IP, TUPLE_PROTO = 1, 2
V4_SOURCE, V4_DESTINATION, V6_SOURCE, V6_DESTINATION = 1, 2, 3, 4
PROTO_NUMBER, PROTO_SOURCE_PORT, PROTO_DESTINATION_PORT = 1, 2, 3
STATUS, TRANSLATED = 3, 1 << 5
"""CTA_STATUS, IPS_DST_NAT."""
ORIGINAL_COUNTERS, REPLY_COUNTERS, PACKETS, BYTES = 9, 10, 1, 2
"""Counted with net.netfilter.nf_conntrack_acct."""
PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
WITHOUT_END = (17, 132)
NESTED = 1 << 15

Target = tuple[IPAddress, int]


class Conntrack:
    """The table of the namespace in which `socket` was opened."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def translated(self) -> list[Flow]:
        """The connections that were translated to another destination."""
        rows = self._socket.dump(GET, GENERIC.pack(AF_UNSPEC, 0, 0))
        found = (_flow(parse_attributes(content, GENERIC.size)) for _, content in rows)
        return [flow for flow in found if flow is not None]

    def forget(self, targets: Collection[Target]) -> int:
        """Delete the UDP and SCTP connections that were translated to these; how many those were."""
        messages = []
        for _, content in self._socket.dump(GET, GENERIC.pack(AF_UNSPEC, 0, 0)):
            parts = parse_attributes(content, GENERIC.size)
            if REPLY in parts and _source(parts[REPLY]) in targets:
                header = GENERIC.pack(content[0], 0, 0)
                body = header + attribute(ORIGINAL | NESTED, parts[ORIGINAL])
                messages.append(Message(DELETE, 0, body, "delete a tracked connection"))
        refused = self._socket.request(messages)  # one that ended by itself meanwhile
        return len(messages) - len(refused)


def _flow(parts: Mapping[int, bytes]) -> Flow | None:
    """A connection as a flow; None for one that goes where it was sent, or has no ports."""
    if not {ORIGINAL, REPLY, STATUS} <= parts.keys() or not int.from_bytes(parts[STATUS], "big") & TRANSLATED:
        return None
    original, reply = parse_attributes(parts[ORIGINAL]), parse_attributes(parts[REPLY])
    asked, answering = parse_attributes(original[TUPLE_PROTO]), parse_attributes(reply[TUPLE_PROTO])
    number = asked[PROTO_NUMBER][0]
    if PROTO_DESTINATION_PORT not in asked or number not in PROTOCOLS:
        return None
    ip, from_ip = parse_attributes(original[TUPLE_IP]), parse_attributes(reply[TUPLE_IP])
    sums = [parse_attributes(parts[kind]) for kind in (ORIGINAL_COUNTERS, REPLY_COUNTERS) if kind in parts]
    packets, octets = (sum(int.from_bytes(one.get(kind, b""), "big") for one in sums) for kind in (PACKETS, BYTES))
    return Flow(
        PROTOCOLS[number],
        ip_from(ip.get(V4_DESTINATION) or ip[V6_DESTINATION]),
        int.from_bytes(asked[PROTO_DESTINATION_PORT], "big"),
        ip_from(from_ip.get(V4_SOURCE) or from_ip[V6_SOURCE]),
        int.from_bytes(answering[PROTO_SOURCE_PORT], "big"),
        packets,
        octets,
    )


def _source(content: bytes) -> Target | None:
    """Who answers, as (address, port); None for what has an end of its own."""
    parts = parse_attributes(content)
    ip, proto = parse_attributes(parts[TUPLE_IP]), parse_attributes(parts[TUPLE_PROTO])
    if proto[PROTO_NUMBER][0] not in WITHOUT_END:
        return None
    port = int.from_bytes(proto[PROTO_SOURCE_PORT], "big")
    if V4_SOURCE in ip:
        return ipaddress.IPv4Address(ip[V4_SOURCE]), port
    return ipaddress.IPv6Address(ip[V6_SOURCE]), port

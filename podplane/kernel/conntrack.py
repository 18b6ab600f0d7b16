"""Connection tracking: connections without an end of their own (UDP, SCTP) that were translated to somebody who is gone.

Such an entry lives as long as its client goes on sending, and sends it to nobody. When it is deleted, the next packet is the first of
a new connection, and an endpoint is chosen for it.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection

from podplane.kernel.netlink import Message, Socket, attribute, parse_attributes
from podplane.state.value import IPAddress

NETLINK_NETFILTER = 12
CTNETLINK = 1 << 8
GET, DELETE = CTNETLINK | 1, CTNETLINK | 2
GENERIC = struct.Struct(">BBH")
"""struct nfgenmsg: family, version, resource."""
AF_UNSPEC = 0
ORIGINAL, REPLY = 1, 2
TUPLE_IP, TUPLE_PROTO = 1, 2
V4_SOURCE, V6_SOURCE = 1, 3
PROTO_NUMBER, PROTO_SOURCE_PORT = 1, 2
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

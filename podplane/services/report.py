"""What a node does for Services, in words for its users. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from podplane.services.tables import NAME
from podplane.state.nft import Element
from podplane.state.value import IPAddress, Value


class Flow(NamedTuple):
    """A tracked connection that was translated: to where it was sent, and to where it goes; what passed in both directions."""

    protocol: str
    address: IPAddress
    port: int
    target: IPAddress
    target_port: int
    packets: int
    bytes: int


class Traffic(msgspec.Struct, gc=False):
    """All tracked connections from one frontend to one endpoint."""

    address: str
    port: int
    protocol: str
    endpoint: str
    endpoint_port: int
    connections: int = 0
    packets: int = 0
    bytes: int = 0


class Frontend(msgspec.Struct, gc=False):
    """An address and port that leads to a group of endpoints, or, with none, is refused."""

    address: str
    port: int
    protocol: str
    group: str


class Description(msgspec.Struct):
    """One Service on one node: its frontends, and the endpoints of each group as `address port`, those of session affinity too."""

    frontends: list[Frontend]
    groups: dict[str, list[tuple[str, int]]]


def traffic(flows: Iterable[Flow]) -> list[Traffic]:
    """The sums."""
    sums: dict[tuple[object, ...], Traffic] = {}
    for flow in flows:
        key = flow[:5]
        if key not in sums:
            sums[key] = Traffic(str(flow.address), flow.port, flow.protocol, str(flow.target), flow.target_port)
        total = sums[key]
        total.connections += 1
        total.packets += flow.packets
        total.bytes += flow.bytes
    return list(sums.values())


def described(values: Iterable[Value]) -> Description:
    """A Service's fragment in words."""
    frontends: list[Frontend] = []
    groups: dict[str, list[tuple[str, int]]] = {}
    for value in values:
        match value:
            case Element(table=table, set="frontends4" | "frontends6" | "refused4" | "refused6", key=(ip, protocol, port)):
                if table == NAME:
                    group = value.comment if value.data is not None else ""
                    frontends.append(Frontend(str(ip), int(str(port)), str(protocol), group))
            case Element(set="endpoints4" | "endpoints6" | "targets4" | "targets6", data=(ip, port)):
                groups.setdefault(value.comment, []).append((str(ip), int(str(port))))
    return Description(frontends, groups)

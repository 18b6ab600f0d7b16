"""What a node does for Services, in words for its users. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from podplane.services import tables
from podplane.services.rules import FRONTENDS
from podplane.services.tables import NAME
from podplane.state.conntrack import Connection
from podplane.state.desired import Desired
from podplane.state.nft import Element
from podplane.state.value import Value

FRONTEND_SETS = (FRONTENDS, "refused")
"""Where a Service's frontends are: those with endpoints, and those without."""


class Traffic(msgspec.Struct, gc=False):
    """All tracked connections from one frontend to one endpoint; `service` says whose frontend it is now, "" when it is nobody's."""

    address: str
    port: int
    protocol: str
    endpoint: str
    endpoint_port: int
    service: str = ""
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


def traffic(connections: Iterable[Connection], desired: Desired) -> list[Traffic]:
    """The sums, and whose they are by what the node serves (`desired`)."""
    sums: dict[tuple[object, ...], Traffic] = {}
    for connection in connections:
        key = connection[:5]
        if key not in sums:
            ends = (
                str(connection.address),
                connection.port,
                connection.protocol,
                str(connection.target),
                connection.target_port,
            )
            sums[key] = Traffic(*ends, service=_service_of(connection, desired))
        total = sums[key]
        total.connections += 1
        total.packets += connection.packets
        total.bytes += connection.bytes
    return list(sums.values())


def _service_of(connection: Connection, desired: Desired) -> str:
    """The Service that has this frontend: an address that was another one's before has connections of then."""
    key = (connection.address, connection.protocol, connection.port)
    for kind in FRONTEND_SETS:
        for owner in desired.owners(tables.element(kind, connection.address.version, key).identity):
            return owner.partition("/")[2]
    return ""


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

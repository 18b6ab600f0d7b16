"""What a node does for Services, for its users. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from podplane.services.feature import ServicesMemory
from podplane.services.model import ServiceTable
from podplane.state.conntrack import Connection
from podplane.state.conntrack import Frontend as Key


class Traffic(msgspec.Struct, gc=False):
    """All tracked connections from one frontend to one endpoint; `service` has the frontend now ("": no Service has)."""

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
    """An address and port that leads to a group of endpoints; with no group, connections are refused."""

    address: str
    port: int
    protocol: str
    group: str


class Description(msgspec.Struct):
    """One Service on one node: its frontends, and the endpoints of each group as `address port`."""

    frontends: list[Frontend]
    groups: dict[str, list[tuple[str, int]]]


def traffic(connections: Iterable[Connection], memory: ServicesMemory) -> list[Traffic]:
    """The sums of connections, packets and bytes by frontend and endpoint."""
    sums: dict[tuple[object, ...], Traffic] = {}
    for one in connections:
        total = sums.get(one[:5])
        if total is None:
            service = memory.holder(Key(one.protocol, one.address, one.port))
            ends = (str(one.address), one.port, one.protocol, str(one.target), one.target_port)
            total = sums[one[:5]] = Traffic(*ends, service=service)
        total.connections += 1
        total.packets += one.packets
        total.bytes += one.bytes
    return list(sums.values())


def described(table: ServiceTable) -> Description:
    """A Service's table in words."""
    frontends = [
        Frontend(str(one.key.ip), one.key.port, one.key.protocol, "" if one.is_refused else one.group.name)
        for one in table.frontends
    ]
    groups: dict[str, list[tuple[str, int]]] = {}
    for group in table.groups():
        if group.targets:
            groups.setdefault(group.name, []).extend((str(target.ip), target.port) for target in group.targets)
    return Description(frontends, groups)

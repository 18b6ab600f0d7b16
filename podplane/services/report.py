"""What a node does for Services, for its users. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from podplane.model.answers import Description, Frontend, Traffic
from podplane.services.feature import ServicesMemory
from podplane.services.model import ServiceTable
from podplane.state.conntrack import Connection
from podplane.state.conntrack import Frontend as Key


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

"""Which link leads to the other nodes: found among what the kernel holds. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from podplane.machine.errors import MachineError
from podplane.state.network import Address, Link, Route
from podplane.state.value import Value


class Uplink(msgspec.Struct, frozen=True):
    """A link, the largest packet that it carries, in bytes, and the networks of its addresses: whoever is in one of them is on the link."""

    name: str
    mtu: int
    subnets: tuple[str, ...] = ()


def find(values: Iterable[Value], node_ips: Collection[str], name: str = "") -> Uplink:
    """The link of this name; or else that with one of the node's addresses, the first of these before the others; or else that of a
    default route. MachineError when there is none, or more than one that has an address."""
    found = list(values)
    link = _found(found, node_ips, name)
    return msgspec.structs.replace(link, subnets=tuple(_subnets(found, link.name)))


def _subnets(found: Iterable[Value], link: str) -> Iterator[str]:
    for one in found:
        if isinstance(one, Address) and one.link == link and not one.ip.is_link_local:
            yield str(ipaddress.ip_network((one.ip, one.prefix_length), strict=False))


def _found(found: Sequence[Value], node_ips: Collection[str], name: str) -> Uplink:
    links = {one.name: one for one in found if isinstance(one, Link)}
    if name:
        return _uplink(links, name, "the configuration names it")
    for ip in map(ipaddress.ip_address, node_ips):
        holders = sorted({one.link for one in found if isinstance(one, Address) and one.ip == ip})
        if len(holders) > 1:
            raise MachineError(f"the address {ip} of this node is on {' and '.join(holders)}: name one as `network.uplink`")
        if holders:
            return _uplink(links, holders[0], f"it has the node's address {ip}")
    if node_ips:
        raise MachineError(
            f"no link of this machine has an address of its Node ({', '.join(node_ips)}): "
            "give the Node's name, or the link as `network.uplink`"
        )
    for one in found:
        if isinstance(one, Route) and one.destination.prefixlen == 0 and one.link:
            return _uplink(links, one.link, "a default route leads there")
    raise MachineError("this machine has no default route: name the link to the other nodes as `network.uplink`")


def _uplink(links: dict[str, Link], name: str, why: str) -> Uplink:
    if name not in links:
        raise MachineError(f"there is no link {name} ({why})")
    return Uplink(name, links[name].mtu or 1500)

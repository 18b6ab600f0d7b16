"""rtnetlink of a fake namespace: links with their peers, and what depends on what, as the kernel has it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import msgspec

from podplane.kernel.errors import KernelError, NotFound, from_errno
from podplane.kernel.fakes.objects import Objects
from podplane.kernel.rtnl.table import RANK
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Route, Rule
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, IPAddress, Value


class FakeRtnl:
    """One namespace's rtnetlink; `find` gives the namespaces that veth peers are put in."""

    def __init__(self, objects: Objects, find: Callable[[str], Objects]) -> None:
        self._objects = objects
        self._find = find

    def close(self) -> None:
        """Nothing."""

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Removals first, then what is new or changed, links before the rest; each operation for itself."""
        report = Report()
        gone = sorted((o for o in operations if o.new is None), key=lambda o: -RANK[type(o.value)])
        put = sorted((o for o in operations if o.new is not None), key=lambda o: (RANK[type(o.value)], _has_master(o)))
        for operation in (*gone, *put):
            try:
                if operation.new is None:
                    self._remove(_local(operation.value))
                else:
                    self._put(operation.old, _local(operation.new))
            except KernelError as error:
                report.failed.append(Failure(operation, error))
            else:
                report.applied.append(operation)
        return report

    def _remove(self, value: Value) -> None:
        if isinstance(value, Link):
            if value.kind:
                _delete_link(self._objects, value.name)
        else:
            self._objects.network.pop(value.identity, None)

    def _link(self, name: str) -> Link:
        for value in self._objects.network.values():
            if isinstance(value, Link) and value.name == name:
                return value
        raise NotFound(f"link {name}", "No such device", errno.ENODEV)

    def _put(self, old: Value | None, value: Value) -> None:
        network = self._objects.network
        match value:
            case Link():
                self._put_link(value)
                return
            case Address() | Neighbour() | Fdb() | Proxy():
                self._link(value.link)
            case Route():
                self._check_route(value)
                if old is None and value.identity in network:
                    raise from_errno(f"route {value.destination}", errno.EEXIST)
            case Rule():
                if old is None and value.identity in network:
                    raise from_errno(f"rule {value.priority}", errno.EEXIST)
        network[value.identity] = value

    def _put_link(self, link: Link) -> None:
        network = self._objects.network
        if link.master:
            self._link(link.master)
        present = network.get(link.identity)
        if not link.kind:
            before = self._link(link.name)
            kept = {"kind": before.kind, "mac": link.mac or before.mac, "mtu": link.mtu or before.mtu}
            network[link.identity] = msgspec.structs.replace(link, peer=None, **kept)
            return
        if present is None and link.peer is not None:
            self._make_peer(link)
        network[link.identity] = msgspec.structs.replace(link, peer=None)

    def _make_peer(self, link: Link) -> None:
        assert link.peer is not None
        there = self._find(link.peer.netns) if link.peer.netns else self._objects
        far = Link(name=link.peer.name, kind="veth", up=False, mac=link.peer.mac, mtu=link.peer.mtu)
        if far.identity in there.network:
            raise from_errno(f"create link {link.name}", errno.EEXIST)
        there.network[far.identity] = far
        there.peers[far.name] = (self._objects, link.name)
        self._objects.peers[link.name] = (there, far.name)

    def _check_route(self, route: Route) -> None:
        if route.link and not self._link(route.link).up:
            raise from_errno(f"route {route.destination}", errno.ENETDOWN)
        if route.gateway is None or route.onlink:
            return
        if not any(_reaches(value, route.gateway) for value in self._objects.network.values()):
            raise from_errno(f"route {route.destination}", errno.ENETUNREACH, "Nexthop has invalid gateway")

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """What this namespace holds with the marks of the owner."""
        return {identity: value for identity, value in self._objects.network.items() if _owned(value, owner)}


def _has_master(operation: Operation) -> bool:
    return bool(getattr(operation.value, "master", ""))


def _local(value: Value) -> Value:
    """The value as its own namespace knows it."""
    return msgspec.structs.replace(value, netns="")


def _reaches(value: Value, gateway: IPAddress) -> bool:
    if not isinstance(value, Address) or value.ip.version != gateway.version:
        return False
    shift = value.ip.max_prefixlen - value.prefix_length
    return int(value.ip) >> shift == int(gateway) >> shift


def _delete_link(objects: Objects, name: str) -> None:
    """The link, what lies on it, its sysctls, and the other end of a veth pair."""
    for identity, value in list(objects.network.items()):
        if name in (getattr(value, "link", ""), value.name if isinstance(value, Link) else ""):
            del objects.network[identity]
    for sysctl in [sysctl for sysctl in objects.sysctls if f".{name.replace('.', '/')}." in sysctl]:
        del objects.sysctls[sysctl]
    there, far = objects.peers.pop(name, (None, ""))
    if there is not None and there.peers.pop(far, None) is not None:
        _delete_link(there, far)


def _owned(value: Value, owner: Ownership) -> bool:
    match value:
        case Link():
            return value.name in owner.links or value.name.startswith(owner.link_prefixes or ("\0",))
        case Address() | Fdb():
            return value.link in owner.links or value.link.startswith(owner.link_prefixes or ("\0",))
        case Neighbour():
            links = owner.links | owner.neighbour_links
            return value.link in links or value.link.startswith(owner.link_prefixes or ("\0",))
        case Route() | Rule() | Proxy():
            return value.protocol == owner.route_protocol
    return False

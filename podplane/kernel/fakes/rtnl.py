"""rtnetlink of a fake namespace: links with their peers, and what depends on what, as the kernel has it.

It refuses what the kernel refuses: creating what is there (EEXIST), deleting what is not (ENODEV, ESRCH, ENOENT, EADDRNOTAVAIL).
What podplane makes of such refusals is the same as for the real kernel (`rtnl.conflicts`).
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterable, Sequence

import msgspec

from podplane.kernel.errors import KernelError, NotFound, from_errno
from podplane.kernel.fakes.objects import Objects
from podplane.kernel.rtnl.conflicts import GONE, ForeignObject, blocking_link, creation_error, foreign_error
from podplane.kernel.rtnl.matching import must_recreate
from podplane.kernel.rtnl.reading import has_protocol
from podplane.kernel.slices import ordered
from podplane.state.network import PORT_MODES, QDISC_HANDLE, Address, Fdb, Link, Neighbour, Proxy, Qdisc, Redirect, Route, Rule
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership, is_foreign, is_marked
from podplane.state.value import Identity, IPAddress, Value

MISSING: dict[type[Value], int] = {
    Address: errno.EADDRNOTAVAIL,
    Route: errno.ESRCH,
    Neighbour: errno.ENOENT,
    Proxy: errno.ENOENT,
    Fdb: errno.ENOENT,
    Rule: errno.ENOENT,
    Qdisc: errno.ENOENT,
    Redirect: errno.ENOENT,
}
"""How the kernel refuses to delete what is not there."""


class FakeRtnl:
    """One namespace's rtnetlink; `find` gives the namespaces that veth peers are put in."""

    def __init__(self, objects: Objects, find: Callable[[str], Objects]) -> None:
        self._objects = objects
        self._find = find
        self._blocked: dict[str, KernelError] = {}

    @property
    def port(self) -> int:
        """No port: a fake monitor is told of nothing that it should leave out."""
        return 0

    def close(self) -> None:
        """Nothing."""

    def apply(self, operations: Sequence[Operation]) -> Report:
        """In their order (`slices`); each operation for itself."""
        report = Report()
        self._blocked = {name: error for name, error in self._blocked.items() if self._is_blocked(name)}
        for operation in itertools.chain(*ordered(operations)):
            try:
                if operation.new is None:
                    self._remove(_local(operation.value))
                else:
                    self._put(operation, report)
            except KernelError as error:
                report.failed.append(Failure(operation, error))
                if isinstance(error, ForeignObject) and isinstance(operation.value, Link):
                    self._blocked[operation.value.name] = error
            else:
                report.applied.append(operation)
        return report

    def _is_blocked(self, name: str) -> bool:
        present = self._objects.network.get(Link(name=name).identity)
        return isinstance(present, Link) and not is_marked(present.alias)

    def _remove(self, value: Value) -> None:
        """What is gone, or somebody else's, is no error (see `rtnl.conflicts`)."""
        if blocking_link(value, self._blocked):
            return
        try:
            self.delete(value)
        except KernelError as error:
            if error.errno not in GONE:
                raise

    def delete(self, value: Value) -> None:
        """Delete as the kernel does: NotFound when there is no such object."""
        present = self._objects.network.get(value.identity)
        if isinstance(value, Link):
            if not value.kind:
                return
            if present is None or is_foreign(value, present):
                raise from_errno(f"delete link {value.name}", errno.ENODEV)
            self._objects.delete_link(value.name)
            return
        if present is None or is_foreign(value, present) or (isinstance(value, Fdb) and value != present):
            raise from_errno(f"delete {value}", MISSING[type(value)])
        self._objects.delete(value)

    def _link(self, name: str) -> Link:
        value = self._objects.network.get(Link(name=name).identity)
        if not isinstance(value, Link):
            raise NotFound(f"link {name}", "No such device", errno.ENODEV)
        return value

    def _put(self, operation: Operation, report: Report) -> None:
        value = _local(operation.value)
        network = self._objects.network
        if name := blocking_link(value, self._blocked):
            raise self._blocked[name]
        if isinstance(value, Link):
            self._put_link(operation, value, report)
            return
        if isinstance(value, Address | Neighbour | Fdb | Proxy | Qdisc | Redirect):
            self._link(value.link)
        if isinstance(value, Redirect):
            self._link(value.to)
        if isinstance(value, Route):
            self._check_route(value)
        present = network.get(value.identity)
        if present is not None and not isinstance(value, Redirect):
            if operation.old is None:
                error = creation_error(value, present)
                if error is not None:
                    raise error
                return
            if is_foreign(value, present):
                raise foreign_error(value, present)
        network[value.identity] = value

    def _put_link(self, operation: Operation, link: Link, report: Report) -> None:
        if link.master:
            self._link(link.master)
        old, present = operation.old, self._objects.network.get(link.identity)
        if not link.kind or old is not None:
            before = self._link(link.name)
            if link.kind and is_foreign(link, before):
                raise foreign_error(link, before)
            if isinstance(old, Link) and must_recreate(old, link):
                self._objects.delete_link(link.name)
                report.recreated.append(link)
                self._create(link)
            else:
                self._set(link, before)
        elif present is None:
            self._create(link)
        elif (error := creation_error(link, present)) is not None:
            raise error

    def _set(self, link: Link, before: Link) -> None:
        changes: dict[str, object] = {
            "kind": before.kind,
            "mac": link.mac or before.mac,
            "mtu": link.mtu or before.mtu,
            "alias": link.alias or before.alias,
            "vxlan": before.vxlan,
            "gre": before.gre,
            "peer": None,
            "master": link.master if link.kind else before.master,
        }
        for mode, default in PORT_MODES.items():
            if not link.master:
                changes[mode] = default if link.kind else getattr(before, mode)
        self._objects.put_link(msgspec.structs.replace(link, **changes))

    def _create(self, link: Link) -> None:
        if link.peer is not None:
            self._make_peer(link)
        modes = {} if link.master else PORT_MODES
        self._objects.put_link(msgspec.structs.replace(link, peer=None, **modes))

    def _make_peer(self, link: Link) -> None:
        assert link.peer is not None
        there = self._find(link.peer.netns) if link.peer.netns else self._objects
        far = Link(name=link.peer.name, kind="veth", up=False, mac=link.peer.mac, mtu=link.peer.mtu)
        if far.identity in there.network or (there is self._objects and far.name == link.name):
            raise from_errno(f"create link {link.name}", errno.EEXIST)
        there.put_link(far)
        there.peers[far.name] = (self._objects, link.name)
        self._objects.peers[link.name] = (there, far.name)

    def _check_route(self, route: Route) -> None:
        if route.link and not self._link(route.link).up:
            raise from_errno(f"route {route.destination}", errno.ENETDOWN)
        if route.gateway is None or route.onlink or (route.link and route.gateway.version == 6 and route.gateway.is_link_local):
            return
        if not any(_reaches(value, route.gateway) for value in tuple(self._objects.network.values())):
            raise from_errno(f"route {route.destination}", errno.ENETUNREACH, "Nexthop has invalid gateway")

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """What this namespace holds with the marks of the owner."""
        own = self._objects.own_links(owner)
        return {i: v for i, v in tuple(self._objects.network.items()) if _owned(v, own, owner)}

    def read_proxies(self, owner: Ownership) -> dict[Identity, Value]:
        """The proxies of this owner."""
        return {identity: value for identity, value in self.read(owner).items() if isinstance(value, Proxy)}

    def activate(self, links: Iterable[str]) -> None:
        """Here a link sends as soon as it is up."""

    def not_local(self, ips: Iterable[IPAddress]) -> list[IPAddress]:
        """None: here an address is there at once."""
        return []

    def read_all(self) -> dict[Identity, Value]:
        """Everything that this namespace holds."""
        return dict(self._objects.network)


def _local(value: Value) -> Value:
    """The value as its own namespace knows it."""
    return msgspec.structs.replace(value, netns="") if value.netns else value


def _reaches(value: Value, gateway: IPAddress) -> bool:
    if not isinstance(value, Address) or value.ip.version != gateway.version:
        return False
    shift = value.ip.max_prefixlen - value.prefix_length
    return int(value.ip) >> shift == int(gateway) >> shift


def _owned(value: Value, own: set[str], owner: Ownership) -> bool:
    match value:
        case Link():
            return value.name in own
        case Address() | Fdb():
            return value.link in own
        case Qdisc() | Redirect():
            return value.link in own and getattr(value, "handle", QDISC_HANDLE) == QDISC_HANDLE
    return has_protocol(value, owner.route_protocol)

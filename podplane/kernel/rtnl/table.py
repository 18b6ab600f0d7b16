"""Operations on one network namespace as batches of messages, and reading back what is podplane's there.

An apply is two sends at most in the ordinary case: removals, from what stands on links down to the links, then
everything new, from links up. New links get their index from us (`ifi_index` of the request), so what lies on them goes
in the same send, without a look-up in between.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from podplane.kernel.errors import KernelError, NotFound, from_errno
from podplane.kernel.netlink import Message, Refusal, Socket, u32
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import decode, encode
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Route, Rule
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value

T = TypeVar("T", bound=Value)
FIRST_INDEX = 1000
"""Indexes that we give begin here, far from those that the kernel counts up from 1."""
LOOPBACK_INDEX = 1
"""LOOPBACK_IFINDEX: the same in every network namespace."""
DELETE_GROUP = 0x7070_0001
GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO, errno.ENETUNREACH})
"""A deletion that is refused so has nothing left to delete."""
RANK: dict[type[Value], int] = {Link: 0, Address: 1, Neighbour: 2, Fdb: 2, Route: 3, Proxy: 3, Rule: 4}


class Rtnl:
    """rtnetlink of the namespace in which `socket` was opened; `namespace_fd` finds the namespaces of veth peers."""

    def __init__(self, socket: Socket, namespace_fd: Callable[[str], int]) -> None:
        self._socket = socket
        self._namespace_fd = namespace_fd
        self._indexes: dict[str, int] = {"lo": LOOPBACK_INDEX}
        self._next_index = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def index(self, name: str) -> int:
        """The index of a link. NotFound when there is none of this name."""
        if name not in self._indexes:
            try:
                rows = self._socket.dump(c.RTM_GETLINK, encode.get_link(name), flags=0)
            except OSError as error:
                raise NotFound(f"link {name}", error.strerror or "", error.errno or errno.ENODEV) from None
            self._indexes[name] = decode.link_name(rows[0][1])[0]
        return self._indexes[name]

    def _new_index(self) -> int:
        """An index that nobody has: one more than the greatest, which is asked for once."""
        if not self._next_index:
            rows = self._socket.dump(c.RTM_GETLINK, c.LINK.pack(0, 0, 0, 0, 0))
            self._next_index = max([FIRST_INDEX - 1, *(decode.link_name(p)[0] for _, p in rows)])
        self._next_index += 1
        return self._next_index

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out operations of this namespace: removals first, then what is new or changed, links before the rest."""
        report = Report()
        self._remove([o for o in operations if o.new is None], report)
        put = [o for o in operations if o.new is not None]
        put.sort(key=lambda o: (RANK[type(o.value)], bool(getattr(o.value, "master", ""))))
        self._put(put, report)
        return report

    def _remove(self, operations: list[Operation], report: Report) -> None:
        operations.sort(key=lambda o: -RANK[type(o.value)])
        links = [o.value for o in operations if isinstance(o.value, Link) and o.value.kind]
        grouped = DELETE_GROUP if len(links) > 1 else 0
        batch: list[tuple[Operation, Message]] = []
        for operation in operations:
            try:
                batch += [(operation, message) for message in self._removal(operation.value, grouped)]
            except NotFound:
                continue  # its link is gone, and so is it
        refused = self._socket.request([message for _, message in batch])
        if grouped:
            refused += [r for r in self._socket.request([encode.delete_group(grouped)]) if r.errno not in GONE]
        for link in links:
            self._indexes.pop(link.name, None)
        self._report(operations, batch, [r for r in refused if r.errno not in GONE], report)

    def _removal(self, value: Value, grouped: int) -> list[Message]:
        if isinstance(value, Link):
            if not value.kind:
                return []
            index = self.index(value.name)
            return [encode.set_group(index, value.name, grouped) if grouped else encode.delete_link(index, value.name)]
        return [self._message(value, delete=True)]

    def _put(self, operations: list[Operation], report: Report) -> None:
        batch: list[tuple[Operation, Message]] = []
        failed: list[Failure] = []
        for operation in operations:
            try:
                batch += [(operation, message) for message in self._arrival(operation)]
            except KernelError as error:
                failed.append(Failure(operation, error))
        refused = self._socket.request([message for _, message in batch])
        refused = self._settle_existing_links(batch, refused)
        gone = {id(f.operation) for f in failed}
        self._report([o for o in operations if id(o) not in gone], batch, refused, report)
        report.failed += failed

    def _settle_existing_links(self, batch: list[tuple[Operation, Message]], refused: list[Refusal]) -> list[Refusal]:
        """A link that was there already is set as wanted; what was said about its supposed index is said again."""
        names = {
            batch[r.index][0].value.name  # type: ignore[attr-defined]  # a link, by the message's kind
            for r in refused
            if r.errno == errno.EEXIST and batch[r.index][1].type == c.RTM_NEWLINK
        }
        if not names:
            return refused
        for name in names:
            self._indexes.pop(name, None)
        operations = dict.fromkeys(o for o, _ in batch)
        again = [o for o in operations if names & {getattr(o.value, "name", ""), getattr(o.value, "link", "")}]
        redo = set(map(id, again))
        rest = [r for r in refused if id(batch[r.index][0]) not in redo]
        try:
            second = [(o, m) for o in again for m in self._arrival(Operation(o.new, o.new))]
        except KernelError:  # no link of that name: the one that was there already is the far end's
            return refused
        offset = len(batch)
        batch += [(next(o for o in again if o.new is n.new), m) for n, m in second]
        return rest + [Refusal(offset + r.index, r.errno, r.text) for r in self._socket.request([m for _, m in second])]

    def _arrival(self, operation: Operation) -> list[Message]:
        value = operation.value
        if isinstance(value, Link):
            return self._link(operation.old, value)
        return [self._message(value, replace=operation.old is not None)]

    def _link(self, old: Value | None, link: Link) -> list[Message]:
        messages = []
        if link.kind and isinstance(old, Link) and old.kind not in ("", link.kind):
            messages.append(encode.delete_link(self.index(link.name), link.name))
            old = None
        if link.kind and old is None:
            self._indexes[link.name] = own = self._new_index()
            messages.append(encode.new_link(link, own, self.index, self._namespace_fd))
        else:
            messages.append(encode.set_link(link, self.index(link.name), self.index))
        later = encode.set_later(link, self.index(link.name))
        return messages if later is None else [*messages, later]

    def _message(self, value: Value, *, delete: bool = False, replace: bool = False) -> Message:
        flags = 0 if delete else encode.PUT
        match value:
            case Address():
                return encode.address(value, self.index, c.RTM_DELADDR if delete else c.RTM_NEWADDR, flags)
            case Neighbour():
                return encode.neighbour(value, self.index, c.RTM_DELNEIGH if delete else c.RTM_NEWNEIGH, flags)
            case Proxy():
                return encode.proxy(value, self.index, c.RTM_DELNEIGH if delete else c.RTM_NEWNEIGH, flags)
            case Fdb():
                return encode.fdb(value, self.index, c.RTM_DELNEIGH if delete else c.RTM_NEWNEIGH, flags)
            case Route():
                kind = c.RTM_DELROUTE if delete else c.RTM_NEWROUTE
                return encode.route(value, self.index, kind, flags if replace or delete else encode.CREATE)
            case Rule():
                return encode.rule(value, c.RTM_DELRULE if delete else c.RTM_NEWRULE, 0 if delete else encode.CREATE)
        raise KernelError(f"{value}", "rtnetlink knows no such value")

    @staticmethod
    def _report(
        operations: list[Operation], batch: list[tuple[Operation, Message]], refused: list[Refusal], report: Report
    ) -> None:
        """Every operation is applied, or failed with the reason of its first refused message."""
        reasons: dict[int, Failure] = {}
        for refusal in refused:
            operation, message = batch[refusal.index]
            error = from_errno(message.name, refusal.errno, refusal.text)
            reasons.setdefault(id(operation), Failure(operation, error))
        report.failed += reasons.values()
        report.applied += [o for o in operations if id(o) not in reasons]

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """What the kernel holds in this namespace with the marks of this owner."""
        rows = [payload for _, payload in self._socket.dump(c.RTM_GETLINK, c.LINK.pack(0, 0, 0, 0, 0))]
        names = dict(decode.link_name(payload) for payload in rows)
        own = {i: name for i, name in names.items() if name in owner.links or name.startswith(owner.link_prefixes or ("\0",))}
        near = own | {i: name for i, name in names.items() if name in owner.neighbour_links}
        found: list[Value | None] = [decode.link(p, names) for p in rows if decode.link_name(p)[0] in own]
        found += [decode.address(p, own) for p in self._dump(c.RTM_GETADDR, c.ADDRESS.pack(0, 0, 0, 0, 0))]
        for family in (c.AF_INET, c.AF_INET6):
            query = c.ROUTE.pack(family, 0, 0, 0, 0, owner.route_protocol, 0, 0, 0)
            found += [decode.route(p, names) for p in self._dump(c.RTM_GETROUTE, query)]
            query = c.NEIGHBOUR.pack(family, 0, 0, 0, 0)
            found += [decode.neighbour(p, near) for p in self._dump(c.RTM_GETNEIGH, query)]
            query = c.NEIGHBOUR.pack(family, 0, 0, c.NTF_PROXY, 0)
            found += [decode.proxy(p, names) for p in self._dump(c.RTM_GETNEIGH, query)]
        found += self._forwarding_entries([v for v in found if isinstance(v, Link)], own)
        found += [decode.rule(p) for p in self._dump(c.RTM_GETRULE, c.RULE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))]
        return {v.identity: v for v in found if v is not None and self._owned(v, owner)}

    def _forwarding_entries(self, links: Sequence[Link], own: Mapping[int, str]) -> list[Fdb | None]:
        """Those of owned VXLAN devices, and those of owned ports in each owned bridge."""
        kinds = {link.name: link.kind for link in links}
        found: list[Fdb | None] = []
        for index, name in own.items():
            if kinds.get(name) == "vxlan":
                query = c.NEIGHBOUR.pack(c.AF_BRIDGE, index, 0, 0, 0)
            elif kinds.get(name) == "bridge":
                query = c.NEIGHBOUR.pack(c.AF_BRIDGE, 0, 0, 0, 0) + u32(c.NDA_MASTER, index)
            else:
                continue
            found += [decode.fdb(p, own) for p in self._dump(c.RTM_GETNEIGH, query)]
        return found

    @staticmethod
    def _owned(value: Value, owner: Ownership) -> bool:
        if isinstance(value, Route | Rule | Proxy):
            return value.protocol == owner.route_protocol
        return True

    def _dump(self, kind: int, query: bytes) -> list[bytes]:
        return [payload for _, payload in self._socket.dump(kind, query)]

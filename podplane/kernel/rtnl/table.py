"""Operations on one network namespace as batches of messages.

An apply is two sends at most in the ordinary case: removals, from what stands on links down to the links, then
everything new, from links up. New links get their index from us (`ifi_index` of the request), so what lies on them goes
in the same send, without a look-up in between. The messages of one operation are never split over two sends: a link
and its mark come together.

Creations are exclusive (NLM_F_EXCL), so that nothing of somebody else is overwritten. Where the kernel knows no exclusive
creation, and before a change or a deletion that would hit whatever is there, the kernel is asked first (`conflicts`).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from podplane.kernel.errors import KernelError, NotFound, from_errno
from podplane.kernel.netlink import BATCH_BYTES, BATCH_MESSAGES, Message, Refusal, Socket
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import decode, encode, reading, traffic_control
from podplane.kernel.rtnl.conflicts import (
    GONE,
    LINK_FIELDS,
    ForeignObject,
    blocking_link,
    creation_error,
    explained,
    foreign_error,
)
from podplane.kernel.rtnl.matching import must_recreate
from podplane.kernel.rtnl.present import Links, Present, local_identity
from podplane.kernel.slices import ordered
from podplane.kernel.text import ip
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Qdisc, Redirect, Route, Rule
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership, is_foreign, is_marked
from podplane.state.value import Identity, IPAddress, Value

DELETE_GROUP = 0x7070_0001
ASK_BEFORE_CREATION: frozenset[type[Value]] = frozenset((Proxy, Rule))
"""The kernel overwrites a proxy in spite of NLM_F_EXCL (neigh_add), and takes two rules that differ in their table only."""
ASK_BEFORE_CHANGE: frozenset[type[Value]] = frozenset((Neighbour, Proxy, Qdisc, Route, Rule))
ASK_BEFORE_DELETION: frozenset[type[Value]] = frozenset((Neighbour, Proxy, Qdisc, Redirect, Rule))
"""The kernel deletes neighbours and proxies whatever their protocol, and a rule only when the message says all that it has."""
ONLY_IF_THERE = (Qdisc, Redirect)
"""The kernel refuses to delete what is not there in words that don't say so (EINVAL)."""

ROUNDS = 3
"""A bridge, a port of it, and what lies on that: so deep can things stand on links that were there already."""

NOT_ENCODED = (KeyError, ValueError, OverflowError, struct.error)
"""A value that can't be said in a message, as of another kind than is known here: it is refused, and nothing else with it."""


class Step(NamedTuple):
    """One message of an operation."""

    operation: Operation
    message: Message


class Refused(NamedTuple):
    """The first message of an operation that the kernel refused, and how."""

    message: Message
    refusal: Refusal

    @property
    def error(self) -> KernelError:
        """The refusal as an error."""
        return from_errno(self.message.name, self.refusal.errno, self.refusal.text)


Refusals = dict[int, Refused]
"""By id() of the operation."""
Errors = dict[int, KernelError]
"""Why operations failed, by id() of the operation."""


class Rtnl:
    """rtnetlink of the namespace in which `socket` was opened; `namespace_fd` finds the namespaces of veth peers."""

    def __init__(self, socket: Socket, namespace_fd: Callable[[str], int]) -> None:
        self._socket = socket
        self._namespace_fd = namespace_fd
        self._links = Links(socket)
        self._present = Present(socket, self._links)
        self._blocked: dict[str, KernelError] = {}

    @property
    def port(self) -> int:
        """The port id that notifications of our own changes carry (nlmsg_pid)."""
        return self._socket.port

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """What the kernel holds in this namespace with the marks of this owner."""
        return reading.owned(self._socket, owner)

    def read_proxies(self, owner: Ownership) -> dict[Identity, Value]:
        """The proxies of this owner."""
        return reading.owned_proxies(self._socket, owner)

    def read_all(self) -> dict[Identity, Value]:
        """All links, addresses, routes and permanent neighbours of this namespace but those that the kernel made itself."""
        return reading.everything(self._socket)

    def activate(self, links: Iterable[str]) -> None:
        """Have the kernel send by these links, which got a carrier just now, before this returns."""
        for name in links:
            reading.await_carrier(self._socket, name)

    def not_local(self, ips: Iterable[IPAddress]) -> list[IPAddress]:
        """Those of these addresses for which packets are not taken yet, though an interface has them."""
        return [ip for ip in ips if not reading.is_local(self._socket, ip)]

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out operations of this namespace, in their order (`slices`)."""
        self._links.clear()  # a name may stand for another link than the last time
        self._blocked = {name: error for name, error in self._blocked.items() if self._is_blocked(name)}
        report = Report()
        gone, put, late = ordered(operations)
        self._report(gone, self._remove(gone), report)
        errors = self._put(put)
        self._report(put, errors, report)
        self._report(late, self._remove(late), report)
        report.recreated += [
            o.new for o in put if isinstance(o.new, Link) and id(o) not in errors and self._is_recreated(o.old, o.new)
        ]
        return report

    @staticmethod
    def _report(operations: list[Operation], errors: Errors, report: Report) -> None:
        if not errors:
            report.applied += operations
            return
        report.failed += [Failure(o, errors[id(o)]) for o in operations if id(o) in errors]
        report.applied += [o for o in operations if id(o) not in errors]

    def _send(self, steps: Sequence[Step]) -> Refusals:
        refused: Refusals = {}
        for part in _sends(steps):
            for refusal in self._socket.request([step.message for step in part]):
                operation, message = part[refusal.index]
                refused.setdefault(id(operation), Refused(message, refusal))
        return refused

    def _what_is_there(self, operations: list[Operation], kinds: frozenset[type[Value]]) -> dict[int, Value]:
        """What the kernel holds at the identities of the operations with such values, by id() of the operation."""
        asked = [o for o in operations if type(o[1] or o[0]) in kinds and _is_marked(o.value)]
        if not asked:
            return {}
        found = self._present.of([o.value for o in asked])
        there = ((o, found.get(local_identity(o.value))) for o in asked)
        return {id(o): value for o, value in there if value is not None}

    def _is_blocked(self, name: str) -> bool:
        """Is there still somebody else's link of a name that one of ours should have?"""
        try:
            return not is_marked(decode.link(self._links.find(name).payload, {}).alias)
        except NotFound:
            return False

    def _block(self, operations: Iterable[Operation], errors: Errors) -> None:
        """Refuse what lies on links that are somebody else's: the first refusal is for the link, the others come with it."""
        for operation in operations if errors else ():
            value, error = operation.value, errors.get(id(operation))
            if isinstance(value, Link) and isinstance(error, ForeignObject):
                self._blocked[value.name] = error
        for operation in operations if self._blocked else ():
            name = blocking_link(operation.value, self._blocked)
            if name:
                errors[id(operation)] = self._blocked[name]

    # Removals.

    def _remove(self, operations: list[Operation]) -> Errors:
        there = self._what_is_there(operations, ASK_BEFORE_DELETION)
        links = [o for o in operations if isinstance(o.value, Link) and o.value.kind]
        group = DELETE_GROUP if len(links) > 1 else 0
        steps: list[Step] = []
        errors: Errors = {}
        for operation in operations:
            present = there.get(id(operation))
            if blocking_link(operation.value, self._blocked):
                continue  # it went with our link
            if present is None and isinstance(operation.value, ONLY_IF_THERE):
                continue
            if present is None or not is_foreign(operation.value, present):
                value = present if isinstance(present, Rule) else operation.value
                try:
                    steps += [Step(operation, message) for message in self._removal(value, group)]
                except NOT_ENCODED as error:
                    errors[id(operation)] = _as_kernel_error(operation, error)
        errors |= {key: one.error for key, one in self._send(steps).items() if one.refusal.errno not in GONE}
        if group and any(isinstance(step.operation.value, Link) for step in steps):
            message = encode.delete_group(group)
            for refusal in self._socket.request([message]):
                if refusal.errno not in GONE:
                    errors |= {id(o): Refused(message, refusal).error for o in links}
        for operation in links:
            self._links.take_back(operation.value.name)  # type: ignore[attr-defined]  # a link
        return errors

    def _removal(self, value: Value, group: int) -> list[Message]:
        """Nothing, where the object is gone: with its link, or because the link of its name is somebody else's."""
        try:
            if isinstance(value, Redirect):
                return [self._redirect_removal(value)]
            if not isinstance(value, Link):
                return [self._message(value, delete=True)]
            if not value.kind:
                return []
            found = self._links.find(value.name)
        except NotFound:
            return []
        if is_foreign(value, decode.link(found.payload, {})):
            return []
        return [encode.set_group(found.number, value.name, group) if group else encode.delete_link(found.number, value.name)]

    def _redirect_removal(self, value: Redirect) -> Message:
        """With the last filter goes the qdisc that it lies in."""
        if self._present.has_only_our_filters(value.link):
            return traffic_control.clsact(value.link, self._links.index, delete=True)
        return traffic_control.delete_redirect(value, self._links.index)

    # Creations and changes.

    def _put(self, operations: list[Operation]) -> Errors:
        errors: Errors = {}
        steps: list[Step] = []
        self._block(operations, errors)
        all_operations = operations
        if errors:
            operations = [o for o in operations if id(o) not in errors]
        there = self._what_is_there([o for o in operations if o.old is None], ASK_BEFORE_CREATION)
        there |= self._what_is_there([o for o in operations if o.old is not None], ASK_BEFORE_CHANGE)
        for operation in operations:
            present = there.get(id(operation)) if there else None
            try:
                if present is None or not self._is_there(operation, present):
                    steps += [Step(operation, message) for message in self._arrival(operation)]
                    if present is not None:
                        steps += self._removal_of_old_rule(operation, present)
            except (KernelError, *NOT_ENCODED) as error:
                errors[id(operation)] = _as_kernel_error(operation, error)
        errors |= self._settle(steps, self._send(steps), ROUNDS)
        self._block(all_operations, errors)
        return errors

    @staticmethod
    def _is_there(operation: Operation, present: Value) -> bool:
        """Is there nothing to do? The error when somebody else's object is in the way."""
        wanted = operation.value
        if operation.old is None:
            error = creation_error(wanted, present)
            if error is not None:
                raise error
            return True
        if is_foreign(wanted, present):
            raise foreign_error(wanted, present)
        return isinstance(wanted, Rule) and wanted == present

    def _removal_of_old_rule(self, operation: Operation, present: Value | None) -> list[Step]:
        """The kernel can't change a rule: the new one is added, then the old one is deleted."""
        if operation.old is None or not isinstance(present, Rule):
            return []
        return [Step(operation, self._message(present, delete=True))]

    def _settle(self, steps: list[Step], refused: Refusals, rounds: int) -> Errors:
        """See to what was there already (EEXIST): nothing is wrong when that is podplane's own and as it should be.

        What lies on such a link named an index that it does not have, and is sent once more, at most `rounds` times.
        """
        if any(one.refusal.errno == errno.EBUSY and one.message.type == c.RTM_NEWLINK for one in refused.values()):
            self._links.recount()
        if not refused:
            return {}
        operations = {id(step.operation): step.operation for step in steps}
        existing = {
            key: operations[key]
            for key, one in refused.items()
            if one.refusal.errno == errno.EEXIST and operations[key].old is None
        }
        errors = {key: explained(operations[key].value, one.error, self._present.links) for key, one in refused.items()}
        if not existing or not rounds:
            return errors
        for operation in existing.values():
            if isinstance(operation.value, Link):
                self._links.take_back(operation.value.name)
        found = self._present.of([o.value for o in existing.values()])
        again: list[Step] = []
        for key, operation in existing.items():
            present = found.get(local_identity(operation.value))
            if present is not None:
                error = creation_error(operation.value, present)
                if error is None:
                    del errors[key]
                else:
                    errors[key] = error
            elif isinstance(operation.value, Neighbour) or (
                isinstance(operation.value, Fdb) and operation.value.master
            ):  # learned
                again.append(Step(operation, self._message(operation.value, replace=True)))
        names = {
            o.value.name
            for key, o in existing.items()
            if isinstance(o.value, Link) and not isinstance(errors.get(key), ForeignObject)
        }
        again += self._on_links(names, [operations[key] for key in errors if key not in existing])
        for key in {id(step.operation) for step in again}:
            errors.pop(key, None)
        return errors | self._settle(again, self._send(again), rounds - 1)

    def _on_links(self, names: set[str], operations: list[Operation]) -> list[Step]:
        """The messages of operations on these links anew: their first ones named an index that the links do not have."""
        steps: list[Step] = []
        for operation in operations:
            if names & {getattr(operation.value, field, "") for field in LINK_FIELDS}:
                try:
                    steps += [Step(operation, message) for message in self._arrival(operation)]
                except (KernelError, *NOT_ENCODED):  # another link that it needs is not there: its first error stands
                    continue
        return steps

    def _arrival(self, operation: Operation) -> list[Message]:
        old, value = operation
        if isinstance(value, Link):
            return self._link(old, value)
        if value is None:
            raise ValueError("a deletion is no arrival")
        if isinstance(value, Redirect):
            return self._redirect(value)
        return [self._message(value, replace=old is not None)]

    def _redirect(self, value: Redirect) -> list[Message]:
        """The kernel would add it beside what is there with podplane's priority. A link that is made just now has nothing."""
        index = self._links.index
        is_new = self._links.is_given(value.link)
        present = None if is_new else self._present.of([value]).get(local_identity(value))
        if present == value:
            return [traffic_control.clsact(value.link, index)]  # which changes nothing
        former = [] if present is None else [traffic_control.delete_redirect(value, index)]
        return [*former, traffic_control.clsact(value.link, index), traffic_control.redirect(value, index)]

    def _link(self, old: Value | None, link: Link) -> list[Message]:
        messages = []
        if link.kind and old is not None:
            found = self._links.find(link.name)
            present = decode.link(found.payload, {})
            if is_foreign(link, present):
                raise foreign_error(link, present)
            if link.mac == present.mac:  # some links refuse to be given one, be it their own (ifb)
                link = msgspec.structs.replace(link, mac="")
            if self._is_recreated(old, link):
                messages.append(encode.delete_link(found.number, link.name))
                old = None
        if link.kind and old is None:
            messages.append(encode.new_link(link, self._links.give(link.name), self._links.index, self._namespace_fd))
        else:
            messages.append(encode.set_link(link, self._links.index(link.name), self._links.index))
        later = encode.set_later(link, self._links.index(link.name))
        return messages if later is None else [*messages, later]

    @staticmethod
    def _is_recreated(old: Value | None, new: Link) -> bool:
        return isinstance(old, Link) and must_recreate(old, new)

    def _message(self, value: Value, *, delete: bool = False, replace: bool = False) -> Message:
        encoder = (DELETIONS if delete else CREATIONS).get(type(value))
        if encoder is None:
            raise KernelError(f"{value}", "rtnetlink knows no such value")
        return encoder(value, self._links.index, encode.PUT if replace else encode.CREATE)


CREATIONS: dict[type[Value], Callable[[Any, encode.Index, int], Message]] = {
    Address: lambda value, index, flags: encode.address(value, index, c.RTM_NEWADDR, flags),
    Neighbour: lambda value, index, flags: encode.neighbour(value, index, c.RTM_NEWNEIGH, flags),
    Proxy: lambda value, index, flags: encode.proxy(value, index, c.RTM_NEWNEIGH, flags),
    Fdb: lambda value, index, flags: encode.fdb(value, index, c.RTM_NEWNEIGH, encode.ADD if value.floods else flags),
    Qdisc: traffic_control.qdisc,
    Route: encode.route,
    Rule: lambda value, index, flags: encode.rule(value, c.RTM_NEWRULE, encode.CREATE),
}
"""What makes the message that brings a value of each type; the flags say whether it replaces what is there."""
DELETIONS: dict[type[Value], Callable[[Any, encode.Index, int], Message]] = {
    Address: lambda value, index, _: encode.address(value, index, c.RTM_DELADDR, 0),
    Neighbour: lambda value, index, _: encode.neighbour(value, index, c.RTM_DELNEIGH, 0),
    Proxy: lambda value, index, _: encode.proxy(value, index, c.RTM_DELNEIGH, 0),
    Fdb: lambda value, index, _: encode.fdb(value, index, c.RTM_DELNEIGH, 0),
    Qdisc: lambda value, index, _: traffic_control.delete_qdisc(value, index),
    Route: lambda value, index, _: encode.delete_route(value),
    Rule: lambda value, index, _: encode.rule(value, c.RTM_DELRULE, 0),
}
"""The same of the one that takes it away."""


def _is_marked(value: Value) -> bool:
    """Has it a mark by which one of somebody else can be told from it?"""
    return bool(value.protocol) if isinstance(value, Neighbour | Proxy | Route | Rule) else isinstance(value, Qdisc | Redirect)


def _sends(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Parts that each fit one send; the messages of one operation stay together."""
    if len(steps) <= BATCH_MESSAGES and sum([20 + len(step.message.payload) for step in steps]) <= BATCH_BYTES:
        if steps:
            yield list(steps)
        return
    part: list[Step] = []
    size = start = 0
    while start < len(steps):
        end = start + 1
        while end < len(steps) and steps[end].operation is steps[start].operation:
            end += 1
        group = list(steps[start:end])
        length = sum(20 + len(step.message.payload) for step in group)
        if part and (len(part) + len(group) > BATCH_MESSAGES or size + length > BATCH_BYTES):
            yield part
            part, size = [], 0
        part += group
        size += length
        start = end
    if part:
        yield part


def _as_kernel_error(operation: Operation, error: Exception) -> KernelError:
    """A refusal of the kernel, or that a value could not be put in a message."""
    return error if isinstance(error, KernelError) else KernelError(f"encode {ip.line(operation.value)}", str(error))

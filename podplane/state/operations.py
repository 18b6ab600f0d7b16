"""The difference of two states, and the report of what became of it.

An operation replaces one version of a value by another; None stands for "not there". The kernel door carries out
operations and reports each one: what was applied is now in the kernel, what failed is not, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from podplane.state.network import Link
from podplane.state.value import Identity, Value


class Observation(NamedTuple):
    """What the kernel said of one object: the value that it holds now, or None when the object is gone."""

    identity: Identity
    value: Value | None


class LinkEvent(NamedTuple):
    """What happened to a link since it was asked last: how it is now, and what came between.

    `may_have_lost`: it went, was set down, or lost an address: what lay on it may be gone, and must be read again. `came`: it came,
    was set up, or carries larger packets than before (one that carries less than 1,280 bytes has no IPv6, addrconf_notify).
    `lost_carrier`: it had a carrier, and lost it (for a moment, maybe). `has_address`: it has an address that it had not, or that was
    tentative (RFC 4862, 5.4): a route that needs it can be made. `has_network`: somebody made a route to what is on it, without a
    gateway: one by a gateway there can be made.
    """

    is_present: bool
    is_up: bool = False
    may_have_lost: bool = False
    came: bool = False
    lost_carrier: bool = False
    has_address: bool = False
    has_network: bool = False

    def after(self, former: LinkEvent | None) -> LinkEvent:
        """This event after a former one."""
        if former is None:
            return self
        return LinkEvent(
            self.is_present,
            self.is_up,
            self.may_have_lost or former.may_have_lost,
            self.came or former.came,
            self.lost_carrier or former.lost_carrier,
            self.has_address or former.has_address,
            self.has_network or former.has_network,
        )


class Changes(msgspec.Struct):
    """What the kernel notified: observations of owned objects, links that came, went or changed up, down or carrier, by name.

    `lost` says that notifications were lost: everything has to be read again. `settings`: a sysctl of the network was changed, whichever.
    """

    observations: list[Observation] = msgspec.field(default_factory=list)
    links: dict[str, LinkEvent] = msgspec.field(default_factory=dict)
    lost: bool = False
    settings: bool = False


class Operation(NamedTuple):
    """Make `new` out of `old` (both have one identity): `old` is what the kernel is known to hold; None creates, or deletes."""

    old: Value | None
    new: Value | None

    @property
    def value(self) -> Value:
        """The version that names the object: the new one, or the deleted one."""
        value = self.new if self.new is not None else self.old
        if value is None:
            raise ValueError("an operation from nothing to nothing")
        return value


class Failure(msgspec.Struct, frozen=True):
    """An operation that did not take effect, and why. Where it did in part (`nft_members`), `holds` is what the kernel holds now."""

    operation: Operation
    error: Exception
    holds: Value | None = None

    def __str__(self) -> str:
        return f"{self.operation.value}: {self.error}"


class Report(msgspec.Struct):
    """What `apply` did: every operation is in exactly one of `applied` and `failed`.

    `recreated` are links that were deleted and made again, because the kernel can't change what was to change. With the old
    link the kernel deleted its addresses, routes, neighbours, proxies and forwarding entries, except those that a later
    operation of the same call made; its ports, and devices on top of it, lost it.
    """

    applied: list[Operation] = msgspec.field(default_factory=list)
    failed: list[Failure] = msgspec.field(default_factory=list)
    recreated: list[Link] = msgspec.field(default_factory=list)

    def merge(self, other: Report) -> None:
        """Add another report's lists to this one."""
        self.applied += other.applied
        self.failed += other.failed
        self.recreated += other.recreated


def diff(old: Mapping[Identity, Value], new: Mapping[Identity, Value]) -> list[Operation]:
    """The operations that lead from `old` to `new`; none for equal values. Their order is the kernel door's business."""
    removed = [Operation(value, None) for key, value in old.items() if key not in new]
    changed = [Operation(old.get(key), value) for key, value in new.items() if old.get(key) != value]
    return removed + changed


def patch(state: Mapping[Identity, Value], operations: list[Operation]) -> dict[Identity, Value]:
    """The state after these operations."""
    result = dict(state)
    for operation in operations:
        if operation.new is None:
            result.pop(operation.value.identity, None)
        else:
            result[operation.new.identity] = operation.new
    return result

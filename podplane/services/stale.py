"""Which tracked connections must begin anew after a change: UDP and SCTP ones, that go on to where nobody is, or past their Service. Pure.

A TCP connection ends by itself when its endpoint goes. One of UDP or SCTP is tracked as long as its client goes on sending, and is
translated, or not, as its first packet was. (k8s.io/kubernetes, pkg/proxy/conntrack, does the same.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from podplane.services.tables import NAME
from podplane.state.nft import Element
from podplane.state.operations import Operation
from podplane.state.value import IPAddress, Value

WITHOUT_END = ("udp", "sctp")
"""Protocols whose connections have no end that tracking could see, or one that comes late."""
End = tuple[str, IPAddress, int]
"""Protocol, address, port."""


class Stale(NamedTuple):
    """Connections that were translated to one of `targets`, and those that were sent to one of `frontends` and not translated."""

    targets: frozenset[End] = frozenset()
    frontends: frozenset[End] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.targets or self.frontends)


def stale(operations: Iterable[Operation]) -> Stale:
    """What these operations leave behind: targets that are gone, and frontends that were none before."""
    gone: set[End] = set()
    there: set[End] = set()
    came: set[End] = set()
    for old, new in operations:
        if old is not None and (end := _target(old)) is not None:
            gone.add(end)
        if new is not None and (end := _target(new)) is not None:
            there.add(end)
        if old is None and new is not None and (end := _frontend(new)) is not None:
            came.add(end)
    return Stale(frozenset(gone - there), frozenset(came))


def _target(value: Value) -> End | None:
    match value:
        case Element(table=table, set="endpoints4" | "endpoints6" | "targets4" | "targets6", data=(ip, port)) if table == NAME:
            protocol = value.comment.partition(":")[2].split("/")[1:2]
            if protocol and protocol[0] in WITHOUT_END:
                return protocol[0], ip, port  # type: ignore[return-value]  # as the maps have them
    return None


def _frontend(value: Value) -> End | None:
    match value:
        case Element(table=table, set="frontends4" | "frontends6", key=(ip, protocol, port)) if table == NAME:
            return (protocol, ip, port) if protocol in WITHOUT_END else None  # type: ignore[return-value]  # as the maps have them
    return None

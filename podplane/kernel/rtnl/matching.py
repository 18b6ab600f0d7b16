"""Does the kernel hold what is wanted? Fields that a value leaves to the kernel may have come out as anything."""

from __future__ import annotations

import msgspec

from podplane.state.network import Link, Route
from podplane.state.nft import Set
from podplane.state.value import Value


def matches(wanted: Value, found: Value) -> bool:
    """True when `found`, as read from the kernel, fulfils `wanted`."""
    if isinstance(wanted, Link) and isinstance(found, Link):
        return _link_matches(wanted, found)
    if isinstance(wanted, Route) and isinstance(found, Route):
        return _route_matches(wanted, found)
    if isinstance(wanted, Set) and isinstance(found, Set):
        return wanted == msgspec.structs.replace(found, rank=wanted.rank)
    return wanted == found


def _link_matches(wanted: Link, found: Link) -> bool:
    return (
        wanted.up == found.up
        and wanted.kind in ("", found.kind)
        and wanted.mtu in (0, found.mtu)
        and wanted.mac in ("", found.mac)
        and (not wanted.kind or wanted.master == found.master)
        and wanted.hairpin == found.hairpin
        and wanted.alias in ("", found.alias)
    )


def _route_matches(wanted: Route, found: Route) -> bool:
    return (
        (wanted.destination, wanted.gateway, wanted.metric, wanted.table, wanted.protocol, wanted.mtu)
        == (found.destination, found.gateway, found.metric, found.table, found.protocol, found.mtu)
        and wanted.link in ("", found.link)
        and wanted.source in (None, found.source)
        and (found.onlink or not wanted.onlink)
    )

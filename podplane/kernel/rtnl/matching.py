"""Does the kernel hold what is wanted? Fields that a value leaves to the kernel may have come out as anything."""

from __future__ import annotations

from podplane.state.network import Link, Route, Sysctl
from podplane.state.value import Value


def matches(wanted: Value, found: Value) -> bool:
    """True when `found`, as read from the kernel, fulfils `wanted`."""
    if isinstance(wanted, Link) and isinstance(found, Link):
        return _link_matches(wanted, found)
    if isinstance(wanted, Route) and isinstance(found, Route):
        return _route_matches(wanted, found)
    if isinstance(wanted, Sysctl) and isinstance(found, Sysctl):
        return wanted.value == found.value
    return wanted == found


def _link_matches(wanted: Link, found: Link) -> bool:
    return (
        wanted.up == found.up
        and wanted.kind in ("", found.kind)
        and wanted.mtu in (0, found.mtu)
        and wanted.mac in ("", found.mac)
        and (not wanted.kind or wanted.master == found.master)
        and (wanted.hairpin, wanted.learning, wanted.flood) == (found.hairpin, found.learning, found.flood)
        and wanted.alias in ("", found.alias)
    )


def _route_matches(wanted: Route, found: Route) -> bool:
    return (
        (wanted.destination, wanted.kind, wanted.gateway, wanted.metric, wanted.table, wanted.protocol, wanted.mtu)
        == (found.destination, found.kind, found.gateway, found.metric, found.table, found.protocol, found.mtu)
        and wanted.link in ("", found.link)
        and wanted.source in (None, found.source)
        and (found.onlink or not wanted.onlink)
    )

"""Which endpoints take the connections of a Service, as one node sees it. Pure.

Sources: k8s.io/kubernetes, pkg/proxy/topology.go; KEP-1669 (terminating endpoints), KEP-2086 (internalTrafficPolicy), KEP-2433 and
KEP-4444 (hints).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from podplane.model.service import LOCAL, Endpoint, EndpointSlice, ServicePort
from podplane.services.addresses import parse
from podplane.state.conntrack import Target
from podplane.state.value import IPAddress, IPNetwork

VERSION = {"IPv4": 4, "IPv6": 6}


class Place(NamedTuple):
    """A node and its zone."""

    node: str
    zone: str = ""


Row = tuple[Endpoint, Target]


class Candidates(NamedTuple):
    """The endpoints of one port in one IP version, each target once, sorted by address and port."""

    rows: tuple[Row, ...]

    def chosen(self, policy: str, place: Place) -> list[Target]:
        """The endpoints for new connections, by traffic policy."""
        return self.local(place) if policy == LOCAL else self.everywhere(place)

    def everywhere(self, place: Place) -> list[Target]:
        """For policy Cluster: ready endpoints, as hints narrow them to this node or zone; else serving-terminating ones."""
        ready = [row for row in self.rows if row[0].conditions.ready is not False]
        rows = _hinted(ready, place) or ready or self._serving_terminating()
        return [target for _, target in rows]

    def local(self, place: Place) -> list[Target]:
        """For policy Local: ready endpoints of this node, else its serving-terminating ones."""
        own = Candidates(tuple(row for row in self.rows if row[0].node_name == place.node))
        return [target for _, target in [row for row in own.rows if row[0].is_ready] or own._serving_terminating()]

    def _serving_terminating(self) -> list[Row]:
        return [row for row in self.rows if row[0].is_serving_terminating]


def _hinted(rows: Sequence[Row], place: Place) -> list[Row]:
    """The rows for this node, or for its zone; none unless all have hints and some are for it."""
    if any(endpoint.hints is None for endpoint, _ in rows):
        return []
    for field, name in (("for_nodes", place.node), ("for_zones", place.zone)):
        hints = [getattr(endpoint.hints, field) for endpoint, _ in rows]
        if all(hints):
            found = [row for row, own in zip(rows, hints, strict=True) if any(hint.name == name for hint in own)]
            if found:
                return found
    return []


def candidates(
    slices: Iterable[EndpointSlice], port: ServicePort, version: int, excluded: Sequence[IPNetwork] = ()
) -> Candidates:
    """The endpoints of one port of a Service, but for those in `excluded`: the Service CIDRs, where a connection would never arrive.

    Of an endpoint that is in several slices, a ready entry counts; of ready ones, one that names its node.
    """
    slices = tuple(slices)
    if len(slices) < MANY_SLICES:
        return _candidates(slices, port, version, excluded)
    at = (tuple(map(id, slices)), port, version, tuple(excluded))
    known = _of_many.get(at)
    if known is None:
        while len(_of_many) >= MOST_KEPT:
            del _of_many[next(iter(_of_many))]
        known = _of_many[at] = slices, _candidates(slices, port, version, excluded)
    return known[1]


MANY_SLICES, MOST_KEPT = 8, 16
_of_many: dict[object, tuple[tuple[EndpointSlice, ...], Candidates]] = {}
"""What was found last of Services with many slices, and these, so that no others come to have their ids. All nodes of a process ask for the
same: the cluster's DNS has slices of each node."""


def _candidates(slices: Sequence[EndpointSlice], port: ServicePort, version: int, excluded: Sequence[IPNetwork]) -> Candidates:
    spans = [(int(net.network_address), int(net.broadcast_address)) for net in excluded if net.version == version]
    found: dict[tuple[int, int], Row] = {}
    for slice_ in slices:
        number = _number(slice_, port) if VERSION.get(slice_.address_type) == version else None
        if number is None or number == 0:
            continue
        for endpoint, address in usable(slice_):
            key = int(address), number
            known = found.get(key)
            if known is None or _counts_more(endpoint, known[0]):
                found[key] = endpoint, Target(address, number)
    for first, last in spans:
        for key in [key for key in found if first <= key[0] <= last]:
            del found[key]
    return Candidates(tuple(found[key] for key in sorted(found)))


def usable(slice_: EndpointSlice) -> Iterator[tuple[Endpoint, IPAddress]]:
    """Its endpoints with their addresses, but for those without one of the slice's own type (the type FQDN is that of names)."""
    version = VERSION.get(slice_.address_type)
    for endpoint in slice_.endpoints or () if version else ():
        try:
            address = parse(endpoint.addresses[0])
        except (ValueError, IndexError):
            continue
        if address.version == version:
            yield endpoint, address


def _counts_more(one: Endpoint, known: Endpoint) -> bool:
    return (one.is_ready, bool(one.node_name)) > (known.is_ready, bool(known.node_name))


def by_number(target: Target) -> tuple[int, int]:
    """Sort key: the order of targets of one IP version, and faster than comparing addresses."""
    return int(target.ip), target.port


def _number(slice_: EndpointSlice, port: ServicePort) -> int | None:
    return next((p.port for p in slice_.ports or () if (p.name, p.protocol) == (port.name, port.protocol)), None)

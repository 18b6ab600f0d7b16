"""Which flows that a change would deny were there lately, by what nodes saw. Pure."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from podplane.model.answers import Party as Seen
from podplane.model.answers import SeenFlow
from podplane.policy import parties
from podplane.policy.difference import Class, Difference
from podplane.policy.gap import Gap
from podplane.policy.name_servers import PATH as NAME_SERVERS
from podplane.policy.parties import OUTSIDE
from podplane.state.value import IPNetwork

Name = tuple[str, str]
"""What an end is ("pod", "node", "dns", ""), and its name; of addresses outside a block."""
Place = tuple[int, int, int]
"""The number of a difference, and of the group, or party, at each end of it."""
Ages = Mapping[Place, float]
"""How many seconds ago connections of each were there."""


def ages(found: Sequence[tuple[Difference, Gap]], flows: Iterable[SeenFlow], *, each: bool) -> Ages:
    """When each of these was seen last, as far as it was."""
    places, blocks = _places(found, each=each), _Blocks(frozenset().union(*map(_blocks, found)))
    numbers: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (one, _) in enumerate(found):
        numbers[id(one.source), id(one.destination)].append(number)
    seen: dict[Place, float] = {}
    for flow in flows:
        source, destination = (places.get(name, ()) for name in (blocks.name(flow.source), blocks.name(flow.destination)))
        for class_, i in source:
            for other, j in destination:
                for number in numbers.get((id(class_), id(other)), ()):
                    if _is_of(flow, *found[number]):
                        seen[number, i, j] = min(flow.age, seen.get((number, i, j), flow.age))
    return seen


def _is_of(flow: SeenFlow, difference: Difference, ports: Gap) -> bool:
    version = 6 if ":" in flow.destination.address else 4
    return difference.version in (0, version) and ports.has(flow.protocol, flow.port)


def _places(found: Iterable[tuple[Difference, Gap]], *, each: bool) -> dict[Name, list[tuple[Class, int]]]:
    """Where each end is named."""
    classes = {id(one): one for difference, _ in found for one in (difference.source, difference.destination)}
    places: defaultdict[Name, list[tuple[Class, int]]] = defaultdict(list)
    for class_ in classes.values():
        for number, group in enumerate(class_.named(each=each)):
            for party in group:
                places[_name(party)].append((class_, number))
    return places


def _name(party: parties.Party) -> Name:
    if party.path == NAME_SERVERS:
        return "dns", ""
    if party.path:
        return "pod", party.path
    return ("node", party.node) if party.node else ("", party.group)


def _blocks(one: tuple[Difference, Gap]) -> frozenset[IPNetwork]:
    """The blocks that policies name, where it is about addresses outside."""
    return one[0].source.parties[0].blocks | one[0].destination.parties[0].blocks


class _Blocks:
    """The blocks of addresses outside that policies name, and the smallest of them that an address is in."""

    def __init__(self, networks: Collection[IPNetwork]) -> None:
        self._networks = networks
        self._lengths = {
            version: sorted({one.prefixlen for one in networks if one.version == version and one.prefixlen}, reverse=True)
            for version in (4, 6)
        }
        self._known: dict[str, str] = {}

    def name(self, end: Seen) -> Name:
        """What an end is called here."""
        if end.kind:
            return end.kind, "" if end.kind == "dns" else end.name
        if end.address not in self._known:
            address = ipaddress.ip_address(end.address)
            around = (ipaddress.ip_network((address, length), strict=False) for length in self._lengths[address.version])
            self._known[end.address] = str(next((one for one in around if one in self._networks), OUTSIDE))
        return "", self._known[end.address]

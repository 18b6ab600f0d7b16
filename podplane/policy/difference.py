"""Which flows fare otherwise once some objects are others: the difference of all verdicts, without asking for each of them.

    parties ─► classes: parties that no policy tells apart, neither before nor after      (kinds)
            ─► pairs of classes of which one is a subject of the change                   (edits)
            ─► reach of one flow of each pair, before and after                           (reach)

Verdicts of other pairs are the same. A flow is from one group to another: a group are the pods of one class that one workload made.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from podplane.model.cluster_policy import Policy
from podplane.model.objects import Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import PodSelector
from podplane.model.words import counted
from podplane.policy.edits import Edit, subjects, tried
from podplane.policy.index import PolicyIndex
from podplane.policy.kinds import Tick, kinds
from podplane.policy.name_servers import PATH as NAME_SERVERS
from podplane.policy.parties import Party, of_nodes, of_pods, outside
from podplane.policy.reach import Reach, reach

MANY_GROUPS = 3
"""Pods of one class that are in more groups are named together all the same: no policy tells them apart."""


@dataclass(frozen=True, eq=False)
class Class:
    """Parties that no policy tells apart; pods are of one namespace. `is_subject`: the edits are about their policies or labels."""

    parties: tuple[Party, ...]
    is_subject: bool

    @functools.cached_property
    def groups(self) -> tuple[tuple[Party, ...], ...]:
        """Those that are named together."""
        alike: defaultdict[str, list[Party]] = defaultdict(list)
        for party in self.parties:
            alike[party.group].append(party)
        return (self.parties,) if len(alike) > MANY_GROUPS else tuple(map(tuple, alike.values()))

    @functools.cached_property
    def each(self) -> tuple[tuple[Party, ...], ...]:
        """All parties, one by one."""
        return tuple((party,) for party in self.parties)

    @property
    def is_nodes(self) -> bool:
        """Is it of nodes? What tells pods and nodes apart is in their kinds."""
        return bool(self.parties[0].node and not self.parties[0].path)

    def named(self, *, each: bool) -> tuple[tuple[Party, ...], ...]:
        """All parties, or those that are named together."""
        return self.each if each else self.groups


Pair = tuple[Class, Class]
"""From whom, and to whom."""


class Difference(NamedTuple):
    """Flows from parties of one class to those of another one that fare otherwise; `version` is 0 when those of both families do alike."""

    source: Class
    destination: Class
    version: int
    before: Reach
    after: Reach

    def flows(self, *, each: bool = False) -> int:
        """How many flows: pairs of groups, or of `each` party."""
        sources, destinations = self.source.named(each=each), self.destination.named(each=each)
        if self.source.is_nodes:
            own = Counter(party.node for group in sources if len(group) == 1 for party in group)
            without = sum(own[node] for group in destinations if (node := _only_node(group)))
        else:
            without = sum(len(group) == 1 for group in sources) if self.source is self.destination else 0
        return len(sources) * len(destinations) - without

    def pairs(self, *, each: bool = False) -> Iterator[tuple[str, str]]:
        """The names of both ends of each flow."""
        return (names for _, names in self.numbered(each=each))

    def numbered(self, *, each: bool = False) -> Iterator[tuple[tuple[int, int], tuple[str, str]]]:
        """The same, each with the numbers of both groups, or parties."""
        for i, source in enumerate(self.source.named(each=each)):
            for j, destination in enumerate(self.destination.named(each=each)):
                if from_there := self._sources(source, destination):
                    yield (i, j), (_name(from_there), _name(destination))

    def names(self, place: tuple[int, int], *, each: bool = False) -> tuple[str, str] | None:
        """The names of both ends of one flow, by the numbers of its groups, or parties; None where there is none."""
        i, j = place
        source, destination = self.source.named(each=each)[i], self.destination.named(each=each)[j]
        from_there = self._sources(source, destination)
        return (_name(from_there), _name(destination)) if from_there else None

    def _sources(self, source: tuple[Party, ...], destination: tuple[Party, ...]) -> tuple[Party, ...]:
        """Those that open connections to others than themselves, or of nodes, than their own pods."""
        if self.source.is_nodes and (own := _only_node(destination)):
            return tuple(party for party in source if party.node != own)
        return () if source == destination and len(source) == 1 else source


def _only_node(pods: Sequence[Party]) -> str:
    """The node that all of them are on; "" of those on several, and of other parties."""
    nodes = {pod.node if pod.path else "" for pod in pods}
    return nodes.pop() if len(nodes) == 1 else ""


def differences(
    index: PolicyIndex, pods: Iterable[PodInfo], nodes: Sequence[Node], edits: Sequence[Edit], tick: Tick = int
) -> list[Difference]:
    """What these edits change; flows among pods first. `pods` are all that there are. The index is in the end as it was."""
    concerned = subjects(index, edits)
    policies = _policies(concerned, index, tick)
    with tried(index, edits):
        concerned |= subjects(index, edits)
        policies |= _policies(concerned, index, tick)
    found = [*of_pods(pods), *of_nodes(nodes), *outside(policies.values(), nodes)]
    was = _kinds(found, index, tick)
    with tried(index, edits):
        will_be = _kinds(found, index, tick)
        if all(
            edit.kind is NamespaceInfo for edit in edits
        ):  # the policies are the same ones: so are numbers of peers in kinds
            concerned = {party.path for party, *both in zip(found, was, will_be, strict=True) if both[0] != both[1]}
        pairs = list(_pairs(_classes(found, was, will_be, concerned)))
        after = _reaches(pairs, index, tick)
    before = _reaches(pairs, index, tick)
    compared = (one for pair, *both in zip(pairs, before, after, strict=True) for one in _compared(*pair, *both))
    return sorted((one for one in compared if one.flows()), key=_order)


def _policies(paths: Iterable[str], index: PolicyIndex, tick: Tick) -> dict[int, Policy]:
    """Those that select these pods, each once."""
    found: dict[int, Policy] = {}
    for path in paths:
        found |= {id(policy): policy for policy in index.policies_of(path)}
        tick()
    return found


def _kinds(found: Sequence[Party], index: PolicyIndex, tick: Tick) -> list[Hashable]:
    """That of each party is those of its ends, and their families."""
    of_end = iter(kinds([end for party in found for end in party.ends], index, tick))
    return [tuple((":" in end.ip, next(of_end)) for end in party.ends) for party in found]


def _classes(found: Sequence[Party], was: Sequence[Hashable], will_be: Sequence[Hashable], concerned: set[str]) -> list[Class]:
    alike: defaultdict[Hashable, list[Party]] = defaultdict(list)
    for party, *both in zip(found, was, will_be, strict=True):
        alike[party.namespace, party.path in concerned, *both].append(party)
    return [Class(tuple(same), same[0].path in concerned) for same in alike.values()]


def _pairs(classes: Sequence[Class]) -> Iterator[Pair]:
    """Those whose flows may fare otherwise; the name servers open no connection to a pod."""
    for source in classes:
        for destination in classes:
            concerned = source.is_subject or destination.is_subject
            is_pair = source is not destination or len(source.parties) > 1
            if concerned and is_pair and source.parties[0].path != NAME_SERVERS:
                yield source, destination


def _reaches(pairs: Iterable[Pair], index: PolicyIndex, tick: Tick) -> list[dict[int, Reach]]:
    """By IP version, what is allowed between two parties of each pair."""
    policies, found = _Remembered(index), []
    for source, destination in pairs:
        ends = {6 if ":" in end.ip else 4: end for end in destination.parties[-1].ends}
        versions = ((6 if ":" in end.ip else 4, end) for end in source.parties[0].ends)
        found.append({version: reach(end, ends[version], policies) for version, end in versions if version in ends})
        tick()
    return found


class _Remembered:
    """The answers of an index that does not change meanwhile."""

    def __init__(self, index: PolicyIndex) -> None:
        self._policies_of = functools.cache(index.policies_of)
        self._index = index

    def policies_of(self, path: str) -> tuple[Policy, ...]:
        return self._policies_of(path)

    def is_member(self, selector: PodSelector, path: str) -> bool:
        return self._index.is_member(selector, path)

    def has_address(self, selector: PodSelector, ip: str) -> bool:
        return self._index.has_address(selector, ip)


def _compared(source: Class, destination: Class, before: dict[int, Reach], after: dict[int, Reach]) -> Iterator[Difference]:
    found = [Difference(source, destination, v, before[v], after[v]) for v in before if before[v] != after[v]]
    if len(found) == len(before) and len({(one.before, one.after) for one in found}) == 1:
        found = [found[0]._replace(version=0)]
    yield from found


def _order(one: Difference) -> tuple[bool, bool]:
    return not (one.source.parties[0].path and one.destination.parties[0].path), one.destination.parties[0].path == NAME_SERVERS


def _name(parties: tuple[Party, ...]) -> str:
    """What those that are named together are called."""
    party, number = parties[0], len(parties)
    if number == 1:
        return party.name
    if any(other.group != party.group for other in parties):
        return f"{counted(number, 'pod')} of {party.namespace}"
    if not party.path:
        return f"{number:,} {party.group}"
    if party.group.startswith("("):
        return f"{counted(number, 'pod')} of {party.namespace} {party.group}"
    return f"{party.namespace}/{party.group}-* ({counted(number, 'pod')})"

"""Between whom a check tries what policies let pass and what they stop. Pure.

Where every pair is asked for it is every ordered one in which a policy selects a pod; else each pod that policies select is tried with some
others. Of pods that no policy tells apart some are tried with some of each other sort by all protocols: so there is a packet for each
difference that policies make, whoever is beside whom, and their number goes by that of the pods and of the sorts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple

from podplane.cli.check.promises import Party
from podplane.cli.policy.cluster import Cluster
from podplane.policy.ends import End
from podplane.policy.kinds import kinds

OTHERS = 2
"""With so many other pods each one that policies select is tried, in both directions."""
MOST_OF_SORTS = 1000
"""So many ordered pairs of sorts are tried: where there are more, each sort that policies select is tried with some others."""


class Way(NamedTuple):
    """From one party to another one: by all protocols that policies tell apart, or `briefly` by TCP."""

    source: Party
    target: Party
    briefly: bool = False


@dataclass(frozen=True, slots=True)
class Around:
    """Who is there: all pods, and what reaches them or is reached by them beside them. `paths` are those of pods, by their names."""

    pods: Sequence[Party]
    nodes: Sequence[Party]
    outside: Sequence[Party]
    paths: Mapping[str, str]

    def under(self, cluster: Cluster) -> list[Party]:
        """The pods that a policy selects."""
        return [pod for pod in self.pods if cluster.index.policies_of(self.paths[pod.name])]


def every_way(who: Around, cluster: Cluster, *, briefly: bool = False) -> Iterator[Way]:
    """From and to each pod that a policy selects: all other pods and nodes, and to the world outside; briefly but for each sort."""
    under = who.under(cluster)
    for pod in under:
        for other in (*who.pods, *who.nodes):
            if other is not pod:
                yield Way(pod, other, briefly)
                yield Way(other, pod, briefly)
        yield from (Way(pod, one, briefly) for one in who.outside)
    if briefly:
        yield from _of_sorts(who, cluster, {pod.name for pod in under})


def some_ways(who: Around, cluster: Cluster) -> Iterator[Way]:
    """Those of each sort, and briefly those of each pod that a policy selects."""
    under = who.under(cluster)
    yield from _of_sorts(who, cluster, {pod.name for pod in under})
    for turn, pod in enumerate(under):
        others = [who.pods[(turn + i) % len(who.pods)] for i in range(OTHERS + 1)]
        for other in [one for one in others if one is not pod][:OTHERS]:
            yield Way(pod, other, briefly=True)
            yield Way(other, pod, briefly=True)
        yield from (Way(node, pod, briefly=True) for node in who.nodes if node.node == pod.node)


def _of_sorts(who: Around, cluster: Cluster, under: set[str]) -> Iterator[Way]:
    """Between pods of every two sorts of which policies select one, and between such pods, nodes and the world outside."""
    sorts = _sorts(who, cluster)
    turns = [cycle(pods) for pods in sorts]
    selected = [number for number, pods in enumerate(sorts) if pods[0].name in under]
    count = min(len(sorts), max(1, MOST_OF_SORTS // max(1, 2 * len(selected))))
    for turn, number in enumerate(selected):
        for other in ((number + 1 + i) % len(sorts) for i in range(count)):
            yield from _both_ways(next(turns[number]), turns[other])
        yield from _beside(next(turns[number]), turn, who)


def _both_ways(pod: Party, others: Iterator[Party]) -> Iterator[Way]:
    """With the next of those that is another one."""
    other = next((one for one in islice(others, 2) if one is not pod), pod)
    if other is not pod:
        yield Way(pod, other)
        yield Way(other, pod)


def _beside(pod: Party, turn: int, who: Around) -> Iterator[Way]:
    """From and to its own node and another one, and to the world outside."""
    own = [node for node in who.nodes if node.node == pod.node]
    others = [node for node in who.nodes if node.node != pod.node]
    for node in (*own, *others[turn % max(1, len(others)) :][:1]):
        yield Way(node, pod)
        yield Way(pod, node)
    yield from (Way(pod, one) for one in who.outside)


def _sorts(who: Around, cluster: Cluster) -> list[list[Party]]:
    """The pods by what policies can tell of them, by each of their addresses."""
    ends = [(pod, End(ip, cluster.pods.get(who.paths[pod.name]))) for pod in who.pods for ip in pod.ips]
    found: defaultdict[str, tuple[Hashable, ...]] = defaultdict(tuple)
    for (pod, _), kind in zip(ends, kinds([end for _, end in ends], cluster.index, lambda: None), strict=True):
        found[pod.name] += (kind,)
    sorts: defaultdict[Hashable, list[Party]] = defaultdict(list)
    for pod in who.pods:
        sorts[found[pod.name]].append(pod)
    return list(sorts.values())

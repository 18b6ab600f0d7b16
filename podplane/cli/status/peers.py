"""Which nodes do not reach each other, by what all of them tell: the fewest sentences that say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from podplane.model.answers import PeerProblem
from podplane.model.words import counted, listed
from podplane.probes.problems import where

Object = dict[str, Any]
MOST = 5
"""So many lines are written."""
Edge = tuple[str, str]
"""Who tells it, and of which peer."""


def lines(found: Mapping[str, Object | None]) -> list[str]:
    """Of the summaries of nodes; [] when all that were asked reach their peers."""
    kinds: dict[tuple[bool, str], dict[Edge, float]] = {}
    for node, summary in found.items():
        for one in msgspec.convert((summary or {}).get("unreached", []), list[PeerProblem]):
            kinds.setdefault((one.loss < 1, where(one)), {})[node, one.peer] = one.loss
    said = [line for (is_lossy, tail), edges in sorted(kinds.items()) for line in _sentences(edges, tail, is_lossy)]
    return said if len(said) <= MOST else [*said[: MOST - 1], f"and {counted(len(said) - MOST + 1, 'more line')} of that sort"]


def _sentences(edges: Mapping[Edge, float], tail: str, is_lossy: bool) -> Iterable[str]:
    """A node that is in many pairs is told of once, with all of them."""
    left = dict(edges)
    while left:
        counts = Counter(name for pair in {frozenset(edge) for edge in left} for name in pair)
        top = min(counts, key=lambda name: (-counts[name], name))
        own = {edge: loss for edge, loss in left.items() if top in edge}
        left = {edge: loss for edge, loss in left.items() if edge not in own}
        others = sorted({name for edge in own for name in edge} - {top}, key=_in_order)
        yield (_of_loss(top, others, max(own.values())) if is_lossy else _of_reach(top, others, own)) + tail


def _of_loss(top: str, others: list[str], loss: float) -> str:
    most, each = ("up to ", "each of ") if len(others) > 1 else ("", "")
    return f"{most}{loss:.0%} of the probes between {top} and {each}{listed(others, MOST)} are lost"


def _of_reach(top: str, others: list[str], edges: Iterable[Edge]) -> str:
    tellers = [name for name in others if (name, top) in edges]
    told = [name for name in others if (top, name) in edges]
    if len(others) == 1 and tellers and told:
        return f"{listed(sorted([top, *others], key=_in_order))} do not reach each other"
    if tellers:
        return f"{top} is not reached by {listed(tellers, MOST)}"
    if len(told) == 1:
        return f"{told[0]} is not reached by {top}"
    return f"{top} does not reach {listed(told, MOST)}"


def _in_order(name: str) -> tuple[int, str]:
    """node2 before node10."""
    return len(name), name

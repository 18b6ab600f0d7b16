"""Who is cut off from the others: a check names them, and does not wait for each probe that would show it again. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from podplane.cli.check.promises import LOCALHOST, Probe, family

FEW = 4
"""So many probes must have failed, and none succeeded, before somebody counts as cut off."""


def thinned(probes: Iterable[Probe], node_of: Mapping[str, str], unreached: Collection[str]) -> Iterator[Probe]:
    """All probes, but of those into or out of a node that is not reached one of each sort."""
    seen: set[tuple[object, ...]] = set()
    for probe in probes:
        if cut := _crosses(probe, node_of, unreached):
            sort = (*cut, probe.promise, probe.protocol, family(probe.ip), probe.size > 0)
            if sort in seen:
                continue
            seen.add(sort)
        yield probe


def crosses(probe: Probe, node_of: Mapping[str, str], unreached: Collection[str]) -> bool:
    """Does the probe go into or out of a node that is not reached?"""
    return _crosses(probe, node_of, unreached) is not None


def _crosses(probe: Probe, node_of: Mapping[str, str], unreached: Collection[str]) -> tuple[str, bool] | None:
    """The node, and whether the probe leaves it."""
    source, target = node_of.get(probe.source, ""), node_of.get(probe.target, "")
    if source == target or not target:
        return None
    return (source, True) if source in unreached else (target, False) if target in unreached else None


def cut_off(probes: Iterable[Probe], answers: Mapping[Probe, Mapping[str, Any]]) -> set[str]:
    """The parties that reached nobody and were reached by nobody, though it was tried."""
    tried: Counter[str] = Counter()
    reached: set[str] = set()
    for probe in probes:
        if probe.promise == LOCALHOST or probe not in answers:
            continue
        ends = (probe.source, probe.target)
        tried.update(ends)
        if answers[probe].get("ok"):
            reached.update(ends)
    return {name for name, count in tried.items() if count >= FEW and name not in reached}

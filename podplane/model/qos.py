"""The quality of service class of a pod (kubernetes, pkg/apis/core/v1/helper/qos, ComputePodQOS)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from podplane.model import quantity

COUNTED = ("cpu", "memory")


def qos_class(resources: Iterable[Mapping[str, Any]], own: Mapping[str, Any] | None = None) -> str:
    """Guaranteed when all that is limited is asked for in full, BestEffort when nothing is said, else Burstable.

    `resources` are those of its containers; the pod's `own`, if it has any, stand for all of them. A quantity of zero says nothing,
    and who limits something without asking for it asks for all of it (SetDefaults_Pod).
    """
    requests: defaultdict[str, Fraction] = defaultdict(Fraction)
    limits: defaultdict[str, Fraction] = defaultdict(Fraction)
    all_limited = True
    for part in [own] if own else resources:
        limited = _add(limits, part.get("limits", {}))
        all_limited = all_limited and (limited == set(COUNTED) or (bool(own) and not part.get("limits")))
        _add(requests, {**part.get("limits", {}), **part.get("requests", {})})
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if all_limited and requests == limits else "Burstable"


def _add(sums: defaultdict[str, Fraction], given: Mapping[str, Any]) -> set[str]:
    """Add what counts; its names."""
    found = {name: amount for name in COUNTED if name in given and (amount := quantity.parse(given[name])) > 0}
    for name, amount in found.items():
        sums[name] += amount
    return set(found)

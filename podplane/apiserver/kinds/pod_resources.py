"""Requests and limits: what may be, and what those of a pod as a whole are by its containers (KEP-2837; SetDefaults_Pod). Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from podplane.apiserver.problems import Cause
from podplane.model import quantity

Object = dict[str, Any]
HUGE = "hugepages-"
OVERCOMMITTED = ("cpu", "memory")
"""Resources of which pods may be promised more than there is."""


def complete_pod_requests(spec: Object) -> None:
    """Of a pod that says limits of its own: what it requests, by its containers, or else by those limits."""
    own = spec.get("resources")
    if not own or not (own.get("limits") or own.get("requests")):
        return
    huge = {name: amount for name, amount in total(spec, "limits").items() if name.startswith(HUGE)}
    limits = {**{n: a for n, a in huge.items() if n not in own.get("requests", {})}, **own.get("limits", {})}
    if limits:
        own["limits"] = limits
    if not own.get("limits"):
        return
    asked = {name: amount for name, amount in total(spec, "requests").items() if name in OVERCOMMITTED}
    limited = {n: a for n, a in own["limits"].items() if n in OVERCOMMITTED or n.startswith(HUGE)}
    if requests := {**limited, **asked, **own.get("requests", {})}:
        own["requests"] = requests


def check_amounts(resources: Object, path: str) -> Iterator[Cause]:
    """No amount is negative, and none requested is above its limit (ValidateContainerResourceRequirements)."""
    limits = resources.get("limits") or {}
    for kind in ("limits", "requests"):
        for name, text in (resources.get(kind) or {}).items():
            if quantity.parse(text) < 0:
                yield Cause.invalid(f"{path}.{kind}[{name}]", text, "must be greater than or equal to 0")
    for name, text in (resources.get("requests") or {}).items():
        if name in limits and quantity.parse(text) > quantity.parse(limits[name]):
            yield Cause.invalid(f"{path}.requests", text, f"must be less than or equal to {name} limit of {limits[name]}")


def check_size(volume: Object, path: str) -> Iterator[Cause]:
    """That of an emptyDir is not negative (validateEmptyDirVolumeSource)."""
    if quantity.parse((volume.get("emptyDir") or {}).get("sizeLimit") or 0) < 0:
        yield Cause.forbidden(f"{path}.emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity")


def total(spec: Object, kind: str) -> dict[str, str]:
    """What the containers have together, or an init container needs before them; those that go on beside count with both."""
    sums: defaultdict[str, Fraction] = defaultdict(Fraction)
    beside: defaultdict[str, Fraction] = defaultdict(Fraction)
    peak: dict[str, Fraction] = {}
    for container in spec.get("containers", ()):
        for name, amount in container["resources"].get(kind, {}).items():
            sums[name] += quantity.parse(amount)
    for container in spec.get("initContainers", ()):
        given = {name: quantity.parse(amount) for name, amount in container["resources"].get(kind, {}).items()}
        stays = container.get("restartPolicy") == "Always"
        for name, amount in given.items():
            beside[name] += amount if stays else 0
            sums[name] += amount if stays else 0
            peak[name] = max(peak.get(name, Fraction(0)), beside[name] + (0 if stays else amount))
    found = {name: max(sums[name], peak.get(name, Fraction(0))) for name in {*sums, *peak}}
    return {name: _text(amount, _texts(spec, kind, name)) for name, amount in sorted(found.items())}


def _texts(spec: Object, kind: str, name: str) -> list[str]:
    containers = (*spec.get("containers", ()), *spec.get("initContainers", ()))
    return [c["resources"][kind][name] for c in containers if name in c["resources"].get(kind, {})]


def _text(amount: Fraction, texts: list[str]) -> str:
    """A sum in the notation of its first summand."""
    return next((text for text in texts if quantity.parse(text) == amount), quantity.like(amount, texts[0]))

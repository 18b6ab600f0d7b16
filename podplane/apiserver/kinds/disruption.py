"""The condition of a pod that is about to be deleted because of a disruption (KEP-3329): a Job may ignore such failures. Pure."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
TARGET = "DisruptionTarget"
BY_EVICTION = ("EvictionByEvictionAPI", "Eviction API: evicting")
BY_TAINT = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
BY_POD_GC = ("DeletionByPodGC", "PodGC: node no longer exists")


def disrupted(pod: Object, why: tuple[str, str], now: str) -> list[Object]:
    """The conditions of a pod with this one; `why` is a reason and a message."""
    conditions: list[Object] = pod.get("status", {}).get("conditions", [])
    old = next((c for c in conditions if c["type"] == TARGET), {})
    since = old.get("lastTransitionTime", now) if old.get("status") == "True" else now
    made = {"type": TARGET, "status": "True", "reason": why[0], "message": why[1], "lastTransitionTime": since}
    return [*(c for c in conditions if c["type"] != TARGET), made]

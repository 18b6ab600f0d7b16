"""Taints that drive pods out: NoExecute, at once or after the time that a pod stands them.

Source: Kubernetes' controller-manager (taint-eviction-controller), "Taints and Tolerations".
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from podplane.apiserver.controllers.decision import Action, Again, Controller, Delete, Note, Patch, View
from podplane.apiserver.controllers.placement import covers, taints_of
from podplane.apiserver.controllers.pods import is_active, rfc3339
from podplane.apiserver.kinds.disruption import BY_TAINT, disrupted
from podplane.controllers.objects import Key, Object, key_of

EFFECT = "NoExecute"
YOUNG_SECONDS = 1.0
"""So long a pod stays that came after the taint: its owner makes the next one at once (its template names the node), for ever. What slows
that down in Kubernetes is how many requests a controller may send in a second."""


def _decide(view: View, key: Key) -> Iterable[Action]:
    pod = view.get("pods", key)
    node = view.get("nodes", ("", pod["spec"].get("nodeName", ""))) if pod is not None and is_active(pod) else None
    if pod is None or node is None:
        return
    taints = list(taints_of(node, EFFECT))
    left = seconds_left(pod["spec"], taints, view.now)
    if left is not None:
        left = max(left, _youth(pod, taints, view.now))
    if left is not None and left <= 0:
        yield Note(pod, "TaintManagerEviction", f"Marking for deletion Pod {'/'.join(key)}")
        yield Patch("pods", pod, {"status": {"conditions": disrupted(pod, BY_TAINT, rfc3339(view.now))}}, "status")
        yield Delete("pods", pod)
    elif left is not None:
        yield Again(left)


def _youth(pod: Object, taints: Sequence[Object], now: datetime.datetime) -> float:
    """How long a pod that came after a taint is young still; 0 for others."""
    created = datetime.datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    added = [datetime.datetime.fromisoformat(taint["timeAdded"]) for taint in taints if taint.get("timeAdded")]
    return max(0.0, YOUNG_SECONDS - (now - created).total_seconds()) if added and min(added) < created else 0.0


def seconds_left(spec: Object, taints: Sequence[Object], now: datetime.datetime) -> float | None:
    """How long a pod may stay on a node with these taints; None for ever."""
    stays = (_stands(spec, taint, now) for taint in taints)
    return min((seconds for seconds in stays if seconds is not None), default=None)


def _stands(spec: Object, taint: Object, now: datetime.datetime) -> float | None:
    """How long it still stands one taint. Of several tolerations the shortest counts; one without a time is for ever."""
    matching = [toleration for toleration in spec.get("tolerations", ()) if covers(toleration, taint)]
    if not matching:
        return 0.0
    times: list[int] = [t["tolerationSeconds"] for t in matching if t.get("tolerationSeconds") is not None]
    if not times or not taint.get("timeAdded"):  # the node lifecycle controller is about to say since when
        return None
    since = datetime.datetime.fromisoformat(taint["timeAdded"])
    return max(0.0, min(times)) - (now - since).total_seconds()


def _pods_of(view: View, node: Object) -> Iterable[Key]:
    """A node that drives pods out concerns all its pods."""
    return map(key_of, view.on_node(node["metadata"]["name"])) if any(taints_of(node, EFFECT)) else ()


def _itself(view: View, pod: Object) -> Iterable[Key]:
    """A pod is concerned when its node drives pods out."""
    name = pod["spec"].get("nodeName")
    node = view.get("nodes", ("", name)) if name else None
    if node is not None and any(taints_of(node, EFFECT)):
        yield key_of(pod)


CONTROLLER = Controller("taint-eviction-controller", {"nodes": _pods_of, "pods": _itself}, _decide)

"""Taints that drive pods out: NoExecute, at once or after the time that a pod stands them.

Source: Kubernetes' controller-manager (taint-eviction-controller), "Taints and Tolerations".
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence

from podplane.apiserver.controllers.decision import Action, Again, Controller, Delete, Key, Note, Object, Patch, View, itself
from podplane.apiserver.controllers.placement import covers, taints_of
from podplane.apiserver.controllers.pods import is_active

EFFECT = "NoExecute"


def _decide(view: View, key: Key) -> Iterable[Action]:
    node = view.get("nodes", key)
    if node is None:
        return
    taints = list(taints_of(node, EFFECT))
    if not taints:
        return
    if not all(taint.get("timeAdded") for taint in taints):
        yield Patch("nodes", node, {"spec": {"taints": list(_stamped(node, view.now))}})
        return
    for pod in view.on_node(key[1]):
        left = seconds_left(pod["spec"], taints, view.now) if is_active(pod) else None
        if left is not None and left <= 0:
            path = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            yield Note(pod, "TaintManagerEviction", f"Marking for deletion Pod {path}")
            yield Delete("pods", pod)
        elif left is not None:
            yield Again(left)


def seconds_left(spec: Object, taints: Sequence[Object], now: datetime.datetime) -> float | None:
    """How long a pod may stay on a node with these taints; None for ever."""
    stays = (_stands(spec, taint, now) for taint in taints)
    return min((seconds for seconds in stays if seconds is not None), default=None)


def _stands(spec: Object, taint: Object, now: datetime.datetime) -> float | None:
    """How long it still stands one taint. Of several tolerations the shortest counts; one without a time is for ever."""
    matching = [toleration for toleration in spec.get("tolerations", ()) if covers(toleration, taint)]
    if not matching:
        return 0.0
    times: list[int] = [
        toleration["tolerationSeconds"] for toleration in matching if toleration.get("tolerationSeconds") is not None
    ]
    if not times:
        return None
    since = datetime.datetime.fromisoformat(taint["timeAdded"])
    return max(0.0, min(times)) - (now - since).total_seconds()


def _stamped(node: Object, now: datetime.datetime) -> Iterator[Object]:
    """The taints, with the time for those that drive out and lack it: kubectl leaves it to us."""
    for taint in node["spec"]["taints"]:
        lacks = taint.get("effect") == EFFECT and not taint.get("timeAdded")
        yield {**taint, "timeAdded": now.strftime("%Y-%m-%dT%H:%M:%SZ")} if lacks else taint


def _its_node(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns its node, if that drives pods out."""
    name = pod["spec"].get("nodeName")
    node = view.get("nodes", ("", name)) if name else None
    if node is not None and any(taints_of(node, EFFECT)):
        yield "", name


CONTROLLER = Controller("taint-eviction-controller", {"nodes": itself, "pods": _its_node}, _decide)

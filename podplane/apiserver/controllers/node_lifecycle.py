"""Nodes that are not heard of: their condition Ready, their taints, and the readiness of their pods.

A kubelet renews its node's Lease. A node whose Lease grew old is Unknown, and its taints keep pods away or drive them out. When most
nodes are silent at once, it is not they who failed: a lost API or a suspended machine evicts nothing.

Sources: Kubernetes' controller-manager (node-lifecycle), KEP-589 (leases), "Taint based Evictions".
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from podplane.apiserver.controllers.decision import Action, Again, Controller, Note, Patch, View
from podplane.apiserver.controllers.pods import condition_of
from podplane.controllers.objects import Key, Object, key_of

LEASES, LEASE_NAMESPACE = "leases.coordination.k8s.io", "kube-node-lease"
SILENT = 0.5
"""From this part of its grace on a node counts among the silent when it is asked whether most of them are: renewals have failed to come."""
MOST = 0.55
"""This share of nodes does not fail at once by chance (--unhealthy-zone-threshold)."""
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
"""Taints that keep new pods away while a condition holds."""
OWN = {NOT_READY, UNREACHABLE, UNSCHEDULABLE, *PRESSURES.values()}
REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
"""Conditions that are a kubelet's to report."""


def _decide(view: View, key: Key) -> Iterable[Action]:
    node = view.get("nodes", key)
    if node is None:
        return
    left = view.node_grace - silence_of(view, node)
    state = ready_state(node)
    if left > 0:
        yield Again(left)
    elif state != "Unknown":
        state = "Unknown"
        yield Patch("nodes", node, {"status": {"conditions": _unknown(node, view.now)}}, "status")
        yield Note(node, "NodeNotReady", f"Node {key[1]} status is now: NodeNotReady")
    outage = state != "True" and is_outage(view)
    if state == "Unknown" and not outage:
        yield from _mark_pods(view, key[1])
    taints = node.get("spec", {}).get("taints", [])
    wanted = _taints(node, state, outage, view.now)
    if wanted != taints:
        yield Patch("nodes", node, {"spec": {"taints": wanted or None}})


def ready_state(node: Object) -> str:
    """The status of its condition Ready: True, False or Unknown."""
    ready = condition_of(node, "Ready")
    return ready["status"] if ready is not None else "False"


def silence_of(view: View, node: Object) -> float:
    """Seconds since the node was heard of, or since there is somebody to listen."""
    lease = view.get(LEASES, (LEASE_NAMESPACE, node["metadata"]["name"]))
    ready = condition_of(node, "Ready") or {}
    said = (
        node["metadata"]["creationTimestamp"],
        ready.get("lastHeartbeatTime"),
        lease.get("spec", {}).get("renewTime") if lease is not None else None,
    )
    heard = max(view.awake_since, *(datetime.datetime.fromisoformat(text) for text in said if text))
    return (view.now - heard).total_seconds()


def is_outage(view: View) -> bool:
    """Are most nodes silent, or not ready, at once?"""
    nodes = view.all("nodes")
    failing = sum(ready_state(node) != "True" or silence_of(view, node) > SILENT * view.node_grace for node in nodes)
    return failing >= MOST * len(nodes)


def _unknown(node: Object, now: datetime.datetime) -> list[Object]:
    """The conditions of a node that nobody hears of."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    words = {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
    never = {"status": "Unknown", "reason": "NodeStatusNeverUpdated", "message": "Kubelet never posted node status."}
    conditions = node.get("status", {}).get("conditions", [])
    found = [{**c, **words, "lastTransitionTime": stamp} if c["type"] in REPORTED else c for c in conditions]
    known = {c["type"] for c in conditions}
    return found + [{"type": kind, **never, "lastTransitionTime": stamp} for kind in REPORTED if kind not in known]


def _taints(node: Object, state: str, outage: bool, now: datetime.datetime) -> list[Object]:
    """The node's taints as they should be: those of others, and those of its state; what is there stays as it is."""
    present = node.get("spec", {}).get("taints", [])
    wanted = list(_wanted(node, state, outage))
    kept = [_stamped(t, now) for t in present if t["key"] not in OWN or (t["key"], t["effect"]) in wanted]
    there = {(t["key"], t["effect"]) for t in kept}
    return kept + [_taint(key, effect, now) for key, effect in wanted if (key, effect) not in there]


def _wanted(node: Object, state: str, outage: bool) -> Iterator[tuple[str, str]]:
    """(key, effect) of the taints that a node of this state has."""
    if node.get("spec", {}).get("unschedulable"):
        yield UNSCHEDULABLE, "NoSchedule"
    for kind, key in PRESSURES.items():
        condition = condition_of(node, kind)
        if condition is not None and condition["status"] == "True":
            yield key, "NoSchedule"
    if state != "True":
        key = UNREACHABLE if state == "Unknown" else NOT_READY
        yield key, "NoSchedule"
        if not outage:
            yield key, "NoExecute"


def _taint(key: str, effect: str, now: datetime.datetime) -> Object:
    return {"key": key, "effect": effect, "timeAdded": now.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _stamped(taint: Object, now: datetime.datetime) -> Object:
    """With the time since when it drives pods out: kubectl leaves it to us."""
    lacks = taint["effect"] == "NoExecute" and not taint.get("timeAdded")
    return {**taint, **_taint(taint["key"], taint["effect"], now)} if lacks else taint


def _mark_pods(view: View, node: str) -> Iterator[Action]:
    """Pods of a node that nobody hears of are not ready: Services send them nothing."""
    stamp = view.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    for pod in view.on_node(node):
        ready = condition_of(pod, "Ready")
        if ready is None or ready["status"] != "True":
            continue
        conditions = pod["status"]["conditions"]
        unready = {**ready, "status": "False", "lastTransitionTime": stamp}
        yield Patch("pods", pod, {"status": {"conditions": [unready if c is ready else c for c in conditions]}}, "status")
        yield Note(pod, "NodeNotReady", "Node is not ready", "Warning")


def _nodes(view: View, node: Object) -> Iterator[Key]:
    """A node that comes, goes, or changes concerns itself, and those that fail: is it an outage?"""
    yield key_of(node)
    for other in view.all("nodes"):
        if ready_state(other) != "True":
            yield key_of(other)


def _node_of(_: View, lease: Object) -> Iterable[Key]:
    if lease["metadata"]["namespace"] == LEASE_NAMESPACE:
        yield "", lease["metadata"]["name"]


CONTROLLER = Controller("node-controller", {"nodes": _nodes, LEASES: _node_of}, _decide)

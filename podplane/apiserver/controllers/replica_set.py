"""ReplicaSet: so many pods of one template (kube-controller-manager, pkg/controller/replicaset)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from podplane.apiserver.controllers.decision import (
    Action,
    Again,
    Controller,
    Create,
    Delete,
    Key,
    Note,
    Object,
    Patch,
    View,
    controller_of,
    its_controller,
    itself,
    key_of,
    owned_by,
)
from podplane.apiserver.controllers.pods import available_in, is_active, is_ready, made_of
from podplane.apiserver.kinds.names import matches

RESOURCE, KIND, API_VERSION = "replicasets.apps", "ReplicaSet", "apps/v1"
BURST = 500
"""So many pods at most are made or deleted by one decision."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
RANKS = {"Pending": 0, "Unknown": 1, "Running": 2}


def _of_orphans(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns its ReplicaSet; one without a controller concerns those that may adopt it."""
    yield from its_controller(KIND)(view, pod)
    if controller_of(pod) is None and pod["metadata"].get("labels"):
        for replica_set in view.all(RESOURCE, pod["metadata"]["namespace"]):
            if matches(replica_set["spec"]["selector"], pod["metadata"]["labels"]):
                yield key_of(replica_set)


def _decide(view: View, key: Key) -> Iterator[Action]:
    replica_set = view.get(RESOURCE, key)
    if replica_set is None:
        return
    if "deletionTimestamp" not in replica_set["metadata"]:
        yield from release(view, replica_set)
        yield from adopt(view, replica_set, KIND, API_VERSION)
        yield from _scale(replica_set, [pod for pod in view.controlled("pods", replica_set) if is_active(pod)])
    yield from _status(view, key)


def release(view: View, owner: Object) -> Iterator[Action]:
    """Let go of pods that match no more."""
    for pod in view.controlled("pods", owner):
        if is_active(pod) and not matches(owner["spec"]["selector"], pod["metadata"].get("labels", {})):
            kept = [o for o in pod["metadata"]["ownerReferences"] if o["uid"] != owner["metadata"]["uid"]]
            yield Patch("pods", pod, {"metadata": {"ownerReferences": kept or None}})


def adopt(view: View, owner: Object, kind: str, api_version: str) -> Iterator[Action]:
    """Take pods that match and have no controller."""
    for pod in view.orphans("pods", owner["metadata"]["namespace"]):
        if is_active(pod) and matches(owner["spec"]["selector"], pod["metadata"].get("labels", {})):
            others = pod["metadata"].get("ownerReferences", [])
            yield Patch("pods", pod, {"metadata": {"ownerReferences": [*others, owned_by(owner, kind, api_version)]}})


def _scale(replica_set: Object, pods: Sequence[Object]) -> Iterator[Action]:
    difference = len(pods) - replica_set["spec"].get("replicas", 1)
    for _ in range(min(-difference, BURST)):
        made = made_of(replica_set["spec"]["template"], replica_set, KIND, API_VERSION)
        yield Create("pods", replica_set["metadata"]["namespace"], made)
    if difference > 0:
        crowd: dict[str, int] = {}
        for pod in pods:
            node = pod["spec"].get("nodeName", "")
            crowd[node] = crowd.get(node, 0) + 1
        for pod in sorted(pods, key=lambda pod: _keep(pod, crowd))[: min(difference, BURST)]:
            yield Note(replica_set, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
            yield Delete("pods", pod)


def _keep(pod: Object, crowd: dict[str, int]) -> tuple[object, ...]:
    """A sort key with those first that are least worth keeping (controller_utils.go, ActivePodsWithRanks)."""
    metadata, status = pod["metadata"], pod.get("status", {})
    node = pod["spec"].get("nodeName", "")
    restarts = max((c.get("restartCount", 0) for c in status.get("containerStatuses", ())), default=0)
    cost = metadata.get("annotations", {}).get(DELETION_COST, "0")
    return (
        bool(node),
        RANKS.get(status.get("phase", "Pending"), 0),
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdecimal() else 0,
        -crowd[node],
        -restarts,
        _reversed(metadata["creationTimestamp"]),
        metadata["name"],
    )


def _reversed(text: str) -> tuple[int, ...]:
    """Sorts texts the other way round."""
    return tuple(-ord(letter) for letter in text)


def _status(view: View, key: Key) -> Iterator[Action]:
    replica_set = view.get(RESOURCE, key)
    if replica_set is None:
        return
    spec, old = replica_set["spec"], replica_set.get("status", {})
    owned = view.controlled("pods", replica_set)
    pods = [pod for pod in owned if is_active(pod)]
    waits = [available_in(pod, spec.get("minReadySeconds", 0), view.now) for pod in pods]
    labels = spec["template"].get("metadata", {}).get("labels", {}).items()
    new: Object = {
        "replicas": len(pods),
        "fullyLabeledReplicas": sum(labels <= pod["metadata"].get("labels", {}).items() for pod in pods),
        "readyReplicas": sum(map(is_ready, pods)),
        "availableReplicas": sum(wait == 0 for wait in waits),
        "terminatingReplicas": sum("deletionTimestamp" in pod["metadata"] for pod in owned),
        "observedGeneration": replica_set["metadata"].get("generation", 0),
    }
    if any(old.get(field) != value for field, value in new.items()):
        yield Patch(RESOURCE, replica_set, {"status": new}, "status")
    if pending := [wait for wait in waits if wait]:
        yield Again(min(pending) + 0.01)


CONTROLLER = Controller("replicaset-controller", {RESOURCE: itself, "pods": _of_orphans}, _decide)

"""ReplicaSet: so many pods of one template (kube-controller-manager, pkg/controller/replicaset)."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from podplane.apiserver.controllers.decision import (
    Action,
    Again,
    Controller,
    Create,
    Delete,
    Note,
    Patch,
    View,
    its_controller,
    itself,
)
from podplane.apiserver.controllers.pods import (
    BURST,
    available_in,
    condition_of,
    is_active,
    is_ready,
    made_of,
    rfc3339,
    set_condition,
)
from podplane.controllers.objects import Key, Object, controller_of, key_of, matches, owned_by
from podplane.kubeapi.errors import ApiError

RESOURCE, KIND, API_VERSION = "replicasets.apps", "ReplicaSet", "apps/v1"
DELETION_COST, COST = "controller.kubernetes.io/pod-deletion-cost", re.compile("0|-?[1-9][0-9]{0,9}", re.ASCII)
FAILURE = "ReplicaFailure"
RANKS = {"Pending": 0, "Unknown": 1, "Running": 2}


def _of_orphans(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns its ReplicaSet; one without a controller concerns those that may adopt it."""
    yield from its_controller(KIND)(view, pod)
    if controller_of(pod) is None and pod["metadata"].get("labels"):
        for replica_set in view.may_select(RESOURCE, pod["metadata"]["namespace"], pod["metadata"]["labels"]):
            if matches(replica_set["spec"]["selector"], pod["metadata"]["labels"]):
                yield key_of(replica_set)


def _decide(view: View, key: Key) -> Iterator[Action]:
    replica_set = view.get(RESOURCE, key)
    if replica_set is None:
        return
    if "deletionTimestamp" not in replica_set["metadata"]:
        yield from release(view, replica_set)
        adopted = list(adopt(view, replica_set, KIND, API_VERSION))
        yield from adopted
        if len(adopted) == BURST:
            return
        try:
            yield from _scale(view, replica_set)
        except ApiError as error:
            yield from _status(view, key, str(error))
            raise
    yield from _status(view, key)


def release(view: View, owner: Object) -> Iterator[Action]:
    """Let go of pods that match no more."""
    selector, pods = owner["spec"]["selector"], filter(is_active, view.controlled("pods", owner))
    strangers = (pod for pod in pods if not matches(selector, pod["metadata"].get("labels", {})))
    for pod in itertools.islice(strangers, BURST):
        kept = [o for o in pod["metadata"]["ownerReferences"] if o["uid"] != owner["metadata"]["uid"]]
        yield Patch("pods", pod, {"metadata": {"ownerReferences": kept or None}})


def adopt(
    view: View, owner: Object, kind: str, api_version: str, may: Callable[[Object], bool] = lambda _: True
) -> Iterator[Action]:
    """Take pods that match, have no controller, and may be its pods. After `BURST` more may follow: nobody makes others instead."""
    found = (
        pod for pod in view.unowned(owner["metadata"]["namespace"], owner["spec"]["selector"]) if is_active(pod) and may(pod)
    )
    for pod in itertools.islice(found, BURST):
        others = pod["metadata"].get("ownerReferences", [])
        yield Patch("pods", pod, {"metadata": {"ownerReferences": [*others, owned_by(owner, kind, api_version)]}})


def _scale(view: View, replica_set: Object) -> Iterator[Action]:
    pods = _active(view, replica_set)
    difference = len(pods) - replica_set["spec"].get("replicas", 1)
    for _ in range(min(-difference, BURST)):
        made = made_of(replica_set["spec"]["template"], replica_set, KIND, API_VERSION)
        yield Create("pods", replica_set["metadata"]["namespace"], made)
    if difference > 0:
        related = (pod for one in _siblings(view, replica_set) for pod in _active(view, one))
        crowd = Counter(pod["spec"].get("nodeName", "") for pod in related)
        for pod in sorted(pods, key=lambda pod: worth(pod, crowd))[: min(difference, BURST)]:
            yield Note(replica_set, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
            yield Delete("pods", pod)


def _active(view: View, replica_set: Object) -> list[Object]:
    return [pod for pod in view.controlled("pods", replica_set) if is_active(pod)]


def _siblings(view: View, replica_set: Object) -> list[Object]:
    """The ReplicaSets of the same Deployment, this one among them: in a rollout, the crowd on a node is of all of them."""
    owner = controller_of(replica_set)
    if owner is None:
        return [replica_set]
    place = {"namespace": replica_set["metadata"]["namespace"], "name": owner["name"], "uid": owner["uid"]}
    return view.controlled(RESOURCE, {"kind": owner["kind"], "metadata": place})


def worth(pod: Object, crowd: Mapping[str, int]) -> tuple[object, ...]:
    """A sort key with those first that are least worth keeping (controller_utils.go, ActivePodsWithRanks)."""
    metadata, status = pod["metadata"], pod.get("status", {})
    node = pod["spec"].get("nodeName", "")
    restarts = max((c.get("restartCount", 0) for c in status.get("containerStatuses", ())), default=0)
    ready = condition_of(pod, "Ready") or {}
    return (
        bool(node),
        RANKS.get(status.get("phase", "Pending"), 0),
        is_ready(pod),
        _cost(pod),
        -crowd[node],
        _reversed(ready.get("lastTransitionTime") or "") if is_ready(pod) else (),
        -restarts,
        _reversed(metadata["creationTimestamp"]),
        metadata["name"],
    )


def _cost(pod: Object) -> int:
    """What its deletion costs, as the user says; 0 for what is no number."""
    text = pod["metadata"].get("annotations", {}).get(DELETION_COST, "")
    return int(text) if COST.fullmatch(text) else 0


def _reversed(text: str) -> tuple[int, ...]:
    """Sorts texts the other way round."""
    return tuple(-ord(letter) for letter in text)


def _status(view: View, key: Key, failure: str = "") -> Iterator[Action]:
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
    conditions = _conditions(old.get("conditions", []), failure, rfc3339(view.now))
    if conditions != old.get("conditions", []):
        new["conditions"] = conditions
    if any(old.get(field) != value for field, value in new.items()):
        yield Patch(RESOURCE, replica_set, {"status": new}, "status")
    if pending := [wait for wait in waits if wait]:
        yield Again(min(pending) + 0.01)


def _conditions(old: list[Object], failure: str, now: str) -> list[Object]:
    """Whether a pod could not be made, and why the first time: were each told, each would be a write that makes it try again."""
    if not failure:
        return [condition for condition in old if condition["type"] != FAILURE]
    if any(condition["type"] == FAILURE for condition in old):
        return old
    return set_condition(old, {"type": FAILURE, "status": "True", "reason": "FailedCreate", "message": failure}, now)


def _of_a_set(replica_set: Object) -> object:
    """What of a ReplicaSet is not its own doing."""
    metadata = replica_set["metadata"]
    return replica_set["spec"], metadata.get("generation"), "deletionTimestamp" in metadata


def _of_a_pod(pod: Object) -> object:
    """What of a pod its ReplicaSet looks at."""
    metadata, ready = pod["metadata"], condition_of(pod, "Ready")
    kin = (metadata.get("labels"), metadata.get("ownerReferences"))
    return *kin, pod.get("status", {}).get("phase"), "deletionTimestamp" in metadata, ready


CONTROLLER = Controller(
    "replicaset-controller",
    {RESOURCE: itself, "pods": _of_orphans},
    _decide,
    matters={RESOURCE: _of_a_set, "pods": _of_a_pod},
)

"""Deployment: one ReplicaSet for each template it ever had, and pods that move from the old ones to the new one.

Actions are carried out as they are decided, so each step here sees what the step before it did. Sources: kube-controller-manager,
pkg/controller/deployment (sync.go, rolling.go, recreate.go, progress.go).
"""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Iterator, Sequence

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
from podplane.apiserver.controllers.pods import condition_of, hash_of, rfc3339, set_condition, share
from podplane.apiserver.controllers.replica_set import FAILURE
from podplane.controllers.objects import Key, Object, matches, owned_by
from podplane.model.phases import ENDED

RESOURCE, REPLICA_SETS, KIND, API_VERSION = "deployments.apps", "replicasets.apps", "Deployment", "apps/v1"
HASH = "pod-template-hash"
REVISION, HISTORY = "deployment.kubernetes.io/revision", "deployment.kubernetes.io/revision-history"
DESIRED, MAXIMUM = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
NUMBER = re.compile("[0-9]{1,18}")
NOT_COPIED = (REVISION, HISTORY, DESIRED, MAXIMUM, "kubectl.kubernetes.io/last-applied-configuration")
PROGRESSING, AVAILABLE = "Progressing", "Available"
DEFAULT_DEADLINE, DEFAULT_HISTORY = 600, 10


def _decide(view: View, key: Key) -> Iterator[Action]:
    deployment = view.get(RESOURCE, key)
    if deployment is None:
        return
    if "deletionTimestamp" not in deployment["metadata"]:
        yield from _adopt(view, deployment)
        rollout = _Rollout(view, deployment)
        if deployment["spec"].get("paused") or rollout.is_scaling:
            yield from rollout.scale_all()
        elif deployment["spec"].get("strategy", {}).get("type") == "Recreate":
            yield from rollout.recreate()
        else:
            yield from rollout.roll()
        yield from _Rollout(view, deployment).clean_up()
    yield from _status(view, key)


def _adopt(view: View, deployment: Object) -> Iterator[Action]:
    for replica_set in view.orphans(REPLICA_SETS, deployment["metadata"]["namespace"]):
        labels = replica_set["metadata"].get("labels", {})
        if labels and matches(deployment["spec"]["selector"], labels) and "deletionTimestamp" not in replica_set["metadata"]:
            owners = [*replica_set["metadata"].get("ownerReferences", []), owned_by(deployment, KIND, API_VERSION)]
            yield Patch(REPLICA_SETS, replica_set, {"metadata": {"ownerReferences": owners}})


def _replicas(replica_set: Object) -> int:
    wanted: int = replica_set["spec"].get("replicas", 1)
    return wanted


def _available(replica_set: Object) -> int:
    found: int = replica_set.get("status", {}).get("availableReplicas", 0)
    return found


def revision_of(object_: Object) -> int:
    """The revision in an object's annotation, 0 without one."""
    return _noted(object_, REVISION, 0)


def _noted(object_: Object, name: str, default: int) -> int:
    """The number in an annotation; the default when there is none, or what anybody wrote there is none."""
    text = object_["metadata"].get("annotations", {}).get(name, "")
    return int(text) if NUMBER.fullmatch(text) else default


def _same_template(one: Object, other: Object) -> bool:
    """Are two templates equal, but for the hash among their labels?"""

    def plain(template: Object) -> Object:
        metadata = dict(template.get("metadata", {}))
        metadata["labels"] = {k: v for k, v in metadata.get("labels", {}).items() if k != HASH}
        return {**template, "metadata": metadata}

    return plain(one) == plain(other)


class _Rollout:
    """The ReplicaSets of a Deployment as they are stored now, and the steps towards its newest template."""

    def __init__(self, view: View, deployment: Object) -> None:
        self.view, self.deployment, self.spec = view, deployment, deployment["spec"]

    @property
    def sets(self) -> list[Object]:
        """All ReplicaSets, the oldest first."""
        found = self.view.controlled(REPLICA_SETS, self.deployment)
        return sorted(found, key=lambda rs: (rs["metadata"]["creationTimestamp"], rs["metadata"]["name"]))

    @property
    def new(self) -> Object | None:
        """The ReplicaSet of the newest template, if there is one."""
        return next((rs for rs in self.sets if _same_template(rs["spec"]["template"], self.spec["template"])), None)

    @property
    def old(self) -> list[Object]:
        """All others."""
        new = self.new
        return [rs for rs in self.sets if new is None or rs["metadata"]["uid"] != new["metadata"]["uid"]]

    @property
    def replicas(self) -> int:
        """How many pods are wanted."""
        wanted: int = self.spec.get("replicas", 1)
        return wanted

    @property
    def bounds(self) -> tuple[int, int]:
        """(most pods beyond the wanted ones, most of these that may be missing); at least one of them is not 0."""
        rolling = self.spec.get("strategy", {}).get("rollingUpdate", {})
        if self.spec.get("strategy", {}).get("type") == "Recreate":
            return 0, 0
        surge = share(rolling.get("maxSurge"), self.replicas, up=True)
        missing = share(rolling.get("maxUnavailable"), self.replicas, up=False)
        return (surge, missing) if surge or missing else (0, 1)

    @property
    def is_scaling(self) -> bool:
        """Was the Deployment scaled since its ReplicaSets were?"""
        active = [rs for rs in self.sets if _replicas(rs) > 0]
        return any(
            rs["metadata"].get("annotations", {}).get(DESIRED, str(self.replicas)) != str(self.replicas) for rs in active
        )

    # Steps.

    def ensure_new(self) -> Iterator[Action]:
        """The ReplicaSet of the newest template is there, and has the newest revision."""
        highest = max(map(revision_of, self.old), default=0)
        new = self.new
        if new is None:
            yield from self._create(highest + 1)
        else:
            yield from self._annotate(new, max(revision_of(new), highest + 1))
        new = self.new
        if new is not None and self.deployment["metadata"].get("annotations", {}).get(REVISION) != str(revision_of(new)):
            yield Patch(RESOURCE, self.deployment, {"metadata": {"annotations": {REVISION: str(revision_of(new))}}})

    def _create(self, revision: int) -> Iterator[Action]:
        digest = hash_of(self.spec["template"], self.deployment.get("status", {}).get("collisionCount", 0))
        metadata = self.deployment["metadata"]
        template = copy.deepcopy(self.spec["template"])
        labels = {**template.get("metadata", {}).get("labels", {}), HASH: digest}
        template.setdefault("metadata", {})["labels"] = labels
        selector = copy.deepcopy(self.spec["selector"])
        selector["matchLabels"] = {**selector.get("matchLabels", {}), HASH: digest}
        recreating = self.spec.get("strategy", {}).get("type") == "Recreate"
        replicas = self.replicas if recreating or not self.old else self._room(0)
        name = f"{metadata['name']}-{digest}"
        yield Create(
            REPLICA_SETS,
            metadata["namespace"],
            {
                "metadata": {
                    "name": name,
                    "labels": labels,
                    "annotations": {**self._copied(), **self._own(revision)},
                    "ownerReferences": [owned_by(self.deployment, KIND, API_VERSION)],
                },
                "spec": {
                    "replicas": replicas,
                    "minReadySeconds": self.spec.get("minReadySeconds", 0),
                    "selector": selector,
                    "template": template,
                },
            },
        )
        there = self.view.get(REPLICA_SETS, (metadata["namespace"], name))
        if there is not None and self.new is None:  # somebody else's, of the same name
            count = self.deployment.get("status", {}).get("collisionCount", 0) + 1
            yield Patch(RESOURCE, self.deployment, {"status": {"collisionCount": count}}, "status")
        elif replicas:
            yield Note(self.deployment, "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {replicas}")

    def _copied(self) -> dict[str, str]:
        return {k: v for k, v in self.deployment["metadata"].get("annotations", {}).items() if k not in NOT_COPIED}

    def _own(self, revision: int) -> dict[str, str]:
        surge, _ = self.bounds
        return {REVISION: str(revision), DESIRED: str(self.replicas), MAXIMUM: str(self.replicas + surge)}

    def _annotate(self, new: Object, revision: int) -> Iterator[Action]:
        """Keep the newest ReplicaSet's annotations and minReadySeconds those of the Deployment."""
        own = new["metadata"].get("annotations", {})
        wanted = {**self._copied(), REVISION: str(revision)}
        if revision != revision_of(new) and revision_of(new):
            wanted[HISTORY] = ",".join(filter(None, (own.get(HISTORY, ""), str(revision_of(new)))))
        seconds = self.spec.get("minReadySeconds", 0)
        if any(own.get(k) != v for k, v in wanted.items()) or new["spec"].get("minReadySeconds", 0) != seconds:
            yield Patch(REPLICA_SETS, new, {"metadata": {"annotations": wanted}, "spec": {"minReadySeconds": seconds}})

    def _set(self, replica_set: Object, replicas: int) -> Iterator[Action]:
        """Scale one ReplicaSet, and say so; its annotations say for how many it was."""
        before, annotations = _replicas(replica_set), self._own(revision_of(replica_set))
        own = replica_set["metadata"].get("annotations", {})
        if before == replicas and all(own.get(k) == v for k, v in annotations.items()):
            return
        yield Patch(REPLICA_SETS, replica_set, {"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}})
        if before != replicas:
            way = "up" if replicas > before else "down"
            text = f"Scaled {way} replica set {replica_set['metadata']['name']} from {before} to {replicas}"
            yield Note(self.deployment, "ScalingReplicaSet", text)

    def _room(self, has: int) -> int:
        """How many the newest ReplicaSet, which has so many, may have now."""
        surge, _ = self.bounds
        total = sum(map(_replicas, self.sets))
        return max(has, min(self.replicas, has + self.replicas + surge - total))

    def roll(self) -> Iterator[Action]:
        """A step of a rolling update: up with the new one as far as there is room, down with the old as far as enough are available."""
        yield from self.ensure_new()
        if (new := self.new) is None:
            return
        has = _replicas(new)
        yield from self._set(new, self.replicas if has > self.replicas else self._room(has))
        yield from self._shrink_old()

    def _shrink_old(self) -> Iterator[Action]:
        _, missing = self.bounds
        new, minimum = self.new, self.replicas - missing
        if new is None:
            return
        total = sum(map(_replicas, self.sets))
        spare = total - minimum - max(0, _replicas(new) - _available(new))
        for old in self.old:  # those that don't work go first: nobody misses them
            unavailable = _replicas(old) - _available(old)
            gone = max(0, min(unavailable, spare))
            if gone:
                spare -= gone
                yield from self._set(old, _replicas(old) - gone)
        spare = min(spare, sum(map(_available, self.sets)) - minimum)
        for old in self.old:
            gone = max(0, min(_replicas(old), spare))
            if gone:
                spare -= gone
                yield from self._set(old, _replicas(old) - gone)

    def recreate(self) -> Iterator[Action]:
        """First all old pods go, then the new ones come."""
        for old in self.old:
            if _replicas(old):
                yield from self._set(old, 0)
        lives = (pod for old in self.old for pod in self.view.controlled("pods", old))
        if any(pod.get("status", {}).get("phase") not in ENDED for pod in lives):
            return
        yield from self.ensure_new()
        if (new := self.new) is not None:
            yield from self._set(new, self.replicas)

    def scale_all(self) -> Iterator[Action]:
        """Scaled in the middle of a rollout, or paused: all that have pods get their part of the change (sync.go, scale)."""
        active = [rs for rs in self.sets if _replicas(rs) > 0]
        if len(active) <= 1:
            only = active[0] if active else self.new
            if only is not None:
                yield from self._set(only, self.replicas)
            return
        new = self.new
        if new is not None and _replicas(new) == self.replicas == _available(new):
            for old in self.old:
                yield from self._set(old, 0)
            return
        yield from self._spread(active)

    def _spread(self, active: Sequence[Object]) -> Iterator[Action]:
        """Each gets its part, the larger ones first, of equals the newer when it grows; what rounding leaves goes to the first."""
        surge, _ = self.bounds
        total = sum(map(_replicas, active))
        left = (self.replicas + surge if self.replicas else 0) - total
        by_age = sorted(active, key=lambda rs: (rs["metadata"]["creationTimestamp"], revision_of(rs)), reverse=left > 0)
        ordered = sorted(by_age, key=_replicas, reverse=True)
        wanted = {rs["metadata"]["uid"]: _replicas(rs) for rs in ordered}
        todo = left
        for rs in ordered:
            before = _noted(rs, MAXIMUM, total) or 1
            part = round(_replicas(rs) * (self.replicas + surge) / before) - _replicas(rs)
            part = max(-_replicas(rs), max(part, todo) if todo < 0 else min(part, todo) if todo > 0 else 0)
            wanted[rs["metadata"]["uid"]] += part
            todo -= part
        if ordered:
            first = ordered[0]["metadata"]["uid"]
            wanted[first] = max(0, wanted[first] + todo)
        for rs in ordered:
            yield from self._set(rs, wanted[rs["metadata"]["uid"]])

    def clean_up(self) -> Iterator[Action]:
        """Forget the oldest ReplicaSets without pods, once the rollout is complete."""
        if not _is_complete(self):
            return
        idle = [rs for rs in self.old if not _replicas(rs) and not rs.get("status", {}).get("replicas")]
        idle = [rs for rs in idle if "deletionTimestamp" not in rs["metadata"]]
        idle.sort(key=revision_of)
        for rs in idle[: max(0, len(idle) - self.spec.get("revisionHistoryLimit", DEFAULT_HISTORY))]:
            yield Delete(REPLICA_SETS, rs)


def _is_complete(rollout: _Rollout) -> bool:
    """Are all pods new ones, as many as wanted, and available?"""
    new = rollout.new
    if new is None:
        return False
    status, wanted = new.get("status", {}), rollout.replicas
    total = sum(rs.get("status", {}).get("replicas", 0) for rs in rollout.sets)
    available = status.get("availableReplicas", 0)
    return bool(status.get("replicas", 0) == wanted == total and available == wanted == _replicas(new))


def _status(view: View, key: Key) -> Iterator[Action]:
    deployment = view.get(RESOURCE, key)
    if deployment is None:
        return
    rollout, old = _Rollout(view, deployment), deployment.get("status", {})
    new = _counts(view, rollout)
    now = rfc3339(view.now)
    conditions = _with_available(rollout, new, old.get("conditions", []), now)
    conditions = _with_progress(view, rollout, new, old, conditions)
    conditions = _with_failure(rollout, conditions)
    new["conditions"] = conditions
    if any(old.get(field) != value for field, value in new.items()):
        yield Patch(RESOURCE, deployment, {"status": new}, "status")
    progress = next((c for c in conditions if c["type"] == PROGRESSING), None)
    if progress is not None and progress["reason"] in WAITING and not deployment["spec"].get("paused"):
        deadline = deployment["spec"].get("progressDeadlineSeconds", DEFAULT_DEADLINE)
        yield Again(max(0.0, deadline - _age(progress, view.now)) + 0.5)


WAITING = ("ReplicaSetUpdated", "NewReplicaSetCreated", "FoundNewReplicaSet", "DeploymentResumed")
"""Reasons of Progressing that end at the deadline."""
COUNTED = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")


def _counts(view: View, rollout: _Rollout) -> Object:
    total = {field: sum(rs.get("status", {}).get(field, 0) for rs in rollout.sets) for field in ("replicas", "readyReplicas")}
    available = sum(map(_available, rollout.sets))
    new = rollout.new
    leaving = sum(rs.get("status", {}).get("terminatingReplicas", 0) for rs in rollout.sets)
    return {
        "observedGeneration": rollout.deployment["metadata"].get("generation", 0),
        "replicas": total["replicas"],
        "updatedReplicas": new.get("status", {}).get("replicas", 0) if new is not None else 0,
        "readyReplicas": total["readyReplicas"],
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(map(_replicas, rollout.sets)) - available),
        "terminatingReplicas": leaving,
    }


def _with_available(rollout: _Rollout, new: Object, conditions: list[Object], now: str) -> list[Object]:
    _, missing = rollout.bounds
    enough = new["availableReplicas"] >= rollout.replicas - missing
    word, verb = ("Available", "has") if enough else ("Unavailable", "does not have")
    condition = {
        "type": AVAILABLE,
        "status": "True" if enough else "False",
        "reason": f"MinimumReplicas{word}",
        "message": f"Deployment {verb} minimum availability.",
        "lastUpdateTime": now,
    }
    return set_condition(conditions, condition, now)


def _with_failure(rollout: _Rollout, conditions: list[Object]) -> list[Object]:
    """That pods can't be made is told as the ReplicaSet says it, the newest first."""
    sets = [*([rollout.new] if rollout.new is not None else []), *rollout.old]
    found = [condition for rs in sets if (condition := condition_of(rs, FAILURE)) is not None]
    return [c for c in conditions if c["type"] != FAILURE] + [
        {**c, "lastUpdateTime": c["lastTransitionTime"]} for c in found[:1]
    ]


def _has_progressed(new: Object, old: Object) -> bool:
    """Are there more new pods, fewer old ones, or do more of them work? (DeploymentProgressing)"""
    before = {field: old.get(field, 0) for field in COUNTED}
    fewer = new["replicas"] - new["updatedReplicas"] < before["replicas"] - before["updatedReplicas"]
    return fewer or any(new[field] > before[field] for field in COUNTED[1:])


def _with_progress(view: View, rollout: _Rollout, new: Object, old: Object, conditions: list[Object]) -> list[Object]:
    """Progressing: complete, on its way, or stuck for longer than the deadline."""
    now, name = rfc3339(view.now), rollout.deployment["metadata"]["name"]
    before = condition_of({"status": {"conditions": conditions}}, PROGRESSING)
    newest = rollout.new
    what = f'ReplicaSet "{newest["metadata"]["name"]}"' if newest is not None else f'Deployment "{name}"'

    def condition(status: str, reason: str, message: str) -> list[Object]:
        made = {"type": PROGRESSING, "status": status, "reason": reason, "message": message, "lastUpdateTime": now}
        return set_condition(conditions, made, now)

    if rollout.spec.get("paused"):
        return condition("Unknown", "DeploymentPaused", "Deployment is paused")
    if before is not None and before["reason"] == "DeploymentPaused":
        return condition("Unknown", "DeploymentResumed", "Deployment is resumed")
    is_done = before is not None and before["reason"] == "NewReplicaSetAvailable" and what in before["message"]
    if is_done and new["replicas"] == new["updatedReplicas"]:
        return conditions  # scaled, or a pod fails: the rollout was complete, and has no deadline any more
    if _is_complete(rollout):
        return condition("True", "NewReplicaSetAvailable", f"{what} has successfully progressed.")
    progressed = _has_progressed(new, old)
    if before is None or before["reason"] == "NewReplicaSetAvailable" or progressed:
        made = {"type": PROGRESSING, "status": "True", "reason": "ReplicaSetUpdated", "message": f"{what} is progressing."}
        others = [c for c in conditions if c["type"] != PROGRESSING]
        since = before["lastTransitionTime"] if before is not None and before["status"] == "True" else now
        return [*others, {**made, "lastTransitionTime": since, "lastUpdateTime": now}]
    deadline = rollout.spec.get("progressDeadlineSeconds", DEFAULT_DEADLINE)
    if _age(before, view.now) >= deadline:
        return condition("False", "ProgressDeadlineExceeded", f"{what} has timed out progressing.")
    return conditions


def _age(condition: Object, now: datetime.datetime) -> float:
    since = condition.get("lastUpdateTime") or condition["lastTransitionTime"]
    return (now - datetime.datetime.fromisoformat(since)).total_seconds()


CONTROLLER = Controller("deployment-controller", {RESOURCE: itself, REPLICA_SETS: its_controller(KIND)}, _decide)

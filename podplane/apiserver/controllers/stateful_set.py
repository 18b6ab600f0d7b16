"""StatefulSet: pods with names that stay, started in order and stopped in reverse (kube-controller-manager, pkg/controller/statefulset)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from podplane.apiserver.controllers import revisions
from podplane.apiserver.controllers.decision import (
    Action,
    Again,
    Controller,
    Create,
    Delete,
    Note,
    Patch,
    View,
    Wording,
    its_controller,
    itself,
)
from podplane.apiserver.controllers.pods import BURST, available_in, is_ready, made_of, share
from podplane.apiserver.controllers.replica_set import adopt, release
from podplane.controllers.objects import Key, Object, controller_of, key_of
from podplane.model.phases import ENDED

RESOURCE, KIND = "statefulsets.apps", "StatefulSet"
POD_NAME, POD_INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"


def _decide(view: View, key: Key) -> Iterator[Action]:
    stateful_set = view.get(RESOURCE, key)
    if stateful_set is None:
        return
    if "deletionTimestamp" not in stateful_set["metadata"]:
        yield from release(view, stateful_set)
        adopted = list(adopt(view, stateful_set, KIND, "apps/v1", lambda pod: _set_of(pod) == key))
        yield from adopted
        if len(adopted) == BURST:
            return
        pods = view.controlled("pods", stateful_set)
        yield from revisions.keep(view, stateful_set, KIND, {_hash(pod) for pod in pods})
        yield from _Members(view, stateful_set).step()
    yield from _status(view, key)


def _hash(pod: Object) -> str:
    found: str = pod["metadata"].get("labels", {}).get(revisions.HASH, "")
    return found


def _stays(pod: Object) -> bool:
    """Has nobody deleted it?"""
    return "deletionTimestamp" not in pod["metadata"]


def ordinal_of(pod: Object) -> int:
    """The number at the end of the pod's name, -1 for a name that is none of a member."""
    text = pod["metadata"]["name"].rpartition("-")[2]
    return int(text) if text.isdecimal() else -1


def _set_of(pod: Object) -> Key:
    """The StatefulSet that the pod is a member of by its name."""
    return pod["metadata"]["namespace"], pod["metadata"]["name"].rpartition("-")[0]


def _of_pod(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns its StatefulSet, and without a controller the one that may adopt it."""
    yield from its_controller(KIND)(view, pod)
    if controller_of(pod) is None and ordinal_of(pod) >= 0:
        yield _set_of(pod)


class _Members:
    """The members of a StatefulSet: those wanted by their numbers, and those there are."""

    def __init__(self, view: View, stateful_set: Object) -> None:
        self.view, self.set, self.spec = view, stateful_set, stateful_set["spec"]
        start = self.spec.get("ordinals", {}).get("start", 0)
        self.wanted = range(start, start + self.spec.get("replicas", 1))
        self.there = {ordinal_of(pod): pod for pod in view.controlled("pods", stateful_set)}
        self.in_order = self.spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
        strategy = self.spec.get("updateStrategy", {})
        self.rolls = strategy.get("type", "RollingUpdate") == "RollingUpdate"
        rolling = strategy.get("rollingUpdate", {})
        self.partition = start + rolling.get("partition", 0)
        self.missing = max(1, share(rolling.get("maxUnavailable", 1), len(self.wanted), up=False))
        self.newest = revisions.hash_of_owner(stateful_set)

    def is_available(self, pod: Object | None) -> bool:
        """Does it serve, and for long enough?"""
        if pod is None or not _stays(pod):
            return False
        return available_in(pod, self.spec.get("minReadySeconds", 0), self.view.now) == 0

    def step(self) -> Iterator[Action]:
        """Bring up what is missing, from the bottom; take away what is too much, from the top; then update, from the top.

        So many are made, deleted or updated by one decision as by that of a ReplicaSet; no number without a pod is looked at beyond those.
        """
        done = 0
        for number in self.wanted:
            pod = self.there.get(number)
            if pod is None:
                yield from self._create(number)
                done += 1
            elif pod.get("status", {}).get("phase") in ENDED and _stays(pod):
                yield self._ended(pod)
                yield Delete("pods", pod)
                done += 1
            if self.in_order and not self.is_available(pod):
                return
            if done == BURST:
                break
        condemned = [self.there[n] for n in sorted((n for n in self.there if n not in self.wanted), reverse=True)]
        if self.in_order:
            condemned = condemned[:1]
        for pod in islice(filter(_stays, condemned), BURST):
            yield from self._delete(pod)
        if self.rolls and not (self.in_order and condemned):
            for pod in islice(self._outdated(), BURST):
                yield from self._delete(pod)

    def _outdated(self) -> Iterator[Object]:
        """From the top down to the partition, so many that no more than maxUnavailable don't serve; who doesn't is free."""
        there = sorted((n for n in self.there if n in self.wanted), reverse=True)
        room = self.missing - len(self.wanted) + sum(self.is_available(self.there[n]) for n in there)
        for pod in (self.there[n] for n in there if n >= self.partition):
            if _hash(pod) == self.newest or not _stays(pod):
                continue
            serves = self.is_available(pod)
            if room > 0 or not serves:
                room -= serves
                yield pod

    def _ended(self, pod: Object) -> Note:
        """What is said of a member that ended though it should run for ever."""
        text = f"StatefulSet {'/'.join(key_of(self.set))} is recreating {{}} Pod {pod['metadata']['name']}"
        if pod["status"]["phase"] == "Failed":
            return Note(self.set, "RecreatingFailedPod", text.format("failed"), "Warning")
        return Note(self.set, "RecreatingTerminatedPod", text.format("terminated"))

    def _create(self, number: int) -> Iterator[Action]:
        metadata, template = self.set["metadata"], self._template(number)
        name = f"{metadata['name']}-{number}"
        pod = made_of(template, self.set, KIND, "apps/v1", name)
        labels = {POD_NAME: name, POD_INDEX: str(number), revisions.HASH: self._hash_for(number)}
        pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **labels}
        pod["spec"] |= {"hostname": name, "subdomain": self.spec.get("serviceName", "")}
        if not pod["spec"]["subdomain"]:
            del pod["spec"]["subdomain"]
        yield from self._add_claims(pod)
        yield Create("pods", metadata["namespace"], pod, _wording(metadata["name"]))

    def _add_claims(self, pod: Object) -> Iterator[Action]:
        """A volume for each claim template, in the place of one that the template of the pods gives the same name."""
        claims = self.spec.get("volumeClaimTemplates", ())
        if not claims:
            return
        names = dict.fromkeys(claim.get("metadata", {}).get("name", "") for claim in claims)
        kept = [volume for volume in pod["spec"].get("volumes", ()) if volume["name"] not in names]
        pod["spec"]["volumes"] = [*({"name": name, "emptyDir": {}} for name in names), *kept]
        text = "There is no persistent storage here: volumeClaimTemplates become emptyDir volumes, which end with their pods"
        yield Note(self.set, "NoPersistentStorage", text, "Warning")

    def _is_old(self, number: int) -> bool:
        """Is this member below the partition, so that it keeps the former template?"""
        return bool(self.rolls and number < self.partition)

    def _template(self, number: int) -> Object:
        former = self._former()
        if self._is_old(number) and former is not None:
            template: Object = {k: v for k, v in former["data"]["spec"]["template"].items() if k != "$patch"}
            return template
        own: Object = self.spec["template"]
        return own

    def _hash_for(self, number: int) -> str:
        former = self._former()
        if self._is_old(number) and former is not None:
            found: str = former["metadata"]["labels"][revisions.HASH]
            return found
        return self.newest

    def _former(self) -> Object | None:
        """The revision that was current before the newest."""
        name = self.set.get("status", {}).get("currentRevision")
        found = (r for r in self.view.controlled(revisions.RESOURCE, self.set) if r["metadata"]["name"] == name)
        return next(found, None)

    def _delete(self, pod: Object) -> Iterator[Action]:
        name = pod["metadata"]["name"]
        yield Note(self.set, "SuccessfulDelete", f"delete Pod {name} in StatefulSet {self.set['metadata']['name']} successful")
        yield Delete("pods", pod)


def _wording(name: str) -> Wording:
    """What a StatefulSet says of its pods, in words of its own (stateful_pod_control.go)."""
    text = f"create Pod {{pod}} in StatefulSet {name}"
    return Wording(f"{text} successful", f"{text} failed error: {{error}}")


def _status(view: View, key: Key) -> Iterator[Action]:
    stateful_set = view.get(RESOURCE, key)
    if stateful_set is None:
        return
    old, members = stateful_set.get("status", {}), _Members(view, stateful_set)
    pods = [pod for pod in members.there.values() if pod.get("status", {}).get("phase") not in ENDED]
    name = stateful_set["metadata"]["name"]
    newest = revisions.current(view, stateful_set)
    update = newest["metadata"]["name"] if newest is not None else f"{name}-{members.newest}"
    updated = sum(_hash(pod) == members.newest for pod in pods)
    done = updated == len(members.wanted) == len(pods) and all(map(members.is_available, pods))
    now_current = update if done or not old.get("currentRevision") else old["currentRevision"]
    new: Object = {
        "replicas": len(pods),
        "readyReplicas": sum(map(is_ready, pods)),
        "availableReplicas": sum(map(members.is_available, pods)),
        "updatedReplicas": updated,
        "currentReplicas": sum(f"{name}-{_hash(pod)}" == now_current for pod in pods),
        "currentRevision": now_current,
        "updateRevision": update,
        "collisionCount": old.get("collisionCount", 0),
        "observedGeneration": stateful_set["metadata"].get("generation", 0),
    }
    if any(old.get(field) != value for field, value in new.items()):
        yield Patch(RESOURCE, stateful_set, {"status": new}, "status")
    seconds = stateful_set["spec"].get("minReadySeconds", 0)
    if pending := [wait for pod in pods if (wait := available_in(pod, seconds, view.now))]:
        yield Again(min(pending) + 0.01)


CONTROLLER = Controller("statefulset-controller", {RESOURCE: itself, "pods": _of_pod}, _decide)

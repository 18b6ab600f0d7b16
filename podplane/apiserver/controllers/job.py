"""Job: pods that end, until so many have succeeded (kube-controller-manager, pkg/controller/job).

What was counted stands in the status, and each counted pod carries no finalizer more: a pod counts exactly once, also when it is deleted
as soon as it has ended.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

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
from podplane.apiserver.controllers.job_failures import (
    FAIL_JOB,
    IGNORE,
    backoff,
    is_lost,
    replaces_early,
    restarted_too_often,
    verdict,
)
from podplane.apiserver.controllers.objects import Key, Object, controller_of
from podplane.apiserver.controllers.pods import ENDED, condition_of, is_ready, made_of, rfc3339

RESOURCE, KIND, API_VERSION = "jobs.batch", "Job", "batch/v1"
FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
DEFAULT_BACKOFF_LIMIT = 6


def _decide(view: View, key: Key) -> Iterator[Action]:
    job = view.get(RESOURCE, key)
    yield from _let_go(view, key, job)
    if job is None:
        return
    yield from _count(view, job)
    job = view.get(RESOURCE, key)
    if job is None or "deletionTimestamp" in job["metadata"]:
        return
    if ended := _end_of(job):
        yield from _after(view, job, ended)
        return
    yield from _Progress(view, job).step()


def _let_go(view: View, key: Key, job: Object | None) -> Iterator[Action]:
    """Pods of a job that is gone are held by nobody."""
    uid = job["metadata"]["uid"] if job is not None else ""
    for pod in view.controlled_by_name("pods", KIND, key):
        owner = controller_of(pod)
        if owner is not None and owner["uid"] != uid:
            yield from _release(pod)


def _release(pod: Object) -> Iterator[Action]:
    if FINALIZER in pod["metadata"].get("finalizers", ()):
        kept = [name for name in pod["metadata"]["finalizers"] if name != FINALIZER]
        yield Patch("pods", pod, {"metadata": {"finalizers": kept or None}})


def _end_of(job: Object) -> Object | None:
    """The condition that ended it, if it has ended."""
    for kind in ("Complete", "Failed"):
        condition = condition_of(job, kind)
        if condition is not None and condition["status"] == "True":
            return condition
    return None


def _count(view: View, job: Object) -> Iterator[Action]:
    """Count the pods that have ended: status first, then their finalizers go, so that none is forgotten or counted twice."""
    status = job.get("status", {})
    uncounted = status.get("uncountedTerminatedPods") or {}
    known = {*uncounted.get("succeeded", ()), *uncounted.get("failed", ())}
    pods = [pod for pod in view.controlled("pods", job) if FINALIZER in pod["metadata"].get("finalizers", ())]
    ended = [pod for pod in pods if pod.get("status", {}).get("phase") in ENDED or is_lost(job, pod)]
    fresh = [pod for pod in ended if pod["metadata"]["uid"] not in known]
    if fresh:
        won = [pod for pod in fresh if pod.get("status", {}).get("phase") == "Succeeded"]
        verdicts = {pod["metadata"]["uid"]: verdict(job, pod) for pod in fresh if pod not in won}
        lost = [pod for pod in fresh if verdicts.get(pod["metadata"]["uid"], (IGNORE,))[0] != IGNORE]
        new: dict[str, Any] = {
            "succeeded": status.get("succeeded", 0) + len(won),
            "failed": status.get("failed", 0) + len(lost),
            "uncountedTerminatedPods": {
                "succeeded": [*uncounted.get("succeeded", ()), *(p["metadata"]["uid"] for p in won)],
                "failed": [*uncounted.get("failed", ()), *(p["metadata"]["uid"] for p in lost)],
            },
        }
        if job["spec"].get("completionMode") == "Indexed":
            new["completedIndexes"] = text_of(indexes_of(status.get("completedIndexes", "")) | {_index(pod) for pod in won})
        if fatal := [why for action, why in verdicts.values() if action == FAIL_JOB]:
            new["conditions"] = _with_condition(status, ("FailureTarget", "True", "PodFailurePolicy", fatal[0]), view.now)
        yield Patch(RESOURCE, job, {"status": new}, "status")
    for pod in ended:
        yield from _release(pod)
    if fresh or known:
        yield Patch(RESOURCE, job, {"status": {"uncountedTerminatedPods": {"succeeded": [], "failed": []}}}, "status")


def _with_condition(status: Object, change: tuple[str, str, str, str], now: datetime.datetime) -> list[Object]:
    """The conditions with this one (type, status, reason, message), which stays as it is if its status does."""
    kind, value, reason, message = change
    old: list[Object] = status.get("conditions", [])
    if any(c["type"] == kind and c["status"] == value for c in old):
        return old
    made = {"type": kind, "status": value, "reason": reason, "message": message}
    times = {"lastProbeTime": rfc3339(now), "lastTransitionTime": rfc3339(now)}
    return [*(c for c in old if c["type"] != kind), made | times]


def _index(pod: Object) -> int:
    return int(pod["metadata"].get("annotations", {}).get(INDEX, "0"))


def indexes_of(text: str) -> set[int]:
    """The numbers of a text such as 0-2,5."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def text_of(indexes: set[int]) -> str:
    """The text of some numbers, as 0-2,5."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _after(view: View, job: Object, ended: Object) -> Iterator[Action]:
    """It has ended: what still runs is stopped, and it is forgotten when its time is over."""
    yield from _stop(view, job)
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is not None:
        since = datetime.datetime.fromisoformat(ended["lastTransitionTime"])
        left = ttl - (view.now - since).total_seconds()
        yield Again(left + 0.1) if left > 0 else Delete(RESOURCE, job, policy="Foreground")


def _stop(view: View, job: Object) -> Iterator[Action]:
    for pod in _living(view, job):
        if "deletionTimestamp" not in pod["metadata"]:
            yield Delete("pods", pod)


def _living(view: View, job: Object) -> list[Object]:
    """The pods that have not ended, those that are ending among them."""
    return [p for p in view.controlled("pods", job) if p.get("status", {}).get("phase") not in ENDED]


class _Progress:
    """A job that has not ended."""

    def __init__(self, view: View, job: Object) -> None:
        self.view, self.job, self.spec, self.status = view, job, job["spec"], job.get("status", {})
        self.succeeded, self.failed = self.status.get("succeeded", 0), self.status.get("failed", 0)
        self.living = _living(view, job)
        self.active = [pod for pod in self.living if "deletionTimestamp" not in pod["metadata"]]
        self.now = view.now

    def step(self) -> Iterator[Action]:
        """End it, pause it, or have as many pods as it needs."""
        if self.spec.get("suspend"):
            yield from self._suspend()
            return
        started = self._started()
        deadline, limit = self.spec.get("activeDeadlineSeconds"), self.spec.get("backoffLimit", DEFAULT_BACKOFF_LIMIT)
        if (doomed := condition_of(self.job, "FailureTarget")) is not None:
            yield from self._fail(doomed["reason"], doomed["message"])
        elif self.failed > limit or restarted_too_often(self.job, limit, self.active):
            yield from self._fail("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif deadline is not None and (self.now - started).total_seconds() >= deadline:
            yield from self._fail("DeadlineExceeded", "Job was active longer than specified deadline")
        elif self._is_complete():
            yield from self._complete()
        else:
            if deadline is not None:
                yield Again(deadline - (self.now - started).total_seconds() + 0.05)
            yield from self._scale()
            suspended = condition_of(self.job, "Suspended")
            if suspended is not None and suspended["status"] == "True":
                yield Note(self.job, "Resumed", "Job resumed")
            change = ("Suspended", "False", "JobResumed", "Job resumed") if suspended is not None else None
            yield from _Progress(self.view, self._fresh())._report({"startTime": rfc3339(started)}, change)

    def _suspend(self) -> Iterator[Action]:
        """Pods that run are taken away and don't count."""
        suspended = condition_of(self.job, "Suspended")
        for pod in self.active:
            yield from self._remove(pod)
        if suspended is None or suspended["status"] != "True":
            yield Note(self.job, "Suspended", "Job suspended")
        change = ("Suspended", "True", "JobSuspended", "Job suspended")
        yield from _Progress(self.view, self._fresh())._report({"startTime": None}, change)

    def _remove(self, pod: Object) -> Iterator[Action]:
        """Delete a pod that isn't needed: it has not failed."""
        yield from _release(pod)
        yield Note(self.job, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
        yield Delete("pods", pod)

    def _fresh(self) -> Object:
        metadata = self.job["metadata"]
        return self.view.get(RESOURCE, (metadata["namespace"], metadata["name"])) or self.job

    def _started(self) -> datetime.datetime:
        text = self.status.get("startTime")
        return datetime.datetime.fromisoformat(text) if text else self.now

    def _is_complete(self) -> bool:
        completions = self.spec.get("completions")
        if completions is None:  # any success says that the work is done; then the others may end
            return self.succeeded > 0 and not self.living
        return bool(self.succeeded >= completions)

    def _scale(self) -> Iterator[Action]:
        wait = backoff(self.view.controlled("pods", self.job), self.now)
        if wait > 0:
            yield Again(wait + 0.05)
            return
        wanted = self.spec.get("parallelism", 1)
        completions = self.spec.get("completions")
        if completions is not None:
            wanted = min(wanted, completions - self.succeeded)
        elif self.succeeded:
            wanted = min(wanted, len(self.active))
        by_worth = sorted(self.active, key=lambda pod: (is_ready(pod), pod["metadata"]["name"]))
        for pod in by_worth[: max(0, len(self.active) - wanted)]:
            yield from self._remove(pod)
        held = self.active if replaces_early(self.job) else self.living
        missing = wanted - len(held)
        indexes: Sequence[int | None] = [None] * max(0, missing)
        if self.spec.get("completionMode") == "Indexed" and completions is not None:
            taken = indexes_of(self.status.get("completedIndexes", "")) | {_index(pod) for pod in held}
            indexes = [index for index in range(completions) if index not in taken][: max(0, missing)]
        for index in indexes:
            yield Create("pods", self.job["metadata"]["namespace"], self._pod(index))

    def _pod(self, index: int | None) -> Object:
        pod = made_of(self.spec["template"], self.job, KIND, API_VERSION)
        pod["metadata"].setdefault("finalizers", []).append(FINALIZER)
        pod["spec"].setdefault("restartPolicy", "Never")
        if index is not None:
            name, text = self.job["metadata"]["name"], str(index)
            pod["metadata"]["generateName"] = f"{name}-{text}-"
            for part in ("labels", "annotations"):
                pod["metadata"][part] = {**pod["metadata"].get(part, {}), INDEX: text}
            pod["spec"].setdefault("hostname", f"{name}-{text}")
            for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
                if not any(variable["name"] == "JOB_COMPLETION_INDEX" for variable in container.get("env", ())):
                    container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": text})
        return pod

    def _complete(self) -> Iterator[Action]:
        reached = ("CompletionsReached", "Reached expected number of succeeded pods")
        yield from _stop(self.view, self.job)
        if self.living:
            yield from self._report({}, ("SuccessCriteriaMet", "True", *reached))
            return
        yield Note(self.job, "Completed", "Job completed")
        kinds = [("SuccessCriteriaMet", "True", *reached), ("Complete", "True", *reached)]
        yield from self._report({"completionTime": rfc3339(self.now)}, *kinds)

    def _fail(self, reason: str, message: str) -> Iterator[Action]:
        yield from _stop(self.view, self.job)
        kinds = [("FailureTarget", "True", reason, message)]
        if not self.living:
            yield Note(self.job, reason, message, "Warning")
            kinds.append(("Failed", "True", reason, message))
        yield from self._report({}, *kinds)

    def _report(self, more: Object, *changes: tuple[str, str, str, str] | None) -> Iterator[Action]:
        """Write what the status says now, if it is something else."""
        conditions = self.status.get("conditions", [])
        for change in filter(None, changes):
            conditions = _with_condition({"conditions": conditions}, change, self.now)
        new: Object = {
            "active": len(self.active),
            "ready": sum(map(is_ready, self.active)),
            "terminating": len(self.living) - len(self.active),
            **more,
        }
        if conditions:
            new["conditions"] = conditions
        if any(self.status.get(field) != value for field, value in new.items()):
            yield Patch(RESOURCE, self.job, {"status": new}, "status")


CONTROLLER = Controller("job-controller", {RESOURCE: itself, "pods": its_controller(KIND)}, _decide)

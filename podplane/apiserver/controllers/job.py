"""Job: pods that end, until so many have succeeded (kube-controller-manager, pkg/controller/job, pkg/controller/ttlafterfinished).

    claim pods → what has ended since → is it decided? ─ yes → stop what runs ──────────────────────┐
                                              └ no → have as many pods as it needs → is it complete? ┴→ write, and let go of pods

What was counted stands in the status, and each counted pod carries no finalizer more: a pod counts exactly once, also when it is deleted
as soon as it has ended. A job whose end is decided (FailureTarget, SuccessCriteriaMet) has ended (Failed, Complete) when its last pod has.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator

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
from podplane.apiserver.controllers.job_end import (
    COMPLETE,
    FAILED,
    FAILURE,
    SUSPENDED,
    End,
    completed,
    condition_that_holds,
    decided,
)
from podplane.apiserver.controllers.job_failures import (
    Backoff,
    counts,
    finished,
    remaining,
    replaces_early,
)
from podplane.apiserver.controllers.job_failures import failures_after as failures_of_next
from podplane.apiserver.controllers.job_pods import (
    KIND,
    RESOURCE,
    claim,
    is_of,
    is_tracked,
    pod_of,
    superfluous,
    untrack,
    untrack_some,
)
from podplane.apiserver.controllers.job_state import JobState
from podplane.apiserver.controllers.pods import BURST, condition_of, is_ready, rfc3339
from podplane.controllers.objects import Key, Object, controller_of, key_of, matches
from podplane.model.phases import ENDED

CONTROLLER_NAME = "kubernetes.io/job-controller"


class JobController:
    """Decides about jobs. How long each waits is remembered here only; whoever starts anew knows it from the pods that are there."""

    def __init__(self) -> None:
        self._backoffs: dict[Key, tuple[str, Backoff]] = {}

    def decide(self, view: View, key: Key) -> Iterator[Action]:
        """Bring a job forward."""
        job = view.get(RESOURCE, key)
        is_foreign = job is not None and job["spec"].get("managedBy", CONTROLLER_NAME) != CONTROLLER_NAME
        pods = [] if is_foreign else view.controlled_by_name("pods", KIND, key)
        own = [pod for pod in pods if is_of(job, pod)]
        if len(own) < len(pods):
            yield from untrack_some(pod for pod in pods if not is_of(job, pod))
        if job is None or "deletionTimestamp" in job["metadata"]:
            self._backoffs.pop(key, None)
            yield from untrack_some(own)
        elif ended := _end_of(job):
            self._backoffs.pop(key, None)
            yield from _forget(view, job, ended)
        elif not is_foreign:
            claims = list(claim(view, job, own))
            yield from claims
            if len(claims) >= BURST:  # there may be more, and it must not make others in their place: the next turn goes on
                return
            own = view.controlled("pods", job) if claims else own
            sync = _Sync(view, job, own, self._backoff(key, job, own))
            yield from sync.run()
            self._backoffs[key] = (job["metadata"]["uid"], sync.counted)

    def _backoff(self, key: Key, job: Object, own: list[Object]) -> Backoff:
        """What was known of its failures before those that are to be counted now."""
        uid, known = self._backoffs.get(key, ("", Backoff()))
        if uid == job["metadata"]["uid"]:
            return known
        counted = [pod for pod in own if not is_tracked(pod)]
        phases = {phase: [pod for pod in counted if pod.get("status", {}).get("phase") == phase] for phase in ENDED}
        return Backoff().after(phases["Succeeded"], phases["Failed"])


def _end_of(job: Object) -> Object | None:
    """The condition that says that it has ended, if it has."""
    return next((c for kind in (COMPLETE, FAILED) if (c := condition_that_holds(job, kind))), None)


def _forget(view: View, job: Object, ended: Object) -> Iterator[Action]:
    """It has ended, and is deleted when its time is over."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is not None:
        since = datetime.datetime.fromisoformat(ended["lastTransitionTime"])
        left = ttl - (view.now - since).total_seconds()
        yield Again(left + 0.1) if left > 0 else Delete(RESOURCE, job, policy="Foreground")


class _Sync(JobState):
    """What follows for a job that has not ended."""

    def run(self) -> Iterator[Action]:
        """End it, or have as many pods as it needs; then write down what there is."""
        end = decided(self)
        changes: list[tuple[str, str, str, str]] = []
        if end is not None:
            yield from self._act(self._delete(self.active[:BURST]))
        else:
            yield from self._act(self._manage())
            end = completed(self)
            if end is None:
                changes = list(self._suspension())
                yield from (Note(self.job, "Suspended" if s == "True" else "Resumed", text) for _, s, _, text in changes)
        yield from self._write(end, changes)

    def _act(self, actions: Iterable[Action]) -> Iterator[Action]:
        """Do something about its pods, and look at them anew if anything was done."""
        did = False
        for action in actions:
            yield action
            did = did or not isinstance(action, Again | Note)
        if did:
            self.look(self.view.controlled("pods", self.job))

    def _delete(self, pods: Iterable[Object]) -> Iterator[Action]:
        for pod in pods:
            yield Note(self.job, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
            yield Delete("pods", pod)

    # Its pods.

    def _manage(self) -> Iterator[Action]:
        """Take away what is too much, or make what is missing; never both at once."""
        wanted = self._wanted()
        removed = superfluous(self.job, self.active, max(0, len(self.active) - wanted))
        for pod in removed[:BURST]:  # it isn't needed: it has not failed
            yield from untrack(pod)
        yield from self._delete(removed[:BURST])
        if (left := self.left()) is not None:
            yield Again(left + 0.05)
        if removed:
            return
        waits_for = [] if replaces_early(self.job) else self.terminating
        missing = wanted - len(waits_for) - len(self.active)
        if missing > 0:
            yield from self._create(missing)

    def _wanted(self) -> int:
        """How many pods shall run."""
        completions, parallelism = self.spec.get("completions"), int(self.spec.get("parallelism", 1))
        if self.is_suspended:
            return 0
        if completions is None:
            return len(self.active) if self.succeeded else parallelism
        return max(0, min(parallelism, int(completions) - self.succeeded))

    def _create(self, count: int) -> Iterator[Action]:
        namespace = self.job["metadata"]["namespace"]
        if not self.per_index and (wait := self.backoff.left(self.now)) > 0:
            yield Again(wait + 0.05)
            return
        if not self.indexed:
            for _ in range(min(count, BURST)):
                yield Create("pods", namespace, pod_of(self.job, None, None))
            return
        delayed, waits, made = self.delayed(), [], 0
        for index in self._pending(count):
            before = delayed.get(index)
            if (wait := self._wait_of(before)) > 0:
                waits.append(wait)
            elif made < BURST:
                made += 1
                yield Create("pods", namespace, pod_of(self.job, index, before))
            else:
                break
        if waits:
            yield Again(min(waits) + 0.05)

    def _pending(self, count: int) -> Iterator[int]:
        """The first indexes that no pod works at, and that are neither done nor given up."""
        held = self.active if replaces_early(self.job) else [*self.active, *self.terminating]
        taken = self.done | self.given_up | self.indexes_of(held)
        return itertools.islice(taken.missing(self.spec["completions"]), count)

    def _wait_of(self, before: Object | None) -> float:
        """Seconds until the pod after this failed one may start, where failures are counted for each index."""
        if before is None:
            return 0.0
        return remaining(sum(failures_of_next(self.job, before)), finished(before), self.now)

    # Its status.

    def _suspension(self) -> Iterator[tuple[str, str, str, str]]:
        """The condition Suspended, if it changes."""
        was = condition_that_holds(self.job, SUSPENDED) is not None
        if self.is_suspended and not was:
            yield SUSPENDED, "True", "JobSuspended", "Job suspended"
        elif was and not self.is_suspended:
            yield SUSPENDED, "False", "JobResumed", "Job resumed"

    def _write(self, end: End | None, changes: list[tuple[str, str, str, str]]) -> Iterator[Action]:
        """Count what has ended, let go of it, and say so; the job has ended when no pod is left that is ending."""
        counted = self._countable(end)
        won = [pod["metadata"]["uid"] for pod, has_won in counted if has_won is True]
        lost = [pod["metadata"]["uid"] for pod, has_won in counted if has_won is False]
        if end is not None:
            changes = [*changes, (end.decided, "True", end.reason, end.message)]
        conditions = self.status.get("conditions", [])
        for change in changes:
            conditions = with_condition(conditions, change, self.now)
        yield from self._report(
            {
                "succeeded": len(self.done) if self.indexed else self.status.get("succeeded", 0) + len(won),
                "failed": self.status.get("failed", 0) + len(lost),
                "completedIndexes": str(self.done) or None,
                "failedIndexes": str(self.given_up) if self.per_index else None,
                "startTime": self._start_time(end),
                "conditions": conditions or None,
                "uncountedTerminatedPods": _uncounted([] if self.indexed else won, lost),
            }
        )
        self.count([pod for pod, _ in counted])
        yield from self._act(action for pod, _ in counted for action in untrack(pod))
        if len(counted) == BURST:
            yield Again(0)
        final: Object = {"uncountedTerminatedPods": _uncounted([], [])}
        if end is not None and not self.terminating and not self.active and len(counted) < BURST:
            final["conditions"] = with_condition(conditions, (end.ended, "True", end.reason, end.message), self.now)
            if end.ended == COMPLETE:
                final["completionTime"] = rfc3339(self.now)
            yield from self._tell(end)
        yield from self._report(final)

    def _countable(self, end: End | None) -> list[tuple[Object, bool | None]]:
        """Pods that are let go of now, those that ended first, and whether each counts as a success or a failure, if it does."""
        delayed = {pod["metadata"]["uid"] for pod in self.delayed().values()} if end is None else set()
        fails_all = end is not None and end.decided == FAILURE
        found: list[tuple[Object, bool | None]] = []
        live = {pod["metadata"]["uid"] for pod in self.active}
        for pod in filter(lambda pod: is_tracked(pod) and pod["metadata"]["uid"] not in live, self.pods):
            has_won, has_lost = pod.get("status", {}).get("phase") == "Succeeded", pod["metadata"]["uid"] in self.dead
            if end is None and not has_won and (not has_lost or pod["metadata"]["uid"] in delayed):
                continue
            if not self.is_new(pod):
                found.append((pod, None))
            elif has_won:
                found.append((pod, True))
            else:
                found.append((pod, False if (has_lost or fails_all) and counts(self.job, pod) else None))
        return found if len(found) <= BURST else sorted(found, key=lambda one: finished(one[0]))[:BURST]

    def _start_time(self, end: End | None) -> str | None:
        """Since when it is not suspended; what has ended has begun."""
        if self.is_suspended and end is None:
            return None
        known: str | None = self.status.get("startTime")
        return known or rfc3339(self.now)

    def _report(self, new: Object) -> Iterator[Action]:
        """Write what is different; no number is the same as 0."""
        numbers = {
            "active": len(self.active) or None,
            "ready": sum(map(is_ready, self.active)),
            "terminating": len(self.terminating),
        }
        for field in ("succeeded", "failed"):
            if field in new:
                new[field] = new[field] or None
        changed = {field: value for field, value in {**numbers, **new}.items() if not _is_as(value, self.status.get(field))}
        if changed:
            yield Patch(RESOURCE, self.job, {"status": changed}, "status")
            job = self.view.get(RESOURCE, key_of(self.job))
            self.status = job.get("status", {}) if job is not None else self.status

    def _tell(self, end: End) -> Iterator[Action]:
        if end.ended == FAILED:
            yield Note(self.job, end.reason, end.message, "Warning")
            return
        completions = self.spec.get("completions")
        if completions is not None and self.succeeded > completions:
            yield Note(
                self.job, "TooManySucceededPods", "Too many succeeded pods running after completion count reached", "Warning"
            )
        yield Note(self.job, "Completed", "Job completed")


def _uncounted(won: list[str], lost: list[str]) -> Object:
    """UncountedTerminatedPods as a merge patch; an empty list is none."""
    return {"succeeded": won or None, "failed": lost or None}


def _is_as(new: object, old: object) -> bool:
    """Does a merge patch leave a value as it is?"""
    return {name: inner for name, inner in new.items() if inner} == old if isinstance(new, dict) else new == old


def with_condition(conditions: list[Object], change: tuple[str, str, str, str], now: datetime.datetime) -> list[Object]:
    """The conditions with this one (type, status, reason, message), which stays as it is if it says the same."""
    kind, status, reason, message = change
    made = {"type": kind, "status": status, "reason": reason, "message": message}
    if any(made.items() <= condition.items() for condition in conditions):
        return conditions
    times = {"lastProbeTime": rfc3339(now), "lastTransitionTime": rfc3339(now)}
    return [*(c for c in conditions if c["type"] != kind), made | times]


def _of_pod(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns its job; one without a controller those that may take it."""
    yield from its_controller(KIND)(view, pod)
    if controller_of(pod) is None and pod["metadata"].get("labels"):
        for job in view.may_select(RESOURCE, pod["metadata"]["namespace"], pod["metadata"]["labels"]):
            if matches(job["spec"]["selector"], pod["metadata"]["labels"]):
                yield key_of(job)


def _of_a_pod(pod: Object) -> object:
    """What of a pod its job looks at: not where it runs, and of one that runs on no condition but Ready."""
    metadata, status = pod["metadata"], pod.get("status", {})
    fields = ("labels", "annotations", "ownerReferences", "finalizers", "deletionTimestamp", "deletionGracePeriodSeconds")
    is_ending = "deletionTimestamp" in metadata or status.get("phase") in ENDED
    conditions = status.get("conditions") if is_ending else condition_of(pod, "Ready")
    told = [status.get(field) for field in ("phase", "containerStatuses", "initContainerStatuses")]
    return [metadata.get(field) for field in fields], told, conditions


def controller() -> Controller:
    """The controller."""
    watches = {RESOURCE: itself, "pods": _of_pod}
    return Controller("job-controller", watches, JobController().decide, matters={"pods": _of_a_pod})

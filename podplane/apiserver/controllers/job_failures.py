"""What the failures of a job's pods mean to it: how long it waits, when it gives up, and what its podFailurePolicy says. Pure.

Sources: kube-controller-manager, pkg/controller/job (backoff_utils.go, pod_failure_policy.go, indexed_job_utils.go), KEP-3329
(podFailurePolicy), KEP-3850 (backoffLimitPerIndex), KEP-3939 (podReplacementPolicy).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

import msgspec

from podplane.apiserver.controllers.pods import condition_of
from podplane.controllers.objects import Object, key_of
from podplane.model.phases import ENDED

FIRST_BACKOFF, LAST_BACKOFF, DOUBLINGS = 10.0, 600.0, 20
FAIL_JOB, FAIL_INDEX, IGNORE = "FailJob", "FailIndex", "Ignore"
FAILURES, IGNORED = "batch.kubernetes.io/job-index-failure-count", "batch.kubernetes.io/job-index-ignored-failure-count"
MOST_FAILURES = 2**31 - 1


def has_failed(job: Object, pod: Object) -> bool:
    """Has it failed? One that is being deleted has, too, unless it is to be replaced only when it has ended."""
    phase = pod.get("status", {}).get("phase")
    if phase in ENDED:
        return bool(phase == "Failed")
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata:
        return False
    return replaces_early(job) or not metadata.get(
        "deletionGracePeriodSeconds"
    )  # without a grace, nobody says any more how it ended


def replaces_early(job: Object) -> bool:
    """Is a pod replaced as soon as it is being deleted?"""
    default = "Failed" if "podFailurePolicy" in job["spec"] else "TerminatingOrFailed"
    return bool(job["spec"].get("podReplacementPolicy", default) == "TerminatingOrFailed")


# Back-off.


class Backoff(msgspec.Struct, frozen=True):
    """So many pods have failed since the last success, the last of them then."""

    failures: int = 0
    last: datetime.datetime | None = None

    def after(self, won: Sequence[Object], lost: Sequence[Object]) -> Backoff:
        """With pods that have ended since: a success forgives all failures that ended no later than it."""
        ends = [finished(pod) for pod in lost]
        count = self.failures
        if won:
            success, count = max(map(finished, won)), 0
            ends = [end for end in ends if end > success]
        if not ends:
            return Backoff() if won else self
        return Backoff(count + len(ends), max(ends))

    def left(self, now: datetime.datetime) -> float:
        """Seconds until the next pod may start."""
        return remaining(self.failures, self.last, now)


def remaining(failures: int, last: datetime.datetime | None, now: datetime.datetime) -> float:
    """Seconds until the next pod may start after so many failures: 10, 20, 40, … at most 600 after the last of them."""
    if not failures or last is None:
        return 0.0
    wait = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, DOUBLINGS))
    return max(0.0, wait - (now - last).total_seconds())


def finished(pod: Object) -> datetime.datetime:
    """When it ended: its last container, else when it was not ready any more, was deleted, or was made."""
    metadata = pod["metadata"]
    if text := _last_end(pod):
        return datetime.datetime.fromisoformat(text)
    ready = condition_of(pod, "Ready") or {}
    if ready.get("status") == "False" and ready.get("lastTransitionTime"):
        return datetime.datetime.fromisoformat(ready["lastTransitionTime"])
    if "deletionTimestamp" in metadata:
        grace = datetime.timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
        return datetime.datetime.fromisoformat(metadata["deletionTimestamp"]) - grace
    return datetime.datetime.fromisoformat(metadata["creationTimestamp"])


def _last_end(pod: Object) -> str:
    """When the last of its containers and sidecars ended; "" unless all have."""
    status = pod.get("status", {})
    sidecars = {c["name"] for c in pod["spec"].get("initContainers", ()) if c.get("restartPolicy") == "Always"}
    inits = [c for c in status.get("initContainerStatuses", ()) if c["name"] in sidecars]
    all_ = [*status.get("containerStatuses", ()), *inits]
    ends = [(c.get("state", {}).get("terminated") or {}).get("finishedAt") or "" for c in all_]
    return max(ends, default="") if all(ends) else ""


def restarted_too_often(job: Object, limit: int, pods: Iterable[Object]) -> bool:
    """Did the containers of living pods, which restart where they are, fail more often than the limit allows?"""
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts: int = sum(container.get("restartCount", 0) for pod in pods for container in _containers(pod))
    return restarts >= max(1, limit)


# podFailurePolicy.


def verdict(job: Object, pod: Object) -> tuple[str, str]:
    """What the job's podFailurePolicy says of a failed pod: an action, and why; ("", "") if no rule matches."""
    for index, rule in enumerate(job["spec"].get("podFailurePolicy", {}).get("rules", ())):
        why = _exit_code(rule.get("onExitCodes"), pod) or _condition(rule.get("onPodConditions", ()), pod)
        if why:
            return rule["action"], f"{why} matching {rule['action']} rule at index {index}"
    return "", ""


def counts(job: Object, pod: Object) -> bool:
    """Does the failure of this pod count?"""
    return verdict(job, pod)[0] != IGNORE


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]


def _exit_code(wanted: Object | None, pod: Object) -> str:
    if wanted is None:
        return ""
    for container in _containers(pod):
        code = (container.get("state", {}).get("terminated") or {}).get("exitCode", 0)
        named = wanted.get("containerName") in (None, container["name"])
        if code and named and (code in wanted["values"]) is (wanted["operator"] == "In"):
            return f"Container {container['name']} for pod {'/'.join(key_of(pod))} failed with exit code {code}"
    return ""


def _condition(wanted: Sequence[Object], pod: Object) -> str:
    patterns = {(each["type"], each.get("status", "True")) for each in wanted}
    conditions = pod.get("status", {}).get("conditions", ())
    found = next((c["type"] for c in conditions if (c["type"], c["status"]) in patterns), "")
    return f"Pod {'/'.join(key_of(pod))} has condition {found}" if found else ""


# Failures of an index: each pod says how many there were before it.


def failures_before(pod: Object) -> tuple[int, int]:
    """How many pods of its index had failed when this one was made, and how many failures were ignored."""
    annotations = pod["metadata"].get("annotations", {})
    return _number(annotations.get(FAILURES, "")), _number(annotations.get(IGNORED, ""))


def _number(text: str) -> int:
    """A count, 0 for what is none: whoever may write to pods may write anything."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_FAILURES))
    return int(text) if is_number and int(text) <= MOST_FAILURES else 0


def failures_after(job: Object, pod: Object | None) -> tuple[int, int]:
    """The same for the pod that comes in the place of this one."""
    if pod is None:
        return 0, 0
    failures, ignored = failures_before(pod)
    return (failures + 1, ignored) if counts(job, pod) else (failures, ignored + 1)


def fails_index(job: Object, pod: Object) -> bool:
    """Is the index of this failed pod given up?"""
    action, _ = verdict(job, pod)
    return action == FAIL_INDEX or (action != IGNORE and failures_before(pod)[0] >= job["spec"]["backoffLimitPerIndex"])


def last_of_index(pods: Iterable[Object]) -> Object:
    """The pod of an index that failed last."""
    return max(pods, key=lambda pod: (sum(failures_before(pod)), finished(pod)))

"""What the failures of a job's pods mean to it: how long it waits, when it gives up, and what its podFailurePolicy says. Pure.

Sources: kube-controller-manager, pkg/controller/job (backoff_utils.go, pod_failure_policy.go), KEP-3329 (podFailurePolicy),
KEP-3939 (podReplacementPolicy).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from podplane.apiserver.controllers.objects import Object, key_of
from podplane.apiserver.controllers.pods import ENDED

FIRST_BACKOFF, LAST_BACKOFF = 10.0, 600.0
FAIL_JOB, IGNORE = "FailJob", "Ignore"


def is_lost(job: Object, pod: Object) -> bool:
    """Does a pod that is being deleted count as failed? At once, unless it is to be replaced only when it has ended."""
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata or pod.get("status", {}).get("phase") in ENDED:
        return False
    return replaces_early(job) or not metadata.get("deletionGracePeriodSeconds")


def replaces_early(job: Object) -> bool:
    """Is a pod replaced as soon as it is being deleted?"""
    default = "Failed" if "podFailurePolicy" in job["spec"] else "TerminatingOrFailed"
    return bool(job["spec"].get("podReplacementPolicy", default) == "TerminatingOrFailed")


def backoff(pods: Iterable[Object], now: datetime.datetime) -> float:
    """Seconds until the next pod may start: 10, 20, 40, … at most 600 after the last of the failures since the last success."""
    ends = [(end, pod["status"]["phase"]) for pod in pods if (end := _finished(pod))]
    success = max((end for end, phase in ends if phase == "Succeeded"), default="")
    failures = [end for end, phase in ends if phase == "Failed" and end > success]
    if not failures:
        return 0.0
    wait = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(len(failures) - 1, 20))
    return wait - (now - datetime.datetime.fromisoformat(max(failures))).total_seconds()


def _finished(pod: Object) -> str:
    """When its last container ended, "" while it lives."""
    if pod.get("status", {}).get("phase") not in ENDED:
        return ""
    ends = (c.get("state", {}).get("terminated", {}).get("finishedAt") for c in _containers(pod))
    return max(filter(None, ends), default="")


def restarted_too_often(job: Object, limit: int, pods: Sequence[Object]) -> bool:
    """Did the containers of living pods, which restart where they are, fail more often than the limit allows?"""
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts: int = sum(container.get("restartCount", 0) for pod in pods for container in _containers(pod))
    return restarts >= max(1, limit)


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def verdict(job: Object, pod: Object) -> tuple[str, str]:
    """What the job's podFailurePolicy says of a failed pod: an action, and why; ("", "") if no rule matches."""
    for index, rule in enumerate(job["spec"].get("podFailurePolicy", {}).get("rules", ())):
        why = _exit_code(rule.get("onExitCodes"), pod) or _condition(rule.get("onPodConditions", ()), pod)
        if why:
            return rule["action"], f"{why} matching {rule['action']} rule at index {index}"
    return "", ""


def _exit_code(wanted: Object | None, pod: Object) -> str:
    if wanted is None:
        return ""
    for container in _containers(pod):
        code = container.get("state", {}).get("terminated", {}).get("exitCode", 0)
        named = wanted.get("containerName") in (None, container["name"])
        if code and named and (code in wanted["values"]) is (wanted["operator"] == "In"):
            return f"Container {container['name']} for pod {'/'.join(key_of(pod))} failed with exit code {code}"
    return ""


def _condition(wanted: Sequence[Object], pod: Object) -> str:
    own = {condition["type"]: condition["status"] for condition in pod.get("status", {}).get("conditions", ())}
    found = next((each["type"] for each in wanted if own.get(each["type"]) == each.get("status", "True")), "")
    return f"Pod {'/'.join(key_of(pod))} has condition {found}" if found else ""

"""How a job ends: whether that is decided, and why (kube-controller-manager, pkg/controller/job, syncJob and success_policy.go). Pure."""

from __future__ import annotations

import msgspec

from podplane.apiserver.controllers.job_failures import FAIL_JOB, restarted_too_often, verdict
from podplane.apiserver.controllers.job_state import JobState
from podplane.apiserver.controllers.pods import condition_of
from podplane.apiserver.kinds.job_indexes import Indexes
from podplane.apiserver.kinds.jobs import BACKOFF_LIMIT
from podplane.controllers.objects import Object

COMPLETE, FAILED, FAILURE, SUCCESS, SUSPENDED = "Complete", "Failed", "FailureTarget", "SuccessCriteriaMet", "Suspended"


class End(msgspec.Struct, frozen=True):
    """How a job ends: which condition says that it is decided, and why."""

    decided: str
    reason: str
    message: str

    @property
    def ended(self) -> str:
        """The condition that says that it has ended."""
        return FAILED if self.decided == FAILURE else COMPLETE


def _failure(reason: str, message: str) -> End:
    return End(FAILURE, reason, message)


def condition_that_holds(job: Object, kind: str) -> Object | None:
    """The condition of this type, if it is True."""
    found = condition_of(job, kind)
    return found if found is not None and found["status"] == "True" else None


def decided(state: JobState) -> End | None:
    """How it ends, if that is decided."""
    for kind in (SUCCESS, FAILURE):
        if (found := condition_that_holds(state.job, kind)) is not None:
            return End(kind, found.get("reason", ""), found.get("message", ""))
    failures = (verdict(state.job, pod) for pod in state.pods if pod["metadata"]["uid"] in state.dead)
    fatal = next((why for action, why in failures if action == FAIL_JOB), None)
    limit = state.spec.get("backoffLimit", BACKOFF_LIMIT)
    if fatal is not None:
        return _failure("PodFailurePolicy", fatal)
    if state.failed > limit or restarted_too_often(state.job, limit, [*state.active, *state.terminating]):
        return _failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if state.left() == 0:
        return _failure("DeadlineExceeded", "Job was active longer than specified deadline")
    return _decided_by_indexes(state)


def _decided_by_indexes(state: JobState) -> End | None:
    completions = state.spec.get("completions", 0)
    if state.per_index and len(state.given_up) > state.spec.get("maxFailedIndexes", completions):
        return _failure("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")
    if state.given_up and len(state.given_up) + len(state.done) >= completions:
        return _failure("FailedIndexes", "Job has failed indexes")
    for number, rule in enumerate(state.spec.get("successPolicy", {}).get("rules", ()) if state.done else ()):
        if _meets(state, rule):
            return End(SUCCESS, "SuccessPolicy", f"Matched rules at index {number}")
    return None


def _meets(state: JobState, rule: Object) -> bool:
    """Do enough of the indexes that a rule of the successPolicy names succeed?"""
    count, text = rule.get("succeededCount"), rule.get("succeededIndexes")
    if text is None:
        return count is not None and len(state.done) >= count
    named = Indexes.named(text, state.spec["completions"])
    total, met = len(named), len(named & state.done)
    return total > 0 and met >= min(total, total if count is None else count)


def completed(state: JobState) -> End | None:
    """Have enough pods succeeded? Without a number one success is enough, and the others end by themselves."""
    completions = state.spec.get("completions")
    enough = state.succeeded > 0 if completions is None else state.succeeded >= completions
    return (
        End(SUCCESS, "CompletionsReached", "Reached expected number of succeeded pods") if enough and not state.active else None
    )

"""What the status of a Job may say, whoever writes it (pkg/apis/batch/validation, ValidateJobStatusUpdate; KEP-4368, managedBy)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podplane.apiserver.kinds.job_indexes import Indexes, ranges_of
from podplane.apiserver.problems import Cause

Object = dict[str, Any]
COUNTS = ("active", "succeeded", "failed", "ready", "terminating")
EXCLUDE_EACH_OTHER = (
    ("Complete", "Failed"),
    ("Complete", "FailureTarget"),
    ("SuccessCriteriaMet", "Failed"),
    ("SuccessCriteriaMet", "FailureTarget"),
)
NEEDS = {"Failed": "FailureTarget", "Complete": "SuccessCriteriaMet"}
FOR_GOOD = ("Failed", "Complete", "FailureTarget", "SuccessCriteriaMet")
CONDITIONS = "status.conditions"


def check_job_status(job: Object, old: Object | None) -> Iterator[Cause]:
    """Job. What was wrong before and has not changed may stay: a Job may have been made smaller, or be of another version."""
    status, true, before, was = job.get("status", {}), _true(job), (old or {}).get("status", {}), _true(old or {})

    def changes(*fields: str) -> bool:
        return any(status.get(field) != before.get(field) for field in fields)

    for field in COUNTS:
        if (number := status.get(field) or 0) < 0:
            yield Cause.invalid(f"status.{field}", number, "must be greater than or equal to 0")
    if changes("ready", "active") and (status.get("ready") or 0) > (status.get("active") or 0):
        yield Cause.invalid("status.ready", status.get("ready") or 0, "cannot set more ready pods than active")
    yield from _uncounted(status.get("uncountedTerminatedPods", {}))
    if true != was:
        yield from _conditions(true, was)
    if true != was or changes("startTime", "completionTime"):
        yield from _times(status, true)
    if true & {"Complete", "Failed"} and (
        true != was or changes("active", "terminating", "startTime", "uncountedTerminatedPods")
    ):
        yield from _finished(status)
    if changes("completedIndexes", "failedIndexes"):
        yield from _indexes(job["spec"], status)
    if old is not None:
        yield from _change(job, before)


def _conditions(true: set[str], was: set[str]) -> Iterator[Cause]:
    for one, other in EXCLUDE_EACH_OTHER:
        if {one, other} <= true:
            yield _wrong(CONDITIONS, f"cannot set {one}=True and {other}=true conditions")
    for one, other in NEEDS.items():
        if one in true and other not in true:
            yield _wrong(CONDITIONS, f"cannot set {one}=True condition without the {other}=true condition")
    for kind in FOR_GOOD:
        if kind in was and kind not in true:
            yield _wrong(CONDITIONS, f"cannot disable the terminal {kind}=True condition")


def _true(job: Object) -> set[str]:
    return {one.get("type", "") for one in job.get("status", {}).get("conditions", ()) if one.get("status") == "True"}


def _wrong(path: str, why: str) -> Cause:
    return Cause(path, "FieldValueInvalid", f"Invalid value: {why}")


def _uncounted(uncounted: Object) -> Iterator[Cause]:
    seen: set[str] = set()
    for field in ("succeeded", "failed"):
        for i, uid in enumerate(uncounted.get(field, ())):
            where = f"status.uncountedTerminatedPods.{field}[{i}]"
            if not uid:
                yield Cause.invalid(where, uid, "must not be empty")
            elif uid in seen:
                yield Cause.duplicate(where, uid)
            seen.add(uid)


def _times(status: Object, true: set[str]) -> Iterator[Cause]:
    began, done = status.get("startTime"), status.get("completionTime")
    if done is not None and "Complete" not in true:
        yield Cause.invalid("status.completionTime", done, "cannot set completionTime when there is no Complete=True condition")
    if done is None and "Complete" in true:
        yield Cause.required("status.completionTime", "completionTime is required for Complete jobs")
    if began and done and done < began:
        yield Cause.invalid("status.completionTime", done, "completionTime cannot be set before startTime")


def _finished(status: Object) -> Iterator[Cause]:
    """A Job that has ended has begun, and has no pods any more."""
    for field in ("active", "terminating"):
        if (number := status.get(field) or 0) > 0:
            yield Cause.invalid(f"status.{field}", number, f"{field}>0 is invalid for finished job")
    if status.get("startTime") is None:
        yield Cause.required("status.startTime", "startTime is required for finished job")
    if any(status.get("uncountedTerminatedPods", {}).get(field) for field in ("succeeded", "failed")):
        why = "uncountedTerminatedPods needs to be empty for finished job"
        yield Cause.invalid("status.uncountedTerminatedPods", status["uncountedTerminatedPods"], why)


def _indexes(spec: Object, status: Object) -> Iterator[Cause]:
    done, failed = status.get("completedIndexes", ""), status.get("failedIndexes")
    if done and spec.get("completionMode") != "Indexed":
        yield Cause.invalid(
            "status.completedIndexes", done, "cannot set non-empty completedIndexes when non-indexed completion mode"
        )
    if failed is not None and "backoffLimitPerIndex" not in spec:
        yield Cause.invalid(
            "status.failedIndexes", failed, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        )
    ranges = {}
    for field, text in (("completedIndexes", done), ("failedIndexes", failed or "")):
        try:
            ranges[field] = ranges_of(text)
            if ranges[field] and ranges[field][-1].stop > spec.get("completions", 0):
                raise ValueError(f"too large index: {ranges[field][-1].stop - 1}")
        except ValueError as error:
            yield Cause.invalid(f"status.{field}", text[:80], f"error parsing {field}: {error}")
            return
    if Indexes(ranges["completedIndexes"]) & Indexes(ranges["failedIndexes"]):
        yield Cause.invalid("status.failedIndexes", failed, "failedIndexes and completedIndexes overlap")


def _change(job: Object, before: Object) -> Iterator[Cause]:
    """Nothing is counted back, and times stay."""
    spec, status = job["spec"], job.get("status", {})
    for field in ("failed",) if spec.get("completionMode") == "Indexed" else ("failed", "succeeded"):
        if (status.get(field) or 0) < (before.get(field) or 0):
            yield Cause.invalid(f"status.{field}", status.get(field) or 0, f"cannot decrease the {field} counter")
    began, done = before.get("startTime"), before.get("completionTime")
    if began is not None and began != status.get("startTime") and not spec.get("suspend"):
        yield Cause.required("status.startTime", "startTime cannot be removed for unsuspended job")
    if done is not None and status.get("completionTime") not in (None, done):
        yield Cause.invalid("status.completionTime", status["completionTime"], "completionTime cannot be mutated")

"""Job: defaults and rules (pkg/apis/batch/v1/defaults.go, pkg/apis/batch/validation)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.job_indexes import ranges_of
from podplane.apiserver.kinds.workloads import check_selected, complete_template
from podplane.apiserver.problems import Cause

Object = dict[str, Any]
JOB_UID, JOB_NAME = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
INDEXED = "Indexed"
BACKOFF_LIMIT, NO_LIMIT = 6, 2**31 - 1
MOST_PARALLEL, MOST_FAILED_INDEXES = 100_000, 100_000
MANY, MOST_PARALLEL_OF_MANY, MOST_FAILED_OF_MANY = 100_000, 10_000, 10_000
"""Limits of an indexed Job, and those of one with more than `MANY` completions and a limit for each index."""
MOST_RULES, MOST_VALUES, MOST_PATTERNS = 20, 255, 20
LONGEST_INDEXES, LONGEST_MANAGER = 64 * 1024, 63
ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
NOT_NEGATIVE = (
    *("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"),
    *("backoffLimitPerIndex", "maxFailedIndexes"),
)
FIXED = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
DIRECTIVES = ("nodeSelector", "tolerations", "schedulingGates")
"""What of the pods of a Job that is suspended and has never started may change, beside labels, annotations and node affinity."""
PREFIXED = re.compile(rf"{names.SUBDOMAIN_PATTERN.pattern}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")


def complete_job(job: Object) -> None:
    """Defaults, and a selector of its own: the uid, which stands in the template's labels too, and so in the Job's (SetDefaults_Job)."""
    spec = complete_template(job)
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", NO_LIMIT if "backoffLimitPerIndex" in spec else BACKOFF_LIMIT)
    policy = spec.get("podFailurePolicy")
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed" if policy is None else "Failed")
    for rule in (policy or {}).get("rules", ()):
        for pattern in rule.get("onPodConditions", ()):
            pattern["status"] = pattern.get("status") or "True"
    uid = job["metadata"].get("uid")
    if uid and not spec.get("manualSelector") and "selector" not in spec:
        own = {JOB_UID: uid, "controller-uid": uid, JOB_NAME: job["metadata"]["name"], "job-name": job["metadata"]["name"]}
        spec["selector"] = {"matchLabels": {JOB_UID: uid}}
        metadata = spec.setdefault("template", {}).setdefault("metadata", {})
        metadata["labels"] = {**metadata.get("labels", {}), **own}
    labels = spec.get("template", {}).get("metadata", {}).get("labels")
    if labels and not job["metadata"].get("labels"):
        job["metadata"]["labels"] = dict(labels)


def check_job(job: Object, old: Object | None) -> Iterator[Cause]:
    """Job: its pods end; what it runs stays."""
    spec = job["spec"]
    yield from check_selected(spec, ("OnFailure", "Never"))
    if spec.get("manualSelector") and "selector" not in spec:
        yield Cause.required("spec.selector")
    for field in NOT_NEGATIVE:
        if spec.get(field, 0) < 0:
            yield Cause.invalid(f"spec.{field}", spec[field], "must be greater than or equal to 0")
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield Cause.required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    yield from _check_manager(spec.get("managedBy"))
    yield from _check_indexed(job["metadata"], spec) if spec.get("completionMode") == INDEXED else _check_not_indexed(spec)
    if "podFailurePolicy" in spec:
        yield from _check_failure_policy(spec)
    if old is not None:
        yield from _check_change(old, spec)


def _check_manager(name: str | None) -> Iterator[Cause]:
    if name is not None and not PREFIXED.fullmatch(name):
        yield Cause.invalid("spec.managedBy", name, 'must be a domain-prefixed path (such as "acme.io/foo")')
    if name is not None and len(name) > LONGEST_MANAGER:
        yield Cause.invalid("spec.managedBy", name, f"may not be more than {LONGEST_MANAGER} bytes")


def _check_not_indexed(spec: Object) -> Iterator[Cause]:
    for field in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"):
        if field in spec:
            yield Cause.invalid(f"spec.{field}", spec[field], "requires indexed completion mode")


def _check_indexed(metadata: Object, spec: Object) -> Iterator[Cause]:
    """Limits, and a name of which the pods' host names can be made."""
    if "completions" not in spec:
        yield Cause.required("spec.completions", "when completion mode is Indexed")
        return
    completions, most = spec["completions"], spec.get("maxFailedIndexes")
    last = f"{metadata['name']}-{completions - 1}"
    if completions > 0 and names.LABEL(last):
        why = f"will not able to create pod with invalid DNS label: {last}"
        yield Cause.invalid("metadata.name", metadata["name"], why)
    mode = "when completion mode is Indexed"
    yield from _at_most(spec, "parallelism", MOST_PARALLEL, f" {mode}")
    yield from _at_most(spec, "maxFailedIndexes", MOST_FAILED_INDEXES)
    if most is not None and most > completions:
        yield Cause.invalid("spec.maxFailedIndexes", most, "must be less than or equal to completions")
    if completions > MANY and "backoffLimitPerIndex" in spec:
        if most is None:
            yield Cause.required("spec.maxFailedIndexes", f"must be specified when completions is above {MANY}")
        many = f" when completions are above {MANY} and used with backoff limit per index"
        yield from _at_most(spec, "parallelism", MOST_PARALLEL_OF_MANY, many)
        yield from _at_most(spec, "maxFailedIndexes", MOST_FAILED_OF_MANY, many)
    if "successPolicy" in spec:
        yield from _check_success_policy(spec["successPolicy"].get("rules", []), completions)


def _at_most(spec: Object, field: str, most: int, when: str = "") -> Iterator[Cause]:
    if spec.get(field, 0) > most:
        yield Cause.invalid(f"spec.{field}", spec[field], f"must be less than or equal to {most}{when}")


def _check_success_policy(rules: list[Object], completions: int) -> Iterator[Cause]:
    if not rules:
        yield Cause.required(
            "spec.successPolicy.rules", "at least one rules must be specified when the successPolicy is specified"
        )
    if len(rules) > MOST_RULES:
        yield Cause.too_many("spec.successPolicy.rules", len(rules), MOST_RULES)
        return
    for i, rule in enumerate(rules):
        path, count, text = f"spec.successPolicy.rules[{i}]", rule.get("succeededCount"), rule.get("succeededIndexes")
        total = completions
        if count is None and text is None:
            yield Cause.required(path, "at least one of succeededCount or succeededIndexes must be specified")
        if text is not None:
            try:
                total = _total(text, completions)
            except ValueError as error:
                yield Cause.invalid(f"{path}.succeededIndexes", text[:80], f"error parsing succeededIndexes: {error}")
        if count is not None and count < 0:
            yield Cause.invalid(f"{path}.succeededCount", count, "must be greater than or equal to 0")
        if count is not None and count > min(total, completions):
            whose = (
                "the number of specified completions" if total >= completions else "the number of indexes in succeededIndexes"
            )
            yield Cause.invalid(
                f"{path}.succeededCount", count, f"must be less than or equal to {min(total, completions)} ({whose})"
            )


def _total(text: str, completions: int) -> int:
    """How many indexes of a Job a text names. ValueError when it can't be read, or names others."""
    if len(text) > LONGEST_INDEXES:
        raise ValueError(f"may not be more than {LONGEST_INDEXES} bytes")
    ranges = ranges_of(text)
    if ranges and ranges[-1].stop > completions:
        raise ValueError(f"too large index: {ranges[-1].stop - 1}")
    return sum(map(len, ranges))


def _check_failure_policy(spec: Object) -> Iterator[Cause]:
    rules, path = spec["podFailurePolicy"].get("rules", []), "spec.podFailurePolicy.rules"
    if len(rules) > MOST_RULES:
        yield Cause.too_many(path, len(rules), MOST_RULES)
        return
    if spec["podReplacementPolicy"] != "Failed":
        yield Cause.unsupported("spec.podReplacementPolicy", spec["podReplacementPolicy"], ("Failed",))
    inner = spec["template"].get("spec", {})
    if inner.get("restartPolicy") != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        yield Cause.invalid("spec.template.spec.restartPolicy", inner.get("restartPolicy"), why)
    containers = {c.get("name") for c in (*inner.get("containers", ()), *inner.get("initContainers", ()))}
    for i, rule in enumerate(rules):
        at, action = f"{path}[{i}]", rule.get("action", "")
        if action not in ACTIONS:
            yield Cause.unsupported(f"{at}.action", action, ACTIONS)
        if action == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield Cause.invalid(f"{at}.action", action, "requires the backoffLimitPerIndex to be set")
        codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions", [])
        if (codes is None) is (not patterns):
            kinds = "OnExitCodes and OnPodConditions"
            both = f"specifying one of {kinds} is required" if codes is None else f"specifying both {kinds} is not supported"
            yield Cause(at, "FieldValueInvalid", f"Invalid value: {both}")
        if codes is not None:
            yield from _check_codes(codes, f"{at}.onExitCodes", containers)
        yield from _check_patterns(patterns, f"{at}.onPodConditions")


def _check_codes(codes: Object, path: str, containers: set[Any]) -> Iterator[Cause]:
    operator, values, name = codes.get("operator", ""), codes.get("values", []), codes.get("containerName")
    if operator not in ("In", "NotIn"):
        yield Cause.unsupported(f"{path}.operator", operator, ("In", "NotIn"))
    if name is not None and name not in containers:
        why = "must be one of the container or initContainer names in the pod template"
        yield Cause.invalid(f"{path}.containerName", name, why)
    if not values:
        yield Cause.invalid(f"{path}.values", values, "at least one value is required")
    if len(values) > MOST_VALUES:
        yield Cause.too_many(f"{path}.values", len(values), MOST_VALUES)
        return
    for i, value in enumerate(values):
        if value == 0 and operator == "In":
            yield Cause.invalid(f"{path}.values[{i}]", value, "must not be 0 for the In operator")
        if value in values[:i]:
            yield Cause.duplicate(f"{path}.values[{i}]", value)
    if values != sorted(values):
        yield Cause.invalid(f"{path}.values", values, "must be ordered")


def _check_patterns(patterns: list[Object], path: str) -> Iterator[Cause]:
    if len(patterns) > MOST_PATTERNS:
        yield Cause.too_many(path, len(patterns), MOST_PATTERNS)
        return
    for i, pattern in enumerate(patterns):
        if not names.QUALIFIED_PATTERN.fullmatch(pattern.get("type", "")):
            yield Cause.invalid(f"{path}[{i}].type", pattern.get("type", ""), "name part must be a qualified name")
        if pattern.get("status") not in ("True", "False", "Unknown"):
            yield Cause.unsupported(f"{path}[{i}].status", pattern.get("status"), ("False", "True", "Unknown"))


def _check_change(old: Object, spec: Object) -> Iterator[Cause]:
    """Completions may change together with the parallelism of an indexed Job; directives for the scheduler before the first start."""
    before = old["spec"]
    for field in FIXED:
        if before.get(field) != spec.get(field):
            yield Cause.immutable(f"spec.{field}", spec.get(field))
    if before.get("completions") != spec.get("completions"):
        if spec.get("completionMode") != INDEXED:
            yield Cause.immutable("spec.completions", spec.get("completions"))
        elif spec.get("completions") != spec.get("parallelism"):
            why = "can only be modified in tandem with spec.parallelism"
            yield Cause.invalid("spec.completions", spec.get("completions"), why)
    template = before["template"]
    if _may_move(old):
        template = _moved(template, spec["template"])
    if template != spec["template"]:
        yield Cause.immutable("spec.template", spec["template"])


def _may_move(job: Object) -> bool:
    """Is it suspended, and has it no pods yet?"""
    status = job.get("status", {})
    return bool(job["spec"].get("suspend")) and "startTime" not in status and not status.get("active")


def _moved(before: Object, after: Object) -> Object:
    """The template of before with the directives of after."""
    template, new = copy.deepcopy(before), after.get("spec", {})
    _take(template.setdefault("metadata", {}), after.get("metadata", {}), ("labels", "annotations"))
    _take(template["spec"], new, DIRECTIVES)
    affinity = template["spec"].get("affinity", {})
    _take(affinity, new.get("affinity", {}), ("nodeAffinity",))
    if affinity or "affinity" in new:
        template["spec"]["affinity"] = affinity
    else:
        template["spec"].pop("affinity", None)
    if not template["metadata"] and "metadata" not in after:
        del template["metadata"]
    return template


def _take(target: Object, source: Object, fields: tuple[str, ...]) -> None:
    for field in fields:
        target.pop(field, None)
        if field in source:
            target[field] = source[field]

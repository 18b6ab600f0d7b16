"""Which Jobs are refused, with the place of what is wrong; what of one may change; and their defaults."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.kinds.job_indexes import Indexes, ranges_of
from tests.unit.apiserver.test_server import CONTAINER, Api, Object

JOBS = "/apis/batch/v1/namespaces/default/jobs"
INDEXED = {"completionMode": "Indexed", "completions": 5, "parallelism": 5}
PER_INDEX = {**INDEXED, "backoffLimitPerIndex": 1}


def job(name: str = "work", policy: str = "Never", **spec: Any) -> Object:
    template = {"spec": {"restartPolicy": policy, "containers": [CONTAINER]}}
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


def on_codes(*values: int, operator: str = "In", action: str = "Ignore", **more: Any) -> Object:
    return {"rules": [{"action": action, "onExitCodes": {"operator": operator, "values": list(values), **more}}]}


async def causes(api: Api, manifest: Object, code: int = 422) -> list[str]:
    answer = await api.answer("POST", JOBS, manifest)
    assert answer.status == code, answer.body
    return [cause["field"] for cause in json.loads(answer.body)["details"]["causes"]]


RULE = "spec.podFailurePolicy.rules[0]"
SUCCESS = "spec.successPolicy.rules[0]"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"completionMode": "Indexed"} | {"parallelism": 1}, "spec.completions"),
        ({"parallelism": -1}, "spec.parallelism"),
        ({"manualSelector": True}, "spec.selector"),
        ({**INDEXED, "backoffLimitPerIndex": -1}, "spec.backoffLimitPerIndex"),
        ({**PER_INDEX, "maxFailedIndexes": -1}, "spec.maxFailedIndexes"),
        ({**PER_INDEX, "maxFailedIndexes": 6}, "spec.maxFailedIndexes"),
        ({**INDEXED, "maxFailedIndexes": 1}, "spec.backoffLimitPerIndex"),
        ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex"),
        ({"successPolicy": {"rules": [{"succeededCount": 1}]}}, "spec.successPolicy"),
        ({**INDEXED, "parallelism": 100_001}, "spec.parallelism"),
        ({**PER_INDEX, "completions": 100_001}, "spec.maxFailedIndexes"),
        ({**PER_INDEX, "completions": 100_001, "parallelism": 10_001, "maxFailedIndexes": 1}, "spec.parallelism"),
        ({"managedBy": "me"}, "spec.managedBy"),
        ({"managedBy": "example.org/" + "x" * 60}, "spec.managedBy"),
        ({"podReplacementPolicy": "Never"}, "spec.podReplacementPolicy"),
        ({"podFailurePolicy": on_codes(1), "podReplacementPolicy": "TerminatingOrFailed"}, "spec.podReplacementPolicy"),
        ({"podFailurePolicy": on_codes(1, action="Stop")}, f"{RULE}.action"),
        ({"podFailurePolicy": on_codes(1, action="FailIndex")}, f"{RULE}.action"),
        ({"podFailurePolicy": {"rules": [{"action": "Ignore"}]}}, RULE),
        ({"podFailurePolicy": on_codes()}, f"{RULE}.onExitCodes.values"),
        ({"podFailurePolicy": on_codes(0)}, f"{RULE}.onExitCodes.values[0]"),
        ({"podFailurePolicy": on_codes(2, 1)}, f"{RULE}.onExitCodes.values"),
        ({"podFailurePolicy": on_codes(*range(1, 257))}, f"{RULE}.onExitCodes.values"),
        ({"podFailurePolicy": on_codes(1, operator="Is")}, f"{RULE}.onExitCodes.operator"),
        ({"podFailurePolicy": on_codes(1, containerName="other")}, f"{RULE}.onExitCodes.containerName"),
        ({"podFailurePolicy": {"rules": on_codes(1)["rules"] * 21}}, "spec.podFailurePolicy.rules"),
        (
            {"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "A", "status": "Yes"}]}]}},
            f"{RULE}.onPodConditions[0].status",
        ),
        ({**INDEXED, "successPolicy": {"rules": []}}, "spec.successPolicy.rules"),
        ({**INDEXED, "successPolicy": {"rules": [{}]}}, SUCCESS),
        ({**INDEXED, "successPolicy": {"rules": [{"succeededCount": 6}]}}, f"{SUCCESS}.succeededCount"),
        ({**INDEXED, "successPolicy": {"rules": [{"succeededIndexes": "0,9"}]}}, f"{SUCCESS}.succeededIndexes"),
        ({**INDEXED, "successPolicy": {"rules": [{"succeededIndexes": "1-0"}]}}, f"{SUCCESS}.succeededIndexes"),
        ({**INDEXED, "successPolicy": {"rules": [{"succeededIndexes": "0-2000000000"}]}}, f"{SUCCESS}.succeededIndexes"),
        (
            {**INDEXED, "successPolicy": {"rules": [{"succeededIndexes": "0,2", "succeededCount": 3}]}},
            f"{SUCCESS}.succeededCount",
        ),
    ],
)
async def test_what_is_wrong_with_a_job_is_said_with_its_place(spec: Object, field: str) -> None:
    assert field in await causes(Api(), job(**spec))


async def test_a_failure_policy_needs_pods_that_are_never_restarted() -> None:
    assert "spec.template.spec.restartPolicy" in await causes(Api(), job(policy="OnFailure", podFailurePolicy=on_codes(1)))


async def test_the_pods_of_an_indexed_job_need_a_host_name() -> None:
    assert "metadata.name" in await causes(Api(), job("w" * 62, **INDEXED))
    assert "metadata.name" in await causes(Api(), job("a.b", **INDEXED))


@pytest.mark.parametrize(
    ("spec", "defaults"),
    [
        ({}, {"backoffLimit": 6, "completions": 1, "parallelism": 1, "podReplacementPolicy": "TerminatingOrFailed"}),
        ({"parallelism": 3}, {"parallelism": 3, "completions": None}),
        ({"completions": 3}, {"parallelism": 1, "completions": 3}),
        (PER_INDEX, {"backoffLimit": 2**31 - 1}),
        ({**PER_INDEX, "backoffLimit": 4}, {"backoffLimit": 4}),
        ({"podFailurePolicy": on_codes(1)}, {"podReplacementPolicy": "Failed"}),
    ],
)
async def test_defaults_hang_on_each_other(spec: Object, defaults: Object) -> None:
    made = (await Api()("POST", JOBS, job(**spec)))["spec"]
    assert {name: made.get(name) for name in defaults} == defaults


async def test_a_condition_is_looked_for_when_it_holds() -> None:
    policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    made = (await Api()("POST", JOBS, job(podFailurePolicy=policy)))["spec"]
    assert made["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize(
    ("spec", "change", "is_refused"),
    [
        ({}, {"parallelism": 4, "backoffLimit": 1, "activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 5}, False),
        ({}, {"completions": 2}, True),
        (INDEXED, {"completions": 3, "parallelism": 3}, False),
        (INDEXED, {"completions": 3}, True),
        (PER_INDEX, {"backoffLimitPerIndex": 2}, True),
        (PER_INDEX, {"maxFailedIndexes": 2}, False),
        ({}, {"managedBy": "example.org/me"}, True),
        ({}, {"template": {"spec": {"nodeSelector": {"a": "b"}}}}, True),
        ({"suspend": True}, {"template": {"spec": {"nodeSelector": {"a": "b"}}}}, False),
        ({"suspend": True}, {"template": {"metadata": {"annotations": {"a": "b"}}}}, False),
        ({"suspend": True}, {"template": {"spec": {"affinity": {"nodeAffinity": {}}}}}, False),
        ({"suspend": True}, {"template": {"spec": {"affinity": {"podAffinity": {}}}}}, True),
        ({"suspend": True}, {"template": {"spec": {"hostname": "a"}}}, True),
    ],
)
async def test_what_of_a_job_may_change(spec: Object, change: Object, is_refused: bool) -> None:
    api = Api()
    await api("POST", JOBS, job(**spec))
    answer = await api.answer("PATCH", f"{JOBS}/work", {"spec": change})
    assert answer.status == (422 if is_refused else 200), answer.body


# What others write into a status.

THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def true(*kinds: str) -> Object:
    return {"conditions": [{"type": kind, "status": "True"} for kind in kinds]}


DONE = {**true("SuccessCriteriaMet", "Complete"), "startTime": THEN, "completionTime": NOW, "active": 0}


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ({}, {"active": -1}, "status.active"),
        ({}, {"active": 1, "ready": 2}, "status.ready"),
        ({}, {"uncountedTerminatedPods": {"failed": ["a"], "succeeded": ["a"]}}, "status.uncountedTerminatedPods.failed[0]"),
        ({}, {**DONE, **true("SuccessCriteriaMet", "FailureTarget")}, "status.conditions"),
        ({}, {**DONE, **true("Complete")}, "status.conditions"),
        ({}, {**true("Failed"), "startTime": THEN}, "status.conditions"),
        ({}, {**DONE, "completionTime": None}, "status.completionTime"),
        ({}, {"completionTime": NOW}, "status.completionTime"),
        ({}, {**DONE, "startTime": NOW, "completionTime": THEN}, "status.completionTime"),
        ({}, {**DONE, "startTime": None}, "status.startTime"),
        ({}, {**DONE, "active": 1}, "status.active"),
        ({}, {**DONE, "terminating": 1}, "status.terminating"),
        ({}, {**DONE, "uncountedTerminatedPods": {"failed": ["a"]}}, "status.uncountedTerminatedPods"),
        ({}, {"completedIndexes": "1,x"}, "status.completedIndexes"),
        ({}, {"failedIndexes": "0-9"}, "status.failedIndexes"),
        ({}, {"failedIndexes": "0-2", "completedIndexes": "2,3"}, "status.failedIndexes"),
        ({"failed": 2}, {"failed": 1}, "status.failed"),
        ({"startTime": THEN}, {"startTime": NOW}, "status.startTime"),
        (DONE, {"completionTime": "2026-01-01T00:02:00Z"}, "status.completionTime"),
        (DONE, {"conditions": None, "completionTime": None}, "status.conditions"),
        (true("FailureTarget"), {"conditions": None}, "status.conditions"),
        ({}, DONE, ""),
        ({}, {**true("FailureTarget", "Failed"), "startTime": THEN, "failed": 1}, ""),
        ({}, {"completedIndexes": "0-2", "failedIndexes": "3", "succeeded": 3, "failed": 1}, ""),
        (DONE, {"ready": 0}, ""),
    ],
)
async def test_what_the_status_of_a_job_may_say(before: Object, after: Object, field: str) -> None:
    api = Api()
    await api("POST", JOBS, job(**PER_INDEX))
    await api("PATCH", f"{JOBS}/work/status", {"status": before})
    answer = await api.answer("PATCH", f"{JOBS}/work/status", {"status": after})
    causes = json.loads(answer.body).get("details", {}).get("causes", [])
    assert (answer.status, field in [cause["field"] for cause in causes]) == (422 if field else 200, bool(field)), answer.body


async def test_indexes_beyond_those_of_a_job_that_was_made_smaller_may_stay() -> None:
    api = Api()
    await api("POST", JOBS, job(**PER_INDEX))
    await api("PATCH", f"{JOBS}/work/status", {"status": {"completedIndexes": "4"}})
    await api("PATCH", f"{JOBS}/work", {"spec": {"completions": 3, "parallelism": 3}})
    await api("PATCH", f"{JOBS}/work/status", {"status": {"active": 1}})
    await api.refused("Invalid", "PATCH", f"{JOBS}/work/status", {"status": {"completedIndexes": "3"}})


# Indexes.


def numbers(indexes: Indexes) -> list[int]:
    """Its numbers, of ranges that grow and do not touch."""
    assert all(one.stop < two.start for one, two in itertools.pairwise(indexes.ranges))
    return [index for part in indexes.ranges for index in part]


@given(st.sets(st.integers(0, 40)), st.integers(0, 50))
def test_indexes_are_read_as_they_are_written(indexes: set[int], completions: int) -> None:
    named = Indexes.named(str(Indexes.of(indexes)), completions)
    below = {index for index in indexes if index < completions}
    assert numbers(named) == sorted(below)
    assert len(named) == len(below)
    assert list(named.missing(completions)) == sorted(set(range(completions)) - below)


def test_two_neighbours_are_no_range() -> None:
    assert str(Indexes.of({0, 1, 2, 5, 7, 8})) == "0-2,5,7,8"


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_ranges_meet_and_join_as_sets_do(one: set[int], two: set[int]) -> None:
    assert numbers(Indexes.of(one) & Indexes.of(two)) == sorted(one & two)
    assert numbers(Indexes.of(one) | Indexes.of(two)) == sorted(one | two)
    assert {index for index in range(42) if index in Indexes.of(one)} == one


async def test_most_indexes_that_a_job_may_have_are_judged_as_ranges() -> None:
    api, last = Api(), 2**31 - 2
    many = {"completions": 2**31 - 1, "parallelism": 1, "maxFailedIndexes": 10_000}
    await api("POST", JOBS, job(**{**PER_INDEX, **many}))
    overlap = {"completedIndexes": f"0-{2**30}", "failedIndexes": f"{2**30}-{last}"}
    await api.refused("Invalid", "PATCH", f"{JOBS}/work/status", {"status": overlap})
    await api("PATCH", f"{JOBS}/work/status", {"status": {**overlap, "failedIndexes": f"{2**30 + 1}-{last}"}})


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3,2", "1,1", "2-1", "1-1", "0-2,2", "1,,2", "１"])
def test_what_is_no_list_of_indexes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ranges_of(text)

"""Indexed jobs: limits and back-off for each index, policies of success and failure, sizes that change; who manages a job and its pods."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.apiserver.controllers.job import JobController
from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.controllers.test_jobs import INDEX, WORK, running, status, terminate
from tests.unit.apiserver.controllers.test_workloads import JOBS, conditions, job
from tests.unit.apiserver.test_server import PODS, Object

FAILURES, IGNORED = "batch.kubernetes.io/job-index-failure-count", "batch.kubernetes.io/job-index-ignored-failure-count"


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().begin()


async def make(cluster: Cluster, size: int, **spec: Any) -> None:
    await cluster("POST", JOBS, job(**{"completions": size, "parallelism": size, "completionMode": "Indexed", **spec}))


async def by_index(cluster: Cluster) -> dict[int, Object]:
    """The pods that run, by their index."""
    pods = await running(cluster)
    found = {int(pod["metadata"]["annotations"][INDEX]): pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}
    assert len(found) == len(pods)
    return dict(sorted(found.items()))


async def end(cluster: Cluster, **codes: int) -> None:
    """Indexes end with these exit codes, `i0=1` say."""
    pods = await by_index(cluster)
    for index, code in codes.items():
        await terminate(cluster, pods[int(index[1:])], code)


async def numbers(cluster: Cluster, *fields: str) -> list[Any]:
    found = await status(cluster)
    return [found.get(field) for field in fields]


async def ended(cluster: Cluster) -> tuple[dict[str, str], list[str]]:
    """The conditions that hold, with their reasons; the messages of Complete and Failed. Its pods are not held any more."""
    await cluster.kubelet()
    assert not any(pod["metadata"].get("finalizers") for pod in await cluster.pods())
    messages = [c["message"] for c in (await status(cluster)).get("conditions", ()) if c["type"] in ("Complete", "Failed")]
    return await conditions(cluster), messages


# Back-off.


async def test_failures_in_the_second_of_a_success_wait_all_the_same(cluster: Cluster) -> None:
    """What fails at once is not tried seven times within a second because another index has succeeded."""
    await make(cluster, 3)
    await end(cluster, i0=0)
    for wait in (10, 20, 40):
        await end(cluster, i1=1)
        await cluster.settle(wait - 1)
        assert 1 not in await by_index(cluster)
        await cluster.settle(2)
        assert 1 in await by_index(cluster)
    assert await numbers(cluster, "failed", "succeeded", "completedIndexes") == [3, 1, "0"]


async def test_each_index_waits_for_itself(cluster: Cluster) -> None:
    await make(cluster, 2, backoffLimitPerIndex=5)
    await end(cluster, i0=1)
    assert list(await by_index(cluster)) == [1]
    await cluster.settle(11)
    await end(cluster, i0=1, i1=1)
    await cluster.settle(11)
    assert list(await by_index(cluster)) == [1]
    await cluster.settle(10)
    assert list(await by_index(cluster)) == [0, 1]
    counted = {i: pod["metadata"]["annotations"][FAILURES] for i, pod in (await by_index(cluster)).items()}
    assert counted == {0: "2", 1: "1"}


async def test_a_controller_that_starts_anew_knows_how_long_to_wait(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job())
    (pod,) = await running(cluster)
    await terminate(cluster, pod, 1)
    object.__setattr__(cluster.manager._controllers["job-controller"], "decide", JobController().decide)
    await cluster.settle(8)
    assert await running(cluster) == []
    await cluster.settle(3)
    assert len(await running(cluster)) == 1


# backoffLimitPerIndex, maxFailedIndexes.


async def test_an_index_that_failed_too_often_is_given_up_and_the_others_go_on(cluster: Cluster) -> None:
    await make(cluster, 3, backoffLimitPerIndex=1)
    await end(cluster, i0=1, i1=0)
    assert await numbers(cluster, "failed", "failedIndexes", "completedIndexes") == [None, "", "1"]
    held = [pod for pod in await cluster.pods() if pod["status"]["phase"] == "Failed"]
    assert [bool(pod["metadata"].get("finalizers")) for pod in held] == [True], (
        "until another comes in its place, which takes its count"
    )
    await cluster.settle(11)
    await end(cluster, i0=1)
    assert await numbers(cluster, "failed", "failedIndexes", "active") == [2, "0", 1]
    await end(cluster, i2=0)
    assert await ended(cluster) == ({"FailureTarget": "FailedIndexes", "Failed": "FailedIndexes"}, ["Job has failed indexes"])
    assert await numbers(cluster, "failed", "succeeded", "failedIndexes", "completedIndexes") == [2, 2, "0", "1,2"]
    assert await cluster.events("FailedIndexes") == ["Job has failed indexes"]


async def test_all_that_succeed_complete_a_job_with_limits_for_each_index(cluster: Cluster) -> None:
    await make(cluster, 2, backoffLimitPerIndex=1)
    await end(cluster, i0=1, i1=0)
    await cluster.settle(11)
    await end(cluster, i0=0)
    assert (await ended(cluster))[0] == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    assert await numbers(cluster, "failed", "succeeded", "failedIndexes") == [1, 2, ""]


async def test_a_job_fails_when_too_many_indexes_have(cluster: Cluster) -> None:
    await make(cluster, 4, backoffLimitPerIndex=0, maxFailedIndexes=1)
    await end(cluster, i0=1)
    assert await numbers(cluster, "failedIndexes", "active") == ["0", 3]
    await end(cluster, i3=1)
    why = "Job has exceeded the specified maximal number of failed indexes"
    assert await ended(cluster) == ({"FailureTarget": "MaxFailedIndexesExceeded", "Failed": "MaxFailedIndexesExceeded"}, [why])
    assert await numbers(cluster, "failed", "failedIndexes", "active") == [4, "0,3", None]


ON_42: Object = {"onExitCodes": {"operator": "In", "values": [42]}}


async def test_a_policy_gives_an_index_up_at_once(cluster: Cluster) -> None:
    await make(cluster, 2, backoffLimitPerIndex=5, podFailurePolicy={"rules": [{"action": "FailIndex", **ON_42}]})
    await end(cluster, i0=42)
    assert await numbers(cluster, "failed", "failedIndexes") == [1, "0"]
    await cluster.settle(1000)
    assert list(await by_index(cluster)) == [1]


async def test_failures_that_a_policy_ignores_are_waited_for_and_do_not_count(cluster: Cluster) -> None:
    await make(cluster, 1, backoffLimitPerIndex=0, podFailurePolicy={"rules": [{"action": "Ignore", **ON_42}]})
    for ignored, wait in ((1, 10), (2, 20)):
        await end(cluster, i0=42)
        await cluster.settle(wait - 1)
        assert await by_index(cluster) == {}
        await cluster.settle(2)
        annotations = (await by_index(cluster))[0]["metadata"]["annotations"]
        assert (annotations[FAILURES], annotations[IGNORED]) == ("0", str(ignored))
    await end(cluster, i0=1)
    assert (await ended(cluster))[0]["Failed"] == "FailedIndexes"
    assert await numbers(cluster, "failed", "failedIndexes") == [1, "0"]


@pytest.mark.parametrize("text", ["-1", "x", "", "9" * 30])
async def test_a_count_that_is_none_is_zero(cluster: Cluster, text: str) -> None:
    await make(cluster, 1, backoffLimitPerIndex=1)
    pod = (await by_index(cluster))[0]
    await cluster("PATCH", f"{PODS}/{pod['metadata']['name']}", {"metadata": {"annotations": {FAILURES: text}}})
    await end(cluster, i0=1)
    await cluster.settle(11)
    assert (await by_index(cluster))[0]["metadata"]["annotations"][FAILURES] == "1"


# successPolicy.


@pytest.mark.parametrize(
    ("rules", "won", "met"),
    [
        ([{"succeededCount": 2}], [0, 3], 0),
        ([{"succeededCount": 2}], [0], None),
        ([{"succeededIndexes": "1,2"}], [1, 2], 0),
        ([{"succeededIndexes": "1,2"}], [0, 1, 3], None),
        ([{"succeededIndexes": "0-2", "succeededCount": 1}], [2], 0),
        ([{"succeededIndexes": "0-2", "succeededCount": 1}], [3], None),
        ([{"succeededIndexes": "3"}, {"succeededCount": 1}], [0], 1),
        ([{"succeededCount": 0}], [1], 0),
    ],
)
async def test_a_job_is_done_when_a_rule_of_its_policy_says_so(
    cluster: Cluster, rules: list[Object], won: list[int], met: int | None
) -> None:
    await make(cluster, 4, successPolicy={"rules": rules})
    await end(cluster, **{f"i{index}": 0 for index in won})
    if met is None:
        assert len(await by_index(cluster)) == 4 - len(won)
        assert await conditions(cluster) == {}
        return
    assert await ended(cluster) == (
        {"SuccessCriteriaMet": "SuccessPolicy", "Complete": "SuccessPolicy"},
        [f"Matched rules at index {met}"],
    )
    assert await numbers(cluster, "succeeded", "failed", "active") == [len(won), None, None], "what was stopped has not failed"
    assert await cluster.events("Completed") == ["Job completed"]


async def test_a_job_that_has_met_its_policy_ends_when_the_last_pod_has(cluster: Cluster) -> None:
    await make(cluster, 2, successPolicy={"rules": [{"succeededCount": 1}]})
    await end(cluster, i0=0)
    assert await conditions(cluster) == {"SuccessCriteriaMet": "SuccessPolicy"}
    assert await numbers(cluster, "active", "terminating", "completionTime") == [None, 1, None]
    assert "Complete" in (await ended(cluster))[0]


# Failing.


async def test_what_still_runs_has_failed_with_the_job(cluster: Cluster) -> None:
    await make(cluster, 3, activeDeadlineSeconds=20)
    await by_index(cluster)
    await cluster.settle(21)
    assert await conditions(cluster) == {"FailureTarget": "DeadlineExceeded"}
    assert await numbers(cluster, "failed", "active", "terminating") == [3, None, 3]
    assert len(await cluster.events("SuccessfulDelete")) == 3
    assert (await ended(cluster))[0]["Failed"] == "DeadlineExceeded"
    assert await numbers(cluster, "failed", "terminating") == [3, 0]


async def test_what_is_not_so_has_no_field(cluster: Cluster) -> None:
    """As the published Go type writes it: `ready` and `terminating` are pointers, the other numbers are left out when they are 0."""
    await cluster("POST", JOBS, job())
    await cluster.settle()
    assert await status(cluster) == {
        "active": 1,
        "ready": 0,
        "terminating": 0,
        "startTime": cluster.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        "uncountedTerminatedPods": {},
    }


# Sizes that change, and pods that are no members.


async def test_an_indexed_job_grows_and_shrinks(cluster: Cluster) -> None:
    await make(cluster, 3)
    await end(cluster, i2=0)
    await cluster("PATCH", WORK, {"spec": {"completions": 2, "parallelism": 2}})
    assert list(await by_index(cluster)) == [0, 1]
    assert await numbers(cluster, "succeeded", "completedIndexes", "failed") == [None, None, None]
    await cluster("PATCH", WORK, {"spec": {"completions": 4, "parallelism": 4}})
    assert list(await by_index(cluster)) == [0, 1, 2, 3]
    await cluster("PATCH", WORK, {"spec": {"completions": 1, "parallelism": 1}})
    assert list(await by_index(cluster)) == [0]
    await end(cluster, i0=0)
    assert (await ended(cluster))[0]["Complete"] == "CompletionsReached"
    assert await numbers(cluster, "succeeded", "failed") == [1, None], "what was taken away has not failed"


@pytest.mark.parametrize("annotations", [{INDEX: "0"}, {INDEX: "7"}, {INDEX: "x"}, {}])
async def test_a_pod_that_is_too_much_is_taken_away(cluster: Cluster, annotations: Object) -> None:
    """A second one of an index, or one without an index of the job."""
    await make(cluster, 2)
    one = (await by_index(cluster))[1]
    labels = one["metadata"]["labels"]
    metadata = {"name": "other", "labels": labels, "annotations": annotations}
    await cluster("POST", PODS, {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "podplane/echo"}]}})
    assert list(await by_index(cluster)) == [0, 1]
    await cluster.refused("NotFound", "GET", f"{PODS}/other")
    assert await numbers(cluster, "failed", "active") == [None, 2]


async def test_a_long_name_keeps_its_index(cluster: Cluster) -> None:
    manifest = job(completions=1, completionMode="Indexed")
    manifest["metadata"]["name"] = "w" * 60
    await cluster("POST", JOBS, manifest)
    (pod,) = await running(cluster)
    assert pod["metadata"]["name"].startswith("w" * 55 + "-0-")


# Pods that come and go by their labels, and jobs of others.


async def test_pods_are_adopted_and_let_go_by_their_labels(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job())
    (pod,) = await running(cluster)
    path = f"{PODS}/{pod['metadata']['name']}"
    await cluster("PATCH", path, {"metadata": {"ownerReferences": None, "finalizers": None}})
    await cluster.settle()
    metadata = (await cluster("GET", path))["metadata"]
    assert [owner["name"] for owner in metadata["ownerReferences"]] == ["work"]
    assert metadata["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    await cluster("PATCH", path, {"metadata": {"labels": None}})
    await cluster.kubelet()
    metadata = (await cluster("GET", path))["metadata"]
    assert ("ownerReferences" in metadata, "finalizers" in metadata) == (False, False)
    assert len(await running(cluster)) == 2


async def test_a_job_that_others_manage_is_left_alone_until_it_is_forgotten(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(managedBy="example.org/queue", ttlSecondsAfterFinished=5))
    await cluster.kubelet()
    assert (await cluster.pods(), (await cluster("GET", WORK))["status"]) == ([], {})
    now = cluster.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    kinds = ("SuccessCriteriaMet", "Complete")
    done = [{"type": kind, "status": "True", "reason": "X", "message": "", "lastTransitionTime": now} for kind in kinds]
    await cluster("PATCH", f"{WORK}/status", {"status": {"conditions": done, "startTime": now, "completionTime": now}})
    await cluster.settle(6)
    await cluster.refused("NotFound", "GET", WORK)


async def test_a_job_that_is_named_to_this_controller_runs(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(managedBy="kubernetes.io/job-controller"))
    assert len(await running(cluster)) == 1


async def test_a_job_with_nothing_to_do_is_complete(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(completions=0))
    assert (await ended(cluster))[0] == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    assert await cluster.pods() == []


async def test_pods_of_a_job_that_is_being_deleted_are_not_held(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(podReplacementPolicy="Failed"))
    await running(cluster)
    await cluster("DELETE", WORK, propagationPolicy="Foreground")
    await cluster.settle()
    (pod,) = await cluster.pods()
    assert "finalizers" not in pod["metadata"]
    await cluster.kubelet()
    await cluster.refused("NotFound", "GET", WORK)


# As many indexes as there may be.


async def test_a_job_of_two_billion_indexes_ends_by_its_ranges(cluster: Cluster) -> None:
    last = 2**31 - 2
    await make(cluster, last + 1, parallelism=1, backoffLimitPerIndex=0, maxFailedIndexes=10_000)
    await cluster("PATCH", f"{WORK}/status", {"status": {"completedIndexes": f"0-{last - 2}"}})
    for pod in await cluster.pods():
        await cluster("DELETE", f"{PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
    await cluster.settle()
    await end(cluster, **{f"i{last - 1}": 1})
    assert await numbers(cluster, "completedIndexes", "failedIndexes") == [f"0-{last - 2}", str(last - 1)]
    await end(cluster, **{f"i{last}": 0})
    assert (await ended(cluster))[0]["Failed"] == "FailedIndexes"
    assert await numbers(cluster, "completedIndexes", "succeeded") == [f"0-{last - 2},{last}", last]

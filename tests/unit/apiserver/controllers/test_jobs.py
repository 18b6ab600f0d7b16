"""Jobs: what counts as done and as failed, when they wait and give up, and what of them stays."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver.controllers.job_failures import Backoff, finished
from podplane.apiserver.kinds.job_indexes import Indexes
from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.controllers.test_workloads import JOBS, conditions, job
from tests.unit.apiserver.test_server import PODS, Object

WORK = f"{JOBS}/work"
INDEX = "batch.kubernetes.io/job-completion-index"
NOW = datetime.datetime(2026, 1, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().begin()


async def running(cluster: Cluster) -> list[Object]:
    await cluster.kubelet()
    return [pod for pod in await cluster.pods() if pod["status"]["phase"] == "Running"]


async def status(cluster: Cluster) -> Object:
    found: Object = (await cluster("GET", WORK))["status"]
    return found


async def terminate(cluster: Cluster, pod: Object, code: int) -> None:
    """Its container ends with this exit code."""
    at = cluster.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"name": "main", "state": {"terminated": {"exitCode": code, "finishedAt": at}}}
    body = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [ended]}
    await cluster("PATCH", f"{PODS}/{pod['metadata']['name']}/status", {"status": body})
    await cluster.settle()


# Failures.


def at(second: int) -> str:
    return (NOW + datetime.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ended(phase: str, second: int) -> Object:
    status = {"phase": phase, "containerStatuses": [{"name": "main", "state": {"terminated": {"finishedAt": at(second)}}}]}
    return {"metadata": {}, "spec": {}, "status": status}


@pytest.mark.parametrize(
    ("ends", "seconds"),
    [
        ([], 0),
        ([("Succeeded", 0)], 0),
        ([("Failed", 0)], 10),
        ([("Failed", -5)], 5),
        ([("Failed", -9), ("Failed", 0)], 20),
        ([("Failed", -9), ("Failed", -8), ("Failed", 0)], 40),
        ([("Failed", 0)] * 30, 600),
        ([("Failed", -9), ("Failed", -8), ("Succeeded", -7), ("Failed", 0)], 10),
        ([("Failed", -9), ("Succeeded", -7)], 0),
    ],
)
def test_failures_since_the_last_success_double_the_wait(ends: list[tuple[str, int]], seconds: int) -> None:
    pods = [ended(*each) for each in ends]
    won, lost = ([pod for pod in pods if pod["status"]["phase"] == phase] for phase in ("Succeeded", "Failed"))
    assert Backoff().after(won, lost).left(NOW) == seconds


def test_a_failure_counts_though_it_was_in_the_second_of_the_success_before() -> None:
    """Times have seconds only: what is told after a success has failed after it (newBackoffRecord)."""
    after = Backoff().after([ended("Succeeded", 0)], []).after([], [ended("Failed", 0)]).after([], [ended("Failed", 0)])
    assert after.left(NOW) == 20


@pytest.mark.parametrize(
    ("pod", "second"),
    [
        (ended("Failed", 3), 3),
        (
            {
                "metadata": {},
                "spec": {},
                "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": at(4)}]},
            },
            4,
        ),
        (
            {"metadata": {"deletionTimestamp": at(9), "deletionGracePeriodSeconds": 4, "creationTimestamp": at(0)}, "spec": {}},
            5,
        ),
        ({"metadata": {"creationTimestamp": at(1)}, "spec": {}}, 1),
        (
            {
                "metadata": {},
                "spec": {"initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}]},
                "status": {
                    "containerStatuses": [{"name": "main", "state": {"terminated": {"finishedAt": at(3)}}}],
                    "initContainerStatuses": [
                        {"name": "setup", "state": {"terminated": {"finishedAt": at(9)}}},
                        {"name": "proxy", "state": {"terminated": {"finishedAt": at(7)}}},
                    ],
                },
            },
            7,
        ),
    ],
)
def test_when_a_pod_has_ended(pod: Object, second: int) -> None:
    assert finished(pod) == NOW + datetime.timedelta(seconds=second)


async def test_the_next_pod_comes_after_the_wait(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job())
    (first,) = await running(cluster)
    await terminate(cluster, first, 1)
    assert await running(cluster) == []
    await cluster.settle(8)
    assert await running(cluster) == []
    await cluster.settle(3)
    assert len(await running(cluster)) == 1


async def test_restarts_in_place_count_towards_the_limit(cluster: Cluster) -> None:
    manifest = job(backoffLimit=2)
    manifest["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    await cluster("POST", JOBS, manifest)
    (pod,) = await running(cluster)
    for restarts in (1, 2):
        assert await conditions(cluster) == {}
        counts = {"status": {"containerStatuses": [{"name": "main", "restartCount": restarts}]}}
        await cluster("PATCH", f"{PODS}/{pod['metadata']['name']}/status", counts)
        await cluster.settle()
    await cluster.kubelet()
    assert (await conditions(cluster))["Failed"] == "BackoffLimitExceeded"
    assert await cluster.events("BackoffLimitExceeded") == ["Job has reached the specified backoff limit"]
    assert await cluster.pods() == []


async def test_a_pod_that_is_deleted_has_failed_and_is_replaced_though_it_is_still_ending(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job())
    (pod,) = await running(cluster)
    await cluster("DELETE", f"{PODS}/{pod['metadata']['name']}")
    await cluster.settle()
    found = await status(cluster)
    assert [found.get(field) for field in ("active", "terminating", "failed")] == [None, 1, 1]
    await cluster.settle(11)
    found = await status(cluster)
    assert [found.get(field) for field in ("active", "terminating", "failed")] == [1, 1, 1]
    await cluster.kubelet()
    assert (await status(cluster))["failed"] == 1


async def test_with_the_policy_failed_it_is_replaced_when_it_has_ended(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(podReplacementPolicy="Failed"))
    (pod,) = await running(cluster)
    await cluster("DELETE", f"{PODS}/{pod['metadata']['name']}")
    await cluster.settle()
    found = await status(cluster)
    assert [found.get(field, 0) for field in ("active", "terminating", "failed")] == [0, 1, 0]
    await terminate(cluster, pod, 0)
    await cluster.kubelet()
    found = await status(cluster)
    assert [found.get(field, 0) for field in ("succeeded", "failed")] == [1, 0]


EXIT_42 = {"onExitCodes": {"operator": "In", "values": [42]}}


@pytest.mark.parametrize(
    ("rule", "code", "failed", "message"),
    [
        (
            {"action": "FailJob", **EXIT_42},
            42,
            1,
            "Container main for pod {} failed with exit code 42 matching FailJob rule at index 0",
        ),
        ({"action": "FailJob", **EXIT_42}, 1, 1, ""),
        ({"action": "Ignore", **EXIT_42}, 42, 0, ""),
        ({"action": "Count", **EXIT_42}, 42, 1, ""),
        ({"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [42]}}, 1, 0, ""),
        ({"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1], "containerName": "other"}}, 1, 1, ""),
        (
            {"action": "FailJob", "onPodConditions": [{"type": "Ready"}]},
            1,
            1,
            "Pod {} has condition Ready matching FailJob rule at index 0",
        ),
        ({"action": "FailJob", "onPodConditions": [{"type": "Ready", "status": "False"}]}, 1, 1, ""),
    ],
)
async def test_a_policy_says_what_a_failure_means(cluster: Cluster, rule: Object, code: int, failed: int, message: str) -> None:
    manifest = job(podFailurePolicy={"rules": [rule]})
    manifest["spec"]["template"]["spec"]["initContainers"] = [{"name": "other", "image": "podplane/echo"}]
    await cluster("POST", JOBS, manifest)
    (pod,) = await running(cluster)
    await terminate(cluster, pod, code)
    await cluster.kubelet()
    found = await status(cluster)
    assert found.get("failed", 0) == failed
    told = [c["message"] for c in found.get("conditions", ()) if (c["type"], c["reason"]) == ("Failed", "PodFailurePolicy")]
    assert told == ([message.format(f"default/{pod['metadata']['name']}")] if message else [])
    assert await cluster.events("PodFailurePolicy") == told


# Suspension, scale, deadline.


async def test_what_is_suspended_or_scaled_down_has_not_failed(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(parallelism=3, completions=3, backoffLimit=0))
    assert len(await running(cluster)) == 3
    await cluster("PATCH", WORK, {"spec": {"parallelism": 1}})
    assert len(await running(cluster)) == 1
    await cluster("PATCH", WORK, {"spec": {"suspend": True}})
    assert await running(cluster) == []
    found = await status(cluster)
    assert [found.get(field, 0) for field in ("active", "terminating", "failed")] == [0, 0, 0]
    assert "startTime" not in found
    assert await conditions(cluster) == {"Suspended": "JobSuspended"}
    await cluster("PATCH", WORK, {"spec": {"suspend": False}})
    assert len(await running(cluster)) == 1
    assert await conditions(cluster) == {}
    assert (await cluster.events("Suspended"), await cluster.events("Resumed")) == (["Job suspended"], ["Job resumed"])


async def test_time_in_suspension_does_not_count_towards_the_deadline(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(activeDeadlineSeconds=20))
    await running(cluster)
    await cluster("PATCH", WORK, {"spec": {"suspend": True}})
    await cluster.kubelet()
    await cluster.settle(60)
    await cluster("PATCH", WORK, {"spec": {"suspend": False}})
    await cluster.settle(10)
    assert len(await running(cluster)) == 1
    await cluster.settle(21)
    await cluster.kubelet()
    assert (await conditions(cluster))["Failed"] == "DeadlineExceeded"


async def test_one_success_ends_a_job_without_completions_when_the_others_end(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(parallelism=3))
    first, second, third = await running(cluster)
    for pod in (first, second):
        await terminate(cluster, pod, 0)
        assert "Complete" not in await conditions(cluster)
    assert len(await running(cluster)) == 1
    await terminate(cluster, third, 0)
    assert (await conditions(cluster))["Complete"] == "CompletionsReached"


async def test_a_member_of_an_indexed_job_knows_its_index(cluster: Cluster) -> None:
    await cluster("POST", JOBS, job(completions=2, parallelism=2, completionMode="Indexed"))
    for index, pod in enumerate(sorted(await running(cluster), key=lambda pod: pod["metadata"]["name"])):
        metadata, spec = pod["metadata"], pod["spec"]
        assert metadata["name"].startswith(f"work-{index}-")
        assert metadata["labels"][INDEX] == metadata["annotations"][INDEX] == str(index)
        assert spec["hostname"] == f"work-{index}"
        (variable,) = spec["containers"][0]["env"]
        assert variable["name"] == "JOB_COMPLETION_INDEX"
        assert variable["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.labels['{INDEX}']"


STEPS = st.tuples(st.sampled_from(["succeed", "succeed", "fail", "delete", "wait", "suspend", "resume"]), st.integers(0, 9))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.booleans(), st.lists(STEPS, max_size=15))
def test_a_job_does_its_work_once_and_never_too_much_at_a_time(
    completions: int, parallelism: int, indexed: bool, steps: list[tuple[str, int]]
) -> None:
    async def play() -> None:
        cluster = await Cluster().begin()
        mode = "Indexed" if indexed else "NonIndexed"
        spec = {"completions": completions, "parallelism": parallelism, "completionMode": mode, "backoffLimit": 100}
        await cluster("POST", JOBS, job(**spec))
        done: Counter[str] = Counter()
        for what, which in [*steps, ("resume", 0), *[("succeed", 0)] * completions]:
            pods = await running(cluster)
            assert len(pods) <= min(parallelism, completions - done["succeed"])
            if what in ("suspend", "resume"):
                await cluster("PATCH", WORK, {"spec": {"suspend": what == "suspend"}})
            elif what == "wait":
                await cluster.settle(600)
            elif pods and what == "delete":
                await cluster("DELETE", f"{PODS}/{pods[which % len(pods)]['metadata']['name']}")
                done["fail"] += 1
            elif pods:
                await terminate(cluster, pods[which % len(pods)], int(what == "fail"))
                done[what] += 1
            if done["succeed"] == completions:
                break
            await cluster.settle()
        while done["succeed"] < completions:
            await cluster.settle(600)
            await terminate(cluster, (await running(cluster))[0], 0)
            done["succeed"] += 1
        await cluster.kubelet()
        found = await status(cluster)
        assert (await conditions(cluster))["Complete"] == "CompletionsReached"
        assert (found["succeeded"], found.get("failed", 0), found.get("active", 0)) == (completions, done["fail"], 0)
        assert Indexes.named(found.get("completedIndexes", ""), 99).ranges == ([range(completions)] if indexed else [])
        for pod in await cluster.pods():
            assert "finalizers" not in pod["metadata"]

    asyncio.run(play())


async def test_a_job_that_is_over_takes_its_pods_with_it(cluster: Cluster) -> None:
    """The deletion says so: without a policy, a Job of batch/v1 leaves its pods."""
    await cluster("POST", JOBS, job(ttlSecondsAfterFinished=30))
    (pod,) = await running(cluster)
    await cluster.end(pod["metadata"]["name"], "Succeeded")
    await cluster.settle(20)
    assert await cluster.names(JOBS) == ["work"]
    await cluster.settle(20)
    assert (await cluster.names(JOBS), await cluster.pods()) == ([], [])

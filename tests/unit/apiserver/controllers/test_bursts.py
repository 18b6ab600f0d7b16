"""How much one decision does: a few pods, so that a turn of the loop is short, and the rest in the turns after; and what it looks at."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from podplane.apiserver.controllers import job as jobs
from podplane.apiserver.controllers import job_pods
from podplane.apiserver.controllers.decision import Action, Create, Delete, Patch, View
from podplane.apiserver.controllers.pods import BURST
from podplane.apiserver.controllers.stored import StoredView
from podplane.controllers.manager import Manager, Task
from podplane.controllers.objects import Key
from tests.unit.apiserver.controllers.cluster import APPS, Cluster, workload
from tests.unit.apiserver.controllers.test_jobs import WORK, running, status, terminate
from tests.unit.apiserver.controllers.test_workloads import JOBS, conditions, job
from tests.unit.apiserver.test_server import PODS, Object

MANY = 2 * BURST + 2
INDEXED = {"completions": MANY, "parallelism": MANY, "completionMode": "Indexed"}


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> Counter[type]:
    """So many pods were made, deleted or changed by one decision of an owner at the most, by the kind of action."""
    found: Counter[type] = Counter()
    done: Counter[type] = Counter()
    decide, carry_out = Manager._decide, Manager._carry_out

    async def deciding(manager: Manager, task: Task) -> None:
        done.clear()
        await decide(manager, task)
        for kind, number in done.items():
            found[kind] = max(found[kind], number)

    async def carrying(manager: Manager, task: Task, action: Action) -> None:
        if isinstance(action, Create | Delete | Patch) and (action.resource, task[0]) != ("pods", "default-scheduler"):
            done[type(action)] += action.resource == "pods"
        await carry_out(manager, task, action)

    monkeypatch.setattr(Manager, "_decide", deciding)
    monkeypatch.setattr(Manager, "_carry_out", carrying)
    return found


def selecting(manifest: Object) -> Object:
    """The job with the selector and the labels of another workload."""
    spec, labels = manifest["spec"], {"app": "web"}
    spec["template"]["metadata"] = {"labels": labels}
    return {**manifest, "spec": {**spec, "manualSelector": True, "selector": {"matchLabels": labels}}}


async def names(cluster: Cluster) -> list[str]:
    return [pod["metadata"]["name"] for pod in cluster.view.all("pods") if "deletionTimestamp" not in pod["metadata"]]


@pytest.mark.parametrize(
    ("path", "manifest"),
    [
        (f"{APPS}/replicasets", workload("web", MANY)),
        (f"{APPS}/statefulsets", workload("web", MANY, podManagementPolicy="Parallel", serviceName="web")),
        (f"{APPS}/daemonsets", {**workload("web"), "kind": "DaemonSet"}),
        (JOBS, job(parallelism=MANY)),
        (JOBS, job(**INDEXED)),
    ],
)
async def test_many_pods_are_made_a_few_a_decision(path: str, manifest: Object, most: Counter[type]) -> None:
    cluster = await Cluster(MANY).begin()
    if manifest.get("kind") == "DaemonSet":
        del manifest["spec"]["replicas"]
    await cluster("POST", path, manifest)
    await cluster.settle()
    assert len(await names(cluster)) == MANY
    assert most[Create] == BURST


@pytest.mark.parametrize(
    ("path", "manifest"),
    [
        (f"{APPS}/replicasets", workload("web", MANY)),
        (JOBS, selecting(job(completions=MANY, parallelism=MANY))),
    ],
)
async def test_pods_that_match_are_taken_a_few_a_decision(path: str, manifest: Object, most: Counter[type]) -> None:
    cluster = await Cluster(1).begin()
    for number in range(MANY):
        pod = {
            "metadata": {"name": f"p{number}", "labels": {"app": "web"}},
            "spec": workload("web")["spec"]["template"]["spec"],
        }
        await cluster("POST", PODS, pod)
    await cluster("POST", path, manifest)
    await cluster.settle()
    assert all(pod["metadata"]["ownerReferences"] for pod in cluster.view.all("pods"))
    assert (most[Patch], most[Create]) == (BURST, 0)


async def test_a_suspended_job_loses_its_pods_a_few_a_decision(most: Counter[type]) -> None:
    cluster = await Cluster().begin()
    await cluster("POST", JOBS, job(**INDEXED))
    assert len(await running(cluster)) == MANY
    await cluster("PATCH", WORK, {"spec": {"suspend": True}})
    await cluster.kubelet()
    assert await names(cluster) == []
    assert (most[Delete], (await status(cluster)).get("active")) == (BURST, None)


async def test_a_job_that_has_failed_loses_its_pods_a_few_a_decision(most: Counter[type]) -> None:
    cluster = await Cluster().begin()
    await cluster("POST", JOBS, job(**INDEXED, activeDeadlineSeconds=30))
    assert len(await running(cluster)) == MANY
    await cluster.settle(31)
    await cluster.kubelet()
    found = await status(cluster)
    assert (await conditions(cluster))["Failed"] == "DeadlineExceeded"
    assert (found["failed"], found.get("active"), await names(cluster)) == (MANY, None, [])
    assert most[Delete] == BURST


async def test_pods_that_have_ended_are_counted_a_few_a_decision(most: Counter[type]) -> None:
    cluster = await Cluster().begin()
    await cluster("POST", JOBS, job(completions=MANY, parallelism=MANY))
    for pod in await running(cluster):
        await cluster("PATCH", f"{PODS}/{pod['metadata']['name']}/status", {"status": {"phase": "Succeeded"}})
    await cluster.settle()
    assert (await conditions(cluster))["Complete"] == "CompletionsReached"
    assert (await status(cluster))["succeeded"] == MANY
    assert most[Patch] == BURST


async def test_a_failure_that_is_counted_later_makes_the_next_pod_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BURST", 1)
    cluster = await Cluster().begin()
    await cluster("POST", JOBS, job(completions=3, parallelism=3, backoffLimit=9))
    for pod in await running(cluster):
        body = {"phase": "Failed", "containerStatuses": await ended(cluster)}
        await cluster("PATCH", f"{PODS}/{pod['metadata']['name']}/status", {"status": body})
    await cluster.settle()
    assert (await status(cluster))["failed"] == 3
    await cluster.settle(38)
    assert await running(cluster) == []
    await cluster.settle(3)
    assert len(await running(cluster)) == 3


async def ended(cluster: Cluster) -> list[Object]:
    at = cluster.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    return [{"name": "main", "state": {"terminated": {"exitCode": 1, "finishedAt": at}}}]


# What is looked at.


async def test_a_job_looks_at_its_pods_once_where_nothing_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await Cluster().begin()
    await cluster("POST", JOBS, job(**INDEXED))
    await running(cluster)
    spec = workload("web")["spec"]["template"]["spec"]
    for number in range(MANY):
        other = {"metadata": {"name": f"other{number}", "labels": {"app": "x"}}, "spec": spec}
        await cluster("POST", PODS, other)
    await cluster.settle()
    looked: list[Key] = []
    these = StoredView._these

    def counted(view: StoredView, resource: str, keys: Any) -> list[Object]:
        looked.extend(keys)
        return these(view, resource, keys)

    def never(*_: object) -> None:
        raise AssertionError("nothing is removed")

    monkeypatch.setattr(StoredView, "_these", counted)
    monkeypatch.setattr(job_pods, "worth", never)
    assert list(decision(cluster.view)) == []
    assert len(looked) == len(set(looked)) == MANY


def decision(view: View) -> list[Action]:
    """What a controller that starts anew decides about the job."""
    return list(jobs.JobController().decide(view, ("default", "work")))


async def test_where_a_pod_runs_does_not_concern_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does any condition of a pod that lives but Ready; all of them may, once it ends (podFailurePolicy)."""
    cluster = await Cluster().begin()
    await cluster("POST", JOBS, job())
    (pod,) = await running(cluster)
    path = f"{PODS}/{pod['metadata']['name']}"
    concerned: list[Task] = []
    decide = Manager._decide

    async def deciding(manager: Manager, task: Task) -> None:
        concerned.append(task)
        await decide(manager, task)

    monkeypatch.setattr(Manager, "_decide", deciding)
    told = [*pod["status"]["conditions"], {"type": "A", "status": "True"}]
    await cluster("PATCH", f"{path}/status", {"status": {"hostIP": "10.0.0.1", "conditions": told}})
    await cluster.settle()
    assert ("job-controller", ("default", "work")) not in concerned
    await terminate(cluster, pod, 0)
    assert ("job-controller", ("default", "work")) in concerned

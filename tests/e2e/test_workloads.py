"""StatefulSets with claims, pods with sidecars and indexed Jobs, from their manifests to what kubectl shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, until
from tests.e2e.test_pods import get, make, pods_of, shell

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("pods")]


@pytest.fixture(autouse=True)
def swept(kubectl: Kubectl) -> Iterator[None]:
    """Nothing is left in the lab but its own pods."""
    yield
    kubectl("delete", "statefulsets,jobs,services", "-l", "test", "--cascade=background", "--wait=false")
    kubectl("delete", "pods", "-l", "test", "--now")


def row(kubectl: Kubectl, name: str) -> list[str]:
    """READY and STATUS of a pod."""
    return kubectl("get", "pod", name, "--no-headers").split()[1:3]


def test_the_members_of_a_stateful_set_write_to_their_claims(kubectl: Kubectl) -> None:
    """As the manifests of databases have it; the volumes end with their pods, and an event says so."""
    mounts = [{"name": name, "mountPath": f"/var/{name}"} for name in ("data", "wal")]
    storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claims = [{"metadata": {"name": name}, "spec": storage} for name in ("data", "wal")]
    main = shell("echo x > /var/data/file; sleep 1000", volumeMounts=mounts)
    make(kubectl, "StatefulSet", "store", {**pods_of("store", main), "replicas": 2, "volumeClaimTemplates": claims})
    kubectl("rollout", "status", "statefulset/store", "--timeout=30s")
    until(lambda: kubectl("exec", "store-1", "--", "ls", "/var/data", "/var/wal") == "/var/data:\nfile\n\n/var/wal:\n")
    assert "volumeClaimTemplates become emptyDir" in kubectl("events", "--for=statefulset/store")


def test_a_pod_whose_main_container_has_ended_serves_nobody_while_its_sidecar_ends(kubectl: Kubectl) -> None:
    deaf = "trap '' TERM; while :; do sleep 0.1; done"
    inits = [shell("true", "setup"), shell(deaf, "proxy", restartPolicy="Always")]
    main = shell("sleep 2", ports=[{"containerPort": 80}])
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 9, "initContainers": inits, "containers": [main]}
    make(kubectl, "Service", "brief", {"selector": {"app": "brief"}, "ports": [{"port": 80}]})
    make(kubectl, "Pod", "brief", spec)
    kubectl("wait", "--for=condition=Ready", "pod/brief", "--timeout=20s")
    until(lambda: row(kubectl, "brief") == ["1/2", "Completed"])
    pod = get(kubectl, "pod", "brief")["status"]
    (endpoints,) = get(kubectl, "endpointslices", "-l", "kubernetes.io/service-name=brief")["items"]
    assert (pod["phase"], endpoints["endpoints"][0]["conditions"]["ready"]) == ("Running", False)
    until(lambda: row(kubectl, "brief") == ["0/2", "Completed"])
    status = get(kubectl, "pod", "brief")["status"]
    setup, proxy = status["initContainerStatuses"]
    assert (status["phase"], setup["ready"], proxy["state"]["terminated"]["exitCode"]) == ("Succeeded", True, 137)
    reasons = {c["type"]: (c["status"], c.get("reason")) for c in status["conditions"]}
    assert reasons["Initialized"] == ("True", "PodCompleted")
    assert reasons["Ready"] == reasons["ContainersReady"] == ("False", "PodCompleted")
    assert reasons["PodReadyToStartContainers"] == ("False", None)


def indexed(kubectl: Kubectl, name: str, script: str, **spec: Any) -> None:
    template = pods_of(name, shell(script), restartPolicy="Never")["template"]
    make(kubectl, "Job", name, {"completionMode": "Indexed", "completions": 3, "parallelism": 3, "template": template, **spec})


def test_an_index_that_fails_is_given_up_alone(kubectl: Kubectl) -> None:
    indexed(kubectl, "some", "echo $JOB_COMPLETION_INDEX $(hostname); test $JOB_COMPLETION_INDEX != 1", backoffLimitPerIndex=0)
    kubectl("wait", "--for=condition=Failed", "job/some", "--timeout=20s")
    status = get(kubectl, "job", "some")["status"]
    assert (status["completedIndexes"], status["failedIndexes"], status["failed"]) == ("0,2", "1", 1)
    assert sorted(kubectl("logs", "-l", "app=some").splitlines()) == ["0 some-0", "1 some-1", "2 some-2"]
    assert "Job has failed indexes" in kubectl("events", "--for=job/some")


def test_failures_wait_though_another_index_has_succeeded(kubectl: Kubectl) -> None:
    """The success may forgive the two failures before it; those after it wait 20 s."""
    indexed(kubectl, "mixed", "test $JOB_COMPLETION_INDEX = 0")
    until(lambda: get(kubectl, "job", "mixed")["status"].get("succeeded") == 1)
    until(lambda: get(kubectl, "job", "mixed")["status"].get("failed", 0) >= 2)
    time.sleep(2)
    assert get(kubectl, "job", "mixed")["status"]["failed"] <= 4
    assert len(get(kubectl, "pods", "-l", "app=mixed")["items"]) <= 5


def test_one_index_is_enough_when_the_policy_says_so(kubectl: Kubectl) -> None:
    policy = {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}
    indexed(kubectl, "leader", "test $JOB_COMPLETION_INDEX = 0 || sleep 1000", successPolicy=policy)
    kubectl("wait", "--for=condition=Complete", "job/leader", "--timeout=20s")
    status = get(kubectl, "job", "leader")["status"]
    assert ([c["reason"] for c in status["conditions"]], status.get("failed")) == (["SuccessPolicy", "SuccessPolicy"], None)
    assert kubectl("get", "job", "leader", "--no-headers").split()[1:3] == ["Complete", "1/3"]

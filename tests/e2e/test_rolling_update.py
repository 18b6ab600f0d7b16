"""A Deployment changes under load, and nobody who asks it notices: 200 requests a second to whoever is ready, all answered."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl
from tests.e2e.test_services import LOAD as BY_ADDRESS

pytestmark = pytest.mark.e2e

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "rolling-update.yaml")
LOAD = Path(__file__).with_name("load.py").read_text()
RATE = 200
ENOUGH = 50
"""Requests a second that even a very busy machine sends: the sender catches up with what it is late."""
CLIENT = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: client}
rules: [{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: client}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: client}
subjects: [{kind: ServiceAccount, name: default, namespace: default}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: main, image: podplane/client}]}
"""
CLOSED = """
apiVersion: v1
kind: Pod
metadata: {name: closed, labels: {app: web}}
spec:
  containers: [{name: main, image: podplane/client, ports: [{name: http, containerPort: 8080}]}]
"""


class Load:
    """Requests at a steady rate from a pod of the lab, and what became of them when they have ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.result: dict[str, Any] = {}

    def end(self) -> None:
        """Send no more, and see what became of all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.wait()

    def wait(self) -> None:
        """See what became of all when all are sent."""
        if not self.result:
            assert self._process.stdout is not None
            self.result = json.loads(self._process.stdout.read())

    @property
    def failures(self) -> dict[str, int]:
        """How often a request failed, by the reason."""
        found: dict[str, int] = self.result["failures"]
        return found

    @property
    def answers(self) -> dict[str, int]:
        """How often an answer came."""
        found: dict[str, int] = self.result["answers"]
        return found

    @property
    def rate(self) -> float:
        """Requests sent in a second."""
        return float(self.result["sent"] / self.result["seconds"])


@contextlib.contextmanager
def under_load(kubectl: Kubectl, *count: str) -> Iterator[Load]:
    """While requests go to the Service `web`: until the end of the block, or so many."""
    address = kubectl(
        *("get", "endpointslices", "-l", "kubernetes.io/service-name=kubernetes"),
        *("-o", "jsonpath={.items[0].endpoints[0].addresses[0]}:{.items[0].ports[0].port}"),
    )
    words = ["exec", "-i", "client", "--", "python3", "-c", LOAD, address, "default", "web", str(RATE), *count]
    with subprocess.Popen(
        [kubectl.path, *words], env=kubectl.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begins\n"
            load = Load(process)
            yield load
            load.end()
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def web(kubectl: Kubectl) -> Iterator[None]:
    """The example, and a pod that asks."""
    kubectl("create", "-f", EXAMPLE)  # of what was applied, an undo warns
    kubectl("apply", "-f", "-", stdin=CLIENT)
    kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=30s")
    rolled_out(kubectl)
    yield
    kubectl("delete", "-f", EXAMPLE)
    kubectl("delete", "-f", "-", "--now", stdin=CLIENT)
    kubectl("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=30s")


def rolled_out(kubectl: Kubectl) -> None:
    """Wait until all replicas are of the newest template, and the last pod of an older one is gone."""
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    hashes = set(
        kubectl(
            "get", "replicasets", "-l", "app=web", "-o", "jsonpath={.items[?(@.spec.replicas==0)]..pod-template-hash}"
        ).split()
    )
    for old in hashes:
        kubectl("wait", "--for=delete", "pod", "-l", f"pod-template-hash={old}", "--timeout=30s")


def pods(kubectl: Kubectl) -> set[str]:
    """The names of the pods."""
    return set(kubectl("get", "pods", "-l", "app=web", "-o", "name").split())


def test_a_change_a_restart_and_an_undo_lose_no_request(kubectl: Kubectl) -> None:
    """None at all: an old pod leaves the EndpointSlices the moment it is deleted, and its preStop hook keeps the server up for
    three seconds more, a thousand times what a watch and an answer take. Without the hook, it would hang on who hears of the end first."""
    first = pods(kubectl)
    with under_load(kubectl) as load:
        kubectl("set", "env", "deployment/web", "SERVE_PORT_8080=version 2")
        rolled_out(kubectl)
        second = pods(kubectl)
        kubectl("rollout", "restart", "deployment/web")
        rolled_out(kubectl)
        third = pods(kubectl)
        kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
        rolled_out(kubectl)
        fourth = pods(kubectl)
    assert [len(names) for names in (first, second, third, fourth)] == [4] * 4
    assert len(first | second | third | fourth) == 16, "every change replaces every pod"
    assert load.failures == {}
    assert load.answers.keys() == {"version 1", "version 2"}
    assert sum(load.answers.values()) == load.result["sent"] >= ENOUGH * load.result["seconds"]
    assert load.rate <= RATE + 1


def test_an_image_that_is_not_there_stops_the_rollout_and_costs_nothing(kubectl: Kubectl) -> None:
    before = pods(kubectl)
    with under_load(kubectl) as load:
        kubectl("set", "image", "deployment/web", "web=example.org/no-such-image:1")
        kubectl("wait", "--for=jsonpath={.status.updatedReplicas}=1", "deployment/web", "--timeout=30s")
        words = kubectl("rollout", "status", "deployment/web", "--timeout=2s", code=1)
        kubectl("rollout", "undo", "deployment/web")
        rolled_out(kubectl)
    assert "timed out waiting for the condition" in words
    assert pods(kubectl) == before, "not one of the pods that serve was touched"
    assert (load.failures, load.answers.keys()) == ({}, {"version 1"})
    assert load.rate >= ENOUGH


def test_requests_that_fail_are_counted(kubectl: Kubectl) -> None:
    """A fifth pod is ready, because nothing asks it, and refuses: a fifth of the requests fails."""
    kubectl("apply", "-f", "-", stdin=CLOSED)
    kubectl("wait", "--for=condition=Ready", "pod/closed", "--timeout=30s")
    with under_load(kubectl, "400") as load:
        load.wait()
    kubectl("delete", "pod", "closed", "--now")
    assert load.result["sent"] == 400
    assert all("Connect call failed" in reason for reason in load.failures)
    assert sum(load.failures.values()) + sum(load.answers.values()) == load.result["sent"]
    assert 0.05 < sum(load.failures.values()) / load.result["sent"] < 0.4


def test_through_the_service_no_request_is_lost_either(kubectl: Kubectl) -> None:
    """By its cluster IP: the nodes' tables follow the endpoints, and connections that stand go on to the pod that ends."""
    ip = kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    load = kubectl.start("exec", "-i", "client", "--", "python3", "-c", BY_ADDRESS, f"http://{ip}/")
    assert load.stdout is not None
    assert load.stdout.readline() == "begun\n"
    kubectl("set", "env", "deployment/web", "SERVE_PORT_8080=version 2")
    rolled_out(kubectl)
    kubectl("rollout", "undo", "deployment/web")
    rolled_out(kubectl)
    out, _ = load.communicate(timeout=60)
    found = json.loads(out)
    assert found.pop("ok") >= 200 and found.pop("seconds")
    assert found == {}

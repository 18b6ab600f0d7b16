"""Pods that are no good: each says what is wrong where users look, hurts nobody else, and is gone when it is deleted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("bad-pods")]


@pytest.fixture(autouse=True)
def swept(request: pytest.FixtureRequest) -> Iterator[None]:
    """The module's lab is left with its own pods only, and they all run as before."""
    yield
    if "kubectl" in request.fixturenames:
        kubectl: Kubectl = request.getfixturevalue("kubectl")
        kubectl("delete", "pods", "-l", "bad", "--now", "--wait=false")
        others = ("get", "pods", "-l", "!bad", "--no-headers")
        assert {line.split()[2] for line in kubectl(*others).splitlines()} == {"Running"}


def make(kubectl: Kubectl, name: str, *command: str, spec: dict[str, Any] | None = None, **container: Any) -> None:
    """A pod of one container."""
    main = {"name": "main", "image": "host/any", "command": list(command), **container}
    whole = {"terminationGracePeriodSeconds": 1, "containers": [main], **(spec or {})}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"bad": name}}, "spec": whole}
    kubectl("create", "-f", "-", stdin=json.dumps(body))


def status(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """A pod's status."""
    found: dict[str, Any] = json.loads(kubectl("get", "pod", name, "-o", "json"))["status"]
    return found


def container(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """What is said of a pod's container; nothing yet when it has no status."""
    found: dict[str, Any] = next(iter(status(kubectl, name).get("containerStatuses", ())), {})
    return found


def shown(kubectl: Kubectl, name: str) -> str:
    """What `kubectl get pods` has under STATUS."""
    return kubectl("get", "pod", name, "--no-headers").split()[2]


def events(kubectl: Kubectl, name: str) -> str:
    """A pod's events, as `reason: message` lines."""
    columns = "custom-columns=A:.reason,B:.message"
    return kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "-o", columns)


def running(word: str) -> int:
    """How many processes of this machine have this word in their command."""
    found = 0
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += word in process.read_text(errors="replace").split("\0")
        except OSError:
            continue
    return found


def test_a_command_that_does_not_exist(kubectl: Kubectl) -> None:
    make(kubectl, "typo", "nosuch", "--really")
    until(lambda: shown(kubectl, "typo") == "CrashLoopBackOff")
    last = container(kubectl, "typo")["lastState"]["terminated"]
    assert (last["reason"], last["exitCode"]) == ("StartError", 128)
    assert last["message"] == "nosuch: no such command on this machine"
    said = events(kubectl, "typo")
    assert "Error: nosuch: no such command on this machine" in said
    assert "Back-off restarting failed container main in pod default/typo" in said


def test_an_image_that_is_not_here(kubectl: Kubectl) -> None:
    make(kubectl, "image", image="example.org/web:1", command=[])
    until(lambda: shown(kubectl, "image") == "ImagePullBackOff")
    said = events(kubectl, "image")
    assert "image 'example.org/web:1' is not here, a lab has no registry: use podplane/echo" in said
    assert 'Back-off pulling image "example.org/web:1"' in said
    kubectl("set", "image", "pod/image", "main=podplane/echo")
    kubectl("wait", "--for=condition=Ready", "pod/image", "--timeout=20s")
    assert container(kubectl, "image")["restartCount"] == 0


def test_a_process_that_ignores_sigterm_is_killed(kubectl: Kubectl) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 86399; done"
    make(kubectl, "deaf", "sh", "-c", script)
    until(lambda: container(kubectl, "deaf").get("ready") and "ready" in kubectl("logs", "deaf"))
    assert running("86399") == 1
    seen = kubectl.start("get", "pod", "deaf", "--no-headers", "--watch")
    assert seen.stdout is not None and "Running" in seen.stdout.readline()
    kubectl("delete", "pod", "deaf")
    assert any("Terminating" in line for line in seen.stdout)
    seen.kill()
    seen.communicate()
    until(lambda: running("86399") == 0)


def test_a_pod_can_be_forced_away(kubectl: Kubectl) -> None:
    make(
        kubectl,
        "deafer",
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 86398; done",
        spec={"terminationGracePeriodSeconds": 600},
    )
    until(lambda: running("86398") == 1)
    kubectl("delete", "pod", "deafer", "--wait=false")
    assert "force deleted" in kubectl("delete", "pod", "deafer", "--force", "--grace-period=0", code=None)
    until(lambda: running("86398") == 0)


def test_a_bomb_of_processes(kubectl: Kubectl) -> None:
    """The rest of the lab goes on, and all of them end with their pod."""
    make(kubectl, "bomb", "sh", "-c", "for i in $(seq 500); do sleep 86397 & done; wait")
    until(lambda: running("86397") == 500)
    assert kubectl("exec", "echo-node1-1", "--", "echo", "here") == "here\n"
    make(kubectl, "beside", "true", spec={"restartPolicy": "Never"})
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/beside", "--timeout=20s")
    kubectl("delete", "pod", "bomb", "--now")
    until(lambda: running("86397") == 0)


def test_a_flood_of_output(lab: Podplane, kubectl: Kubectl) -> None:
    """What is kept of it is bounded and its end is there; the logs of others go on."""
    make(kubectl, "flood", "sh", "-c", "yes 'much ado about nothing' | head -c 60000000; echo; echo the-end; exec sleep 1000")
    make(kubectl, "calm", "sh", "-c", "while :; do echo calm; sleep 0.1; done")
    until(lambda: kubectl("logs", "flood", "--tail=1", code=None) == "the-end\n", 40)
    files = [file.stat().st_size for file in lab.folder.logs.rglob("*") if file.is_file()]
    assert sum(files) < 25_000_000
    before = kubectl("logs", "calm").count("calm")
    until(lambda: kubectl("logs", "calm").count("calm") > before)


def test_a_crash_loop_keeps_the_logs_of_two_runs_only(lab: Podplane, kubectl: Kubectl) -> None:
    script = "echo one run; n=$(cat /data/n 2>/dev/null); echo x$n > /data/n; [ ${#n} -ge 2 ] && exec sleep 1000; exit 1"
    spec = {"volumes": [{"name": "data", "emptyDir": {}}]}
    make(kubectl, "loop", "sh", "-c", script, spec=spec, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    until(lambda: shown(kubectl, "loop") == "CrashLoopBackOff")
    kubectl("wait", "--for=condition=Ready", "pod/loop", "--timeout=30s")
    assert container(kubectl, "loop")["restartCount"] == 2
    assert sorted(file.name for file in lab.folder.logs.glob("default_loop_*/main/*")) == ["1.log", "2.log"]


def test_probes_that_hang(kubectl: Kubectl) -> None:
    hangs = {"exec": {"command": ["sleep", "86396"]}, "timeoutSeconds": 1, "periodSeconds": 1}
    make(kubectl, "hangs", "sleep", "1000", readinessProbe=hangs)
    until(lambda: 'Readiness probe failed: command "sleep 86396" timed out after 1s' in events(kubectl, "hangs"))
    assert kubectl("get", "pod", "hangs", "--no-headers").split()[1:3] == ["0/1", "Running"]
    kubectl("delete", "pod", "hangs", "--now")
    until(lambda: running("86396") == 0)


def test_a_probe_of_liveness_that_fails_restarts_the_container(kubectl: Kubectl) -> None:
    fails = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1}
    make(kubectl, "dies", "sleep", "1000", livenessProbe=fails)
    until(lambda: container(kubectl, "dies").get("restartCount", 0) >= 1)
    said = events(kubectl, "dies")
    assert "Liveness probe failed" in said
    assert "Container main failed liveness probe, will be restarted" in said


def test_a_pod_that_fits_no_node_says_why_node_by_node(kubectl: Kubectl) -> None:
    make(kubectl, "large", "sleep", "1", resources={"requests": {"cpu": "100000"}})
    make(kubectl, "choosy", "sleep", "1", spec={"nodeSelector": {"disk": "golden"}})
    until(lambda: "FailedScheduling" in events(kubectl, "large") and "FailedScheduling" in events(kubectl, "choosy"))
    assert "0/3 nodes are available: 3 Insufficient cpu" in events(kubectl, "large")
    assert "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector" in events(kubectl, "choosy")
    assert shown(kubectl, "large") == "Pending"
    kubectl("label", "node", "node2", "disk=golden")
    until(lambda: status(kubectl, "choosy").get("hostIP") == "192.168.1.11")
    kubectl("label", "node", "node2", "disk-")
    kubectl("delete", "pods", "large", "choosy", "--now")


def test_two_pods_that_want_one_port_of_a_node(kubectl: Kubectl) -> None:
    where = {"nodeSelector": {"kubernetes.io/hostname": "node1"}}
    ports = [{"containerPort": 80, "hostPort": 8099}]
    make(kubectl, "first", "sleep", "1000", spec=where, ports=ports)
    kubectl("wait", "--for=condition=Ready", "pod/first", "--timeout=20s")
    make(kubectl, "second", "sleep", "1000", spec=where, ports=ports)
    until(lambda: "didn't have free ports for the requested pod ports" in events(kubectl, "second"))
    assert shown(kubectl, "second") == "Pending"
    kubectl("delete", "pod", "first", "--now")
    kubectl("wait", "--for=condition=Ready", "pod/second", "--timeout=20s")


def test_a_finalizer_that_never_goes(kubectl: Kubectl) -> None:
    make(kubectl, "held", "sleep", "86395")
    kubectl("wait", "--for=condition=Ready", "pod/held", "--timeout=20s")
    kubectl("patch", "pod", "held", "-p", '{"metadata": {"finalizers": ["example.org/never"]}}')
    kubectl("delete", "pod", "held", "--wait=false")
    until(lambda: running("86395") == 0)
    kubectl("delete", "pod", "held", "--force", "--grace-period=0", "--wait=false", code=None)
    assert json.loads(kubectl("get", "pod", "held", "-o", "json"))["metadata"]["finalizers"] == ["example.org/never"]
    assert "0/1" in kubectl("get", "pod", "held")
    kubectl("patch", "pod", "held", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    kubectl("wait", "--for=delete", "pod/held", "--timeout=20s")


def test_volumes_that_are_not_there_yet(kubectl: Kubectl) -> None:
    volume = {"name": "settings", "configMap": {"name": "late"}}
    mounts = [{"name": "settings", "mountPath": "/settings"}]
    make(kubectl, "early", "sleep", "1000", spec={"volumes": [volume]}, volumeMounts=mounts)
    until(lambda: "FailedMount" in events(kubectl, "early"))
    assert 'MountVolume.SetUp failed: configmap "late" not found' in events(kubectl, "early")
    assert shown(kubectl, "early") == "ContainerCreating"
    kubectl("create", "configmap", "late", "--from-literal=a=1")
    kubectl("wait", "--for=condition=Ready", "pod/early", "--timeout=20s")
    assert kubectl("exec", "early", "--", "cat", "/settings/a") == "1"
    kubectl("delete", "configmap", "late")


WORK = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: host/sleep, command: [sleep, "86394"]}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: main, image: podplane/echo}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: done}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: main, image: host/sh, command: [sh, -c, echo it is done]}]}
"""


def places(kubectl: Kubectl) -> dict[str, tuple[str, str, str]]:
    """Uid, node and address of all pods by name."""
    pods = json.loads(kubectl("get", "pods", "-o", "json"))["items"]
    return {pod["metadata"]["name"]: (pod["metadata"]["uid"], pod["spec"]["nodeName"], pod["status"]["podIP"]) for pod in pods}


def test_a_lab_whose_process_is_killed_goes_on_where_it_was(podplane: Podplane, tmp_path: Path) -> None:
    podplane("up", "--nodes", "2")
    kubectl = Kubectl(podplane, tmp_path)
    kubectl("apply", "-f", "-", stdin=WORK)
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    kubectl("rollout", "status", "statefulset/db", "--timeout=30s")
    kubectl("wait", "--for=condition=Complete", "job/done", "--timeout=30s")
    make(kubectl, "once", "sleep", "86393", spec={"restartPolicy": "Never"})
    kubectl("wait", "--for=condition=Ready", "pod/once", "--timeout=20s")
    before, holder = places(kubectl), podplane.folder.holder()
    assert holder is not None
    os.kill(holder, signal.SIGKILL)
    until(lambda: running("86394") == 0)  # the kernel ends them with the lab's PID namespace
    podplane("up")
    for name, replicas in (("deployment/web", 3), ("statefulset/db", 2)):
        kubectl("wait", f"--for=jsonpath={{.status.readyReplicas}}={replicas}", name, "--timeout=20s")
    until(lambda: running("86394") == 3)
    until(lambda: status(kubectl, "once")["phase"] == "Failed")
    assert places(kubectl) == before
    assert container(kubectl, "once")["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert running("86393") == 0
    assert json.loads(kubectl("get", "job", "done", "-o", "json"))["status"]["succeeded"] == 1
    assert kubectl("logs", "job/done") == "it is done\n"
    podplane("down", "--purge")
    until(lambda: running("86394") == 0)

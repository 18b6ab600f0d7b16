"""How pods live, as a user of kubectl sees it: from inside the pod, and through the controllers that own them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("pods")]
READY = "--for=condition=Ready"


@pytest.fixture(autouse=True)
def swept(kubectl: Kubectl) -> Iterator[None]:
    """Nothing is left in the lab but its own pods."""
    yield
    kinds = "deployments,statefulsets,daemonsets,jobs,services,configmaps,secrets"
    kubectl("delete", kinds, "-l", "test", "--wait=false")
    kubectl("delete", "pods", "-l", "test", "--now")


def make(kubectl: Kubectl, kind: str, name: str, spec: dict[str, Any] | None = None, **more: Any) -> None:
    """An object with the label by which it is swept."""
    group = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1"}.get(kind, "v1")
    metadata = {"name": name, "labels": {"test": "yes", "app": name}}
    body = {"apiVersion": group, "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {}), **more}
    kubectl("create", "-f", "-", stdin=json.dumps(body))


def shell(script: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """A container that runs a script."""
    return {"name": name, "image": "host/sh", "command": ["sh", "-c", script], **more}


def pods_of(name: str, *containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Selector and template of a controller."""
    labels = {"test": "yes", "app": name}
    spec = {"terminationGracePeriodSeconds": 1, "containers": list(containers), **more}
    return {"selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": labels}, "spec": spec}}


def get(kubectl: Kubectl, *words: str) -> dict[str, Any]:
    """Objects as they are."""
    found: dict[str, Any] = json.loads(kubectl("get", *words, "-o", "json"))
    return found


def events(kubectl: Kubectl, name: str) -> str:
    """An object's events, as `reason message` lines."""
    columns = "custom-columns=A:.reason,B:.message"
    return kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "-o", columns)


# One pod.


def test_what_a_container_finds_around_it(kubectl: Kubectl) -> None:
    make(kubectl, "ConfigMap", "settings", data={"colour": "blue", "file.txt": "from the map"})
    make(kubectl, "Secret", "key", stringData={"word": "sesame"})
    env = [
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "word"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "BOTH", "value": "$(COLOUR)-$(WORD)"},
    ]
    mounts = [{"name": "settings", "mountPath": "/settings"}, {"name": "empty", "mountPath": "/data"}]
    volumes = [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "empty", "emptyDir": {}}]
    first = shell("echo prepared > /data/first", "first", volumeMounts=mounts)
    side = shell("echo beside > /data/side; exec sleep 1000", "side", restartPolicy="Always", volumeMounts=mounts)
    main = shell("cat /data/first /data/side > /data/seen; exec sleep 1000", env=env, volumeMounts=mounts)
    spec = {"initContainers": [first, side], "containers": [main], "volumes": volumes, "nodeName": "node2"}
    make(kubectl, "Pod", "finds", spec)
    kubectl("wait", READY, "pod/finds", "--timeout=20s")
    assert kubectl("get", "pod", "finds", "--no-headers").split()[1:3] == ["2/2", "Running"]
    ip = get(kubectl, "pod", "finds")["status"]["podIP"]
    said = kubectl("exec", "finds", "-c", "main", "--", "sh", "-c", "echo $COLOUR $WORD $NODE $IP $BOTH $HOSTNAME; hostname")
    assert said.split() == ["blue", "sesame", "node2", ip, "blue-sesame", "finds", "finds"]
    until(lambda: "beside" in kubectl("exec", "finds", "-c", "side", "--", "cat", "/data/side"))
    assert "prepared" in kubectl("exec", "finds", "-c", "main", "--", "cat", "/data/first")
    assert kubectl("exec", "finds", "-c", "main", "--", "cat", "/settings/file.txt") == "from the map"
    assert ip in kubectl("exec", "finds", "-c", "main", "--", "cat", "/etc/hosts")


ASKS = """
import json, ssl, urllib.request
place = "/var/run/secrets/kubernetes.io/serviceaccount/"
token, namespace = open(place + "token").read(), open(place + "namespace").read()
url = f"https://192.168.1.1:6443/api/v1/namespaces/{namespace}/pods/asks"
ask = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
answer = urllib.request.urlopen(ask, context=ssl.create_default_context(cafile=place + "ca.crt"), timeout=10)
print(json.load(answer)["spec"]["serviceAccountName"])
"""


def test_the_token_in_a_pod_opens_the_api(kubectl: Kubectl) -> None:
    make(kubectl, "Pod", "asks", {"containers": [shell("exec sleep 1000")]})
    kubectl("wait", READY, "pod/asks", "--timeout=20s")
    assert kubectl("exec", "asks", "--", "python3", "-c", ASKS) == "default\n"
    assert "KUBERNETES_SERVICE_HOST=10.96.0.1" in kubectl("exec", "asks", "--", "env")


def test_a_pod_in_the_network_of_its_node(kubectl: Kubectl) -> None:
    make(kubectl, "Pod", "onhost", {"hostNetwork": True, "nodeName": "node3", "containers": [shell("exec sleep 1000")]})
    kubectl("wait", READY, "pod/onhost", "--timeout=20s")
    assert get(kubectl, "pod", "onhost")["status"]["podIP"] == "192.168.1.12"
    said = kubectl("exec", "onhost", "--", "sh", "-c", "hostname; ip -br address")
    assert said.startswith("node3\n")
    assert "192.168.1.12/" in said


def test_hooks_run_after_the_start_and_before_the_end(kubectl: Kubectl) -> None:
    """What the last one does is seen from a follower of the log."""
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /proc/1/fd/1"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1"]}},
    }
    spec = {
        "terminationGracePeriodSeconds": 5,
        "containers": [shell("trap 'echo term; exit 0' TERM; while :; do sleep 0.05; done", lifecycle=hooks)],
    }
    make(kubectl, "Pod", "hooked", spec)
    kubectl("wait", READY, "pod/hooked", "--timeout=20s")
    until(lambda: "started" in kubectl("logs", "hooked"))
    with kubectl.start("logs", "-f", "hooked") as follower:
        assert follower.stdout
        assert follower.stdout.readline() == "started\n"
        kubectl("delete", "pod", "hooked")
        assert follower.communicate(timeout=20)[0] == "stopping\nterm\n"


def test_readiness_decides_who_is_an_endpoint(kubectl: Kubectl) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    gates = [{"conditionType": "example.org/open"}]
    make(kubectl, "Pod", "gated", {"containers": [shell("exec sleep 1000", readinessProbe=probe)], "readinessGates": gates})
    make(kubectl, "Service", "gated", {"selector": {"app": "gated"}, "ports": [{"port": 80}]})

    def endpoints() -> str:
        return kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=gated", "-o", READY_ONES)

    kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/gated", "--timeout=20s")
    until(lambda: endpoints() == "false")
    kubectl("exec", "gated", "--", "touch", "/tmp/ready")
    kubectl("wait", "--for=condition=ContainersReady", "pod/gated", "--timeout=20s")
    assert re.search(r" 0/1$", kubectl("get", "pod", "gated", "-o", "wide").splitlines()[1].rstrip())
    opened = [{"type": "example.org/open", "status": "True"}]
    kubectl("patch", "pod", "gated", "--subresource=status", "-p", json.dumps({"status": {"conditions": opened}}))
    kubectl("wait", READY, "pod/gated", "--timeout=20s")
    until(lambda: endpoints() == "true")
    kubectl("exec", "gated", "--", "rm", "/tmp/ready")
    until(lambda: endpoints() == "false")


READY_ONES = "jsonpath={.items[*].endpoints[*].conditions.ready}"


def test_a_container_whose_process_dies_is_started_again(kubectl: Kubectl) -> None:
    make(kubectl, "Pod", "mortal", {"containers": [shell("until [ -e /tmp/die ]; do sleep 0.05; done; exit 9")]})
    kubectl("wait", READY, "pod/mortal", "--timeout=20s")
    before = get(kubectl, "pod", "mortal")["status"]
    kubectl("exec", "mortal", "--", "touch", "/tmp/die")
    until(lambda: kubectl("get", "pod", "mortal", "--no-headers").split()[1:4] == ["1/1", "Running", "1"])
    after = get(kubectl, "pod", "mortal")["status"]
    assert after["podIPs"] == before["podIPs"]
    assert after["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 9


# Controllers.


def test_a_deployment_rolls_out_is_undone_and_has_a_history(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=podplane/echo:1", "--replicas=2")
    kubectl("label", "deployment", "web", "test=yes")
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    kubectl("set", "image", "deployment/web", "echo=podplane/echo:2")
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    assert get(kubectl, "deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"] == "podplane/echo:1"
    history = [line.split()[0] for line in kubectl("rollout", "history", "deployment/web").splitlines()[2:] if line]
    assert history == ["2", "3"]
    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    kubectl("scale", "deployment", "web", "--replicas=4")
    kubectl("wait", "--for=jsonpath={.status.readyReplicas}=4", "deployment/web", "--timeout=30s")
    kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080", "--labels=test=yes")
    slices = ("get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", READY_ONES)
    until(lambda: kubectl(*slices).split() == ["true"] * 4)


def test_a_rolling_update_keeps_enough_pods(kubectl: Kubectl) -> None:
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 1, "periodSeconds": 1}
    strategy = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec = {"replicas": 3, "strategy": strategy, **pods_of("steady", shell("exec sleep 1000", readinessProbe=probe))}
    make(kubectl, "Deployment", "steady", spec)
    kubectl("rollout", "status", "deployment/steady", "--timeout=30s")
    over, seen = threading.Event(), []

    def watch() -> None:
        while not over.is_set():
            status = get(kubectl, "deployment", "steady")["status"]
            seen.append((status.get("availableReplicas", 0), status["replicas"]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    kubectl("set", "env", "deployment/steady", "NEW=1")
    kubectl("rollout", "status", "deployment/steady", "--timeout=40s")
    over.set()
    watcher.join()
    assert min(available for available, _ in seen) >= 3
    assert {replicas for _, replicas in seen} == {3, 4}


def test_the_pods_of_a_stateful_set_keep_their_names_and_order(kubectl: Kubectl) -> None:
    make(kubectl, "Service", "db", {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 80}]})
    make(kubectl, "StatefulSet", "db", {"replicas": 3, "serviceName": "db", **pods_of("db", shell("exec sleep 1000"))})
    kubectl("rollout", "status", "statefulset/db", "--timeout=30s")
    pods = {pod["metadata"]["name"]: pod for pod in get(kubectl, "pods", "-l", "app=db")["items"]}
    assert sorted(pods) == ["db-0", "db-1", "db-2"]
    assert kubectl("exec", "db-1", "--", "hostname").strip() == "db-1"
    kubectl("delete", "pod", "db-1")
    until(lambda: other(kubectl, "db-1", pods["db-1"]["metadata"]["uid"]))
    kubectl("wait", READY, "pod/db-1", "--timeout=20s")
    assert get(kubectl, "pod", "db-0")["metadata"]["uid"] == pods["db-0"]["metadata"]["uid"]
    kubectl("scale", "statefulset", "db", "--replicas=1")
    until(lambda: kubectl("get", "pods", "-l", "app=db", "-o", "name").split() == ["pod/db-0"])


def other(kubectl: Kubectl, name: str, uid: str) -> bool:
    """Is there a pod of this name that isn't that one?"""
    found = kubectl("get", "pod", name, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")
    return bool(found) and found != uid


def test_a_daemon_set_keeps_off_a_tainted_node_unless_it_tolerates_that(kubectl: Kubectl) -> None:
    kubectl("taint", "node", "node2", "dedicated=gpu:NoSchedule")
    try:
        make(kubectl, "DaemonSet", "shy", pods_of("shy", shell("exec sleep 1000")))
        tolerant = {"tolerations": [{"key": "dedicated", "operator": "Exists"}]}
        make(kubectl, "DaemonSet", "bold", pods_of("bold", shell("exec sleep 1000"), **tolerant))
        for name, nodes in (("shy", ["node1", "node3"]), ("bold", ["node1", "node2", "node3"])):
            kubectl("rollout", "status", f"daemonset/{name}", "--timeout=30s")
            where = kubectl("get", "pods", "-l", f"app={name}", "-o", "jsonpath={.items[*].spec.nodeName}")
            assert sorted(where.split()) == nodes
    finally:
        kubectl("taint", "node", "node2", "dedicated-")
    kubectl("wait", "--for=jsonpath={.status.numberReady}=3", "daemonset/shy", "--timeout=20s")


def test_a_job_that_fails_too_often_gives_up(kubectl: Kubectl) -> None:
    template = {"metadata": {"labels": {"test": "yes"}}, "spec": {"restartPolicy": "Never", "containers": [shell("exit 3")]}}
    make(kubectl, "Job", "fails", {"backoffLimit": 0, "template": template})
    kubectl("wait", "--for=condition=Failed", "job/fails", "--timeout=30s")
    status = get(kubectl, "job", "fails")["status"]
    assert (status["failed"], status["conditions"][-1]["reason"]) == (1, "BackoffLimitExceeded")
    assert "BackoffLimitExceeded" in events(kubectl, "fails")
    template["spec"]["containers"] = [shell("echo ok")]
    make(kubectl, "Job", "works", {"completions": 3, "parallelism": 2, "template": template})
    kubectl("wait", "--for=condition=Complete", "job/works", "--timeout=30s")
    assert get(kubectl, "job", "works")["status"]["succeeded"] == 3


# Nodes.


def test_a_node_is_drained_and_taken_back(kubectl: Kubectl) -> None:
    kubectl("cordon", "node3")
    try:
        assert "SchedulingDisabled" in kubectl("get", "node", "node3")
        make(kubectl, "Deployment", "moves", {"replicas": 3, **pods_of("moves", shell("exec sleep 1000"))})
        make(kubectl, "DaemonSet", "stays", pods_of("stays", shell("exec sleep 1000")))
        kubectl("rollout", "status", "deployment/moves", "--timeout=30s")
        kubectl("rollout", "status", "daemonset/stays", "--timeout=30s")
        kubectl("uncordon", "node3")
        refused = kubectl("drain", "node1", "--pod-selector=test", "--timeout=30s", code=1)
        assert "cannot delete DaemonSet-managed Pods" in refused
        drained = kubectl("drain", "node1", "--pod-selector=test", "--ignore-daemonsets", "--timeout=30s", code=None)
        assert "node/node1 drained" in drained
        where = "jsonpath={.items[*].spec.nodeName}"
        until(lambda: len(kubectl("get", "pods", "-l", "app=moves", "-o", where).split()) == 3)
        assert "node1" not in kubectl("get", "pods", "-l", "app=moves", "-o", where)
        assert "node1" in kubectl("get", "pods", "-l", "app=stays", "-o", where)
    finally:
        kubectl("uncordon", "node1", "node3")


def test_a_watch_of_all_pods_shows_a_life(kubectl: Kubectl) -> None:
    with kubectl.start("get", "pods", "-A", "-o", "wide", "--watch", "--request-timeout=30s") as watch:
        try:
            assert watch.stdout and watch.stdout.readline()  # it has listed: what comes now is watched
            make(kubectl, "Pod", "lives", {"terminationGracePeriodSeconds": 1, "containers": [shell("exec sleep 1000")]})
            kubectl("wait", READY, "pod/lives", "--timeout=20s")
            kubectl("delete", "pod", "lives", "--wait=false")
            states: list[str] = []
            while "Terminating" not in states:
                words = watch.stdout.readline().split()
                states += [words[3]] if words[1] == "lives" else []
        finally:
            watch.kill()
    assert states[0] == "Pending"
    assert "Running" in states

"""Pods of workloads: how long until many are ready, one is restarted, one is gone; and what does a lab cost that nobody uses?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.common import Lab, Row, lab, quiet
from bench.judging import MIXED, PYTHON
from bench.watching import Watch
from podplane.lab.folder import Folder

KUBECTL = str(Path(sys.executable).with_name("kubectl"))
SMALL, LARGE = (100, 10, 3.0), (1000, 100, 20.0)
"""(pods, nodes, seconds that it may take)."""
RESTARTED, GONE, IDLE = 100.0, 50.0, 2.0
"""Milliseconds, milliseconds beyond the grace, percent of a core."""
GRACE = 1
IDLE_SECONDS, SETTLE_SECONDS = 20.0, 3.0
MARK = 31536000
"""What the bench's processes sleep, and one more each: so they are found."""
PODS, SLICES = "/api/v1/namespaces/default/pods", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
TICKS = os.sysconf("SC_CLK_TCK")

Object = dict[str, Any]


def run(short: bool) -> list[Row]:
    """Deployments on labs of their own, then the life of single pods on the lab that idles afterwards."""
    rounds = 2 if short else 5
    if short:
        return [ready(20, 4, None, 1), *single(4, 10, rounds, 3.0)]
    return [ready(*SMALL, rounds), ready(*LARGE, 3), *single(10, 10, 15, IDLE_SECONDS)]


def ready(pods: int, nodes: int, must: float | None, rounds: int) -> Row:
    """From the start of `kubectl create deployment` until its status says that all pods are ready."""
    samples = []
    for _ in range(rounds):
        with lab() as one:
            quiet()
            one("up", "--nodes", str(nodes))
            watch = Watch(Folder(one.name).access(), "/apis/apps/v1/namespaces/default/deployments")
            began = time.monotonic()
            kubectl(one, "create", "deployment", "web", "--image=podplane/echo", f"--replicas={pods}")
            done = watch.until(lambda _, found: found.get("status", {}).get("readyReplicas") == pods, seconds=120)
            samples.append(done - began)
    return Row(
        f"`kubectl create deployment --replicas={pods}` on {nodes} nodes until all are Ready", samples, must=must, work=MIXED
    )


def kubectl(one: Lab, *words: str) -> None:
    """Run kubectl on the lab."""
    environment = {**os.environ, "KUBECONFIG": one("kubeconfig").strip()}
    subprocess.run([KUBECTL, *words], env=environment, check=True, capture_output=True, timeout=60)


def single(nodes: int, per_node: int, rounds: int, seconds: float) -> list[Row]:
    """One pod that is restarted, one that is deleted, and then nothing, on a lab with others."""
    with lab() as one:
        quiet()
        one("up", "--nodes", str(nodes), "--pods-per-node", str(per_node))
        service = {"metadata": {"name": "one"}, "spec": {"selector": {"app": "one"}, "ports": [{"port": 80}]}}
        one.api.create("services", "default", service)
        access = Folder(one.name).access()
        pods, slices = Watch(access, PODS), Watch(access, SLICES)
        restarts = [restarted(one, pods, slices, number) for number in range(rounds)]
        gone = [deleted(one, pods, slices, rounds + number) for number in range(rounds)]
        time.sleep(SETTLE_SECONDS)
        busy = idle(one, seconds)
    on = f"{nodes} nodes, {nodes * per_node} pods"
    return [
        Row("a process dies → container restarted, endpoints updated", restarts, "ms", RESTARTED, note=on, work=MIXED),
        Row(
            "a pod is deleted → process, address, endpoints and object gone, beyond its grace",
            gone,
            "ms",
            GONE,
            note=on,
            work=MIXED,
        ),
        Row(f"CPU of an idle lab: {on}", busy, "% of a core", IDLE, work=PYTHON),
    ]


def sleeper(one: Lab, pods: Watch, slices: Watch, number: int) -> tuple[str, int]:
    """A new pod behind the Service whose process ignores SIGTERM: (its name, the process)."""
    name, argument = f"one-{number}", str(MARK + number)
    container = {"name": "main", "image": "host/sleep", "command": ["sleep", argument]}
    spec = {"terminationGracePeriodSeconds": GRACE, "containers": [container]}
    one.api.create("pods", "default", {"metadata": {"name": name, "labels": {"app": "one"}}, "spec": spec})
    pods.until(lambda _, pod: is_ready(pod, name))
    slices.until(lambda _, found: is_about(found, name, "ready"))
    time.sleep(0.2)
    return name, process_of(argument)


def process_of(argument: str) -> int:
    """The process `sleep <argument>`."""
    wanted = f"sleep\0{argument}\0".encode()
    return next(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes() == wanted)


def is_ready(pod: Object, name: str, restarts: int = 0) -> bool:
    """Is it this pod, ready, after so many restarts?"""
    statuses = pod["status"].get("containerStatuses", [{}])
    return bool(pod["metadata"]["name"] == name and statuses[0].get("ready", False) and statuses[0]["restartCount"] == restarts)


def is_about(found: Object, name: str, *conditions: str) -> bool:
    """Does a slice of the Service have the pod as an endpoint for which all these conditions hold?"""
    endpoints = found.get("endpoints") or () if found["metadata"]["labels"]["kubernetes.io/service-name"] == "one" else ()
    return any(e["targetRef"]["name"] == name and all(e["conditions"].get(c) for c in conditions) for e in endpoints)


def restarted(one: Lab, pods: Watch, slices: Watch, number: int) -> float:
    """Milliseconds from SIGKILL of the process until the pod is ready again, and its endpoint with it."""
    name, pid = sleeper(one, pods, slices, number)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    done = pods.until(lambda _, pod: is_ready(pod, name, 1), began)
    time.sleep(0.3)
    if slices.last(began) > began:
        done = max(done, slices.until(lambda _, found: is_about(found, name, "ready"), began))
    one.api.delete("pods", "default", name, grace=0)
    return (done - began) * 1000


def deleted(one: Lab, pods: Watch, slices: Watch, number: int) -> float:
    """Milliseconds from DELETE until everything of the pod is gone, beyond its grace: the process must be killed."""
    name, pid = sleeper(one, pods, slices, number)
    began = time.monotonic()
    one.api.delete("pods", "default", name)
    gone = pods.until(lambda kind, pod: kind == "DELETED" and pod["metadata"]["name"] == name, began)
    slices.until(lambda _, found: is_about(found, name, "terminating"), began)
    withdrawn = slices.until(lambda kind, found: kind == "DELETED" or not is_about(found, name), began + GRACE)
    if Path(f"/proc/{pid}").exists():
        raise RuntimeError(f"process {pid} of {name} outlives its pod")
    return (max(gone, withdrawn) - began - GRACE) * 1000


def idle(one: Lab, seconds: float) -> list[float]:
    """Percent of a core that the lab and all its processes use, in three pieces of time."""
    samples = []
    for _ in range(3):
        before, began = cpu_seconds(one), time.monotonic()
        time.sleep(seconds / 3)
        samples.append(100 * (cpu_seconds(one) - before) / (time.monotonic() - began))
    return samples


def cpu_seconds(one: Lab) -> float:
    """Of the lab's process and all its descendants."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(path.parent.name)], used[int(path.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    holder = Folder(one.name).holder()
    return sum(ticks for pid, ticks in used.items() if _descends(pid, holder, parents)) / TICKS


def _descends(pid: int, ancestor: int | None, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor

"""Pods of a lab: in the network of their node they may change that alone; what a security context takes away is gone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.kernel import syscalls
from podplane.kernel.cgroups import TCP
from tests.e2e.conftest import Podplane, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """A lab of two nodes."""
    with running(tmp_path_factory, "--nodes", "2") as started:
        yield started


def test_the_nodes_network_is_theirs_and_the_labs_namespaces_are_not(lab: Podplane) -> None:
    script = "ip link add br9 type bridge && ip link del br9 && echo changed; readlink /proc/self/ns/user"
    seen = {node: lab.on_node(node, script).split() for node in ("node1", "node2")}
    assert [words[0] for words in seen.values()] == ["changed"] * 2
    holder = lab.folder.holder()
    assert holder is not None
    assert len({os.readlink(f"/proc/{holder}/ns/user"), *(words[1] for words in seen.values())}) == 3


def test_they_can_not_write_what_is_the_machines(lab: Podplane) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    tries = "for f in /proc/sys/kernel/core_pattern /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger; do"
    assert (
        lab.on_node("node1", f"exec 2>/dev/null; {tries} (: >$f) && echo $f; done; umount /proc/sys && echo umount; true") == ""
    )
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_descriptors_of_a_device_do_not_change_it(lab: Podplane) -> None:
    tries = "for f in /dev/null /proc/self/fd/0 /proc/1/fd/0; do readlink -f $f; chmod 666 $f && echo changed; done; true"
    assert lab.on_node("node1", f"exec 2>/dev/null; {tries}").split() == ["/dev/null"] * 3


def test_the_network_of_a_node_has_no_abstract_sockets_of_the_lab(lab: Podplane) -> None:
    assert lab.on_node("node1", "sed 1d /proc/net/unix") == ""


DEBUGGER = "node-debugger-node1-abcde"
CAPABILITIES = "sed -n 's/^CapBnd:.//p'"
USUAL = "00000000a80425fb"
"""What containerd gives."""
PORTS_AND_PINGS = """python3 -c '
import socket
socket.create_server(("", 80)); print("bound")
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); print("may ping")'"""
CALLS = f"""python3 -c '
import ctypes, threading
print("filter", [line.split()[1] for line in open("/proc/1/status") if line.startswith("Seccomp:")][0])
libc = ctypes.CDLL(None)
if libc.unshare(0x10000000) == 0: print("user")
if libc.syscall({syscalls.SYS_KEYCTL[os.uname().machine]}, 0, -3, 0) > 0: print("keys")
threading.Thread(target=print, args=("thread",)).start()'"""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def test_a_security_context_is_applied_or_it_is_told(lab: Podplane) -> None:
    containers = [
        {"name": "main", "image": "podplane/echo", "securityContext": RESTRICTED},
        {"name": "free", "image": "podplane/client", "securityContext": {}},
        {"name": "wild", "image": "podplane/client", "securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    ]
    spec = {"containers": containers}
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "safe"}, "spec": spec})
    for _ in lab.api.poll(
        "pods", "default", lambda pods: any(p["status"].get("phase") == "Running" and _is(p) for p in pods), 10
    ):
        pass
    status = lab("exec", "safe", "--", "cat", "/proc/1/status", "/proc/self/status").stdout.split("\n")
    assert [line.split()[1] for line in status if line.startswith("CapBnd")] == ["0" * 16] * 2
    assert lab("exec", "safe", "--", "sh", "-c", PORTS_AND_PINGS).stdout.split("\n")[:2] == ["bound", "may ping"]
    assert lab("exec", "safe", "-c", "free", "--", "sh", "-c", f"{CAPABILITIES} /proc/self/status").stdout.strip() == USUAL
    assert [line.split()[1] for line in status if line.startswith("NoNewPrivs")] == ["1"] * 2
    assert lab("exec", "safe", "--", "touch", "/etc/x", code=None).returncode != 0
    lab("exec", "safe", "-c", "free", "--", "touch", "/etc/x")
    assert not [e for e in lab.api.objects("events", "default") if e["reason"] == "SecurityContextNotApplied"]
    assert lab("exec", "safe", "-c", "free", "--", "sh", "-c", CALLS).stdout.split() == ["filter", "2", "thread"]
    assert lab("exec", "safe", "-c", "wild", "--", "sh", "-c", CALLS).stdout.split() == [
        "filter",
        "0",
        "user",
        "keys",
        "thread",
    ]


def _is(pod: dict[str, Any]) -> bool:
    return bool(pod["metadata"]["name"] == "safe")


def test_a_debugger_of_a_node_has_its_own_namespaces_and_is_told_so(lab: Podplane) -> None:
    """`kubectl debug node/…` asks for all that a node has, wanted or not."""
    here = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc")}
    spec = {
        "hostPID": True,
        "hostIPC": True,
        "containers": [{"name": "main", "image": "host/sleep", "command": ["sleep", "1000"]}],
    }
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": DEBUGGER}, "spec": spec})
    for _ in lab.api.poll("pods", "default", lambda pods: any(_runs(pod, DEBUGGER) for pod in pods), 10):
        pass
    for kind, link in here.items():
        assert lab("exec", DEBUGGER, "--", "readlink", f"/proc/self/ns/{kind}").stdout.strip() != link
    told = [e["message"] for e in lab.api.objects("events", "default") if e["reason"] == "NotApplied"]
    assert {"hostPID", "hostIPC"} <= {line.split(" is ")[0] for line in told}


def test_a_pod_that_wants_the_processes_of_others_does_not_start(lab: Podplane) -> None:
    spec = {"hostPID": True, "containers": [{"name": "main", "image": "host/sleep", "command": ["sleep", "1000"]}]}
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "outside"}, "spec": spec})
    for _ in lab.api.poll("pods", "default", lambda pods: any(_why_waits(pod, "outside") for pod in pods), 10):
        pass
    (why,) = {why for pod in lab.api.objects("pods", "default") if (why := _why_waits(pod, "outside"))}
    assert why == "hostPID: pods of this lab do not see the processes of others; `podplane up --allow-host-pid` shows them"


def _why_waits(pod: dict[str, Any], name: str) -> str:
    statuses = pod["status"].get("containerStatuses", ()) if pod["metadata"]["name"] == name else ()
    return next((status["state"].get("waiting", {}).get("message", "") for status in statuses), "")


def test_containers_that_share_their_processes_see_these_alone(lab: Podplane) -> None:
    containers = [{"name": name, "image": "host/sleep", "command": ["sleep", "1000"]} for name in ("one", "other")]
    body = {"spec": {"shareProcessNamespace": True, "containers": containers}, "metadata": {"name": "sharing"}}
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", **body})
    for _ in lab.api.poll("pods", "default", lambda pods: any(_runs(pod, "sharing") for pod in pods), 10):
        pass
    look = "tr '\\0' ' ' </proc/1/cmdline; cat /proc/[0-9]*/comm; ls /proc/1/root 2>&1; head -c 1 /proc/1/environ 2>/dev/null"
    said = lab("exec", "sharing", "-c", "one", "--", "sh", "-c", f"{look}; true").stdout.split()
    assert said[0] == "/pause" and said.count("sleep") == 2
    is_another = os.getuid() == 0  # only root has ids to give away: else all are one user
    assert (said[-2:] == ["Permission", "denied"]) is is_another, (
        "pause is another user, or has capabilities that a container lacks"
    )


def _runs(pod: dict[str, Any], name: str) -> bool:
    return bool(pod["metadata"]["name"] == name and pod["status"].get("phase") == "Running")


def test_a_long_termination_message_is_not_read_to_its_end(lab: Podplane) -> None:
    script = "echo last words >/dev/termination-log; truncate -s 100G /dev/termination-log"
    spec = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "host/sh", "command": ["sh", "-c", script]}]}
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "long"}, "spec": spec})
    for _ in lab.api.poll("pods", "default", lambda pods: any(_ended_with(pod).startswith("last words") for pod in pods), 10):
        pass
    (message,) = filter(None, map(_ended_with, lab.api.objects("pods", "default")))
    assert len(message) == 4096


def _ended_with(pod: dict[str, Any]) -> str:
    states = [status.get("state", {}) for status in pod["status"].get("containerStatuses", ())]
    return "".join(state.get("terminated", {}).get("message", "") for state in states)


def test_volumes_are_bounded_and_their_parts_are_in_them(lab: Podplane) -> None:
    links = "ln -s ../../../../../../../etc /share/up; ln -s /etc /share/there; mkdir /share/own; ln -s own /share/in"
    share, small = {"name": "share", "mountPath": "/share"}, {"name": "small", "mountPath": "/small"}
    parts = {name: {"name": "share", "mountPath": "/part", "subPath": name} for name in ("in", "up", "there", "up/made", "new")}

    def container(name: str, script: str, *mounts: dict[str, str]) -> dict[str, Any]:
        return {"name": name, "image": "host/sh", "command": ["sh", "-c", script], "volumeMounts": list(mounts)}

    fills = "exec 2>/dev/null; head -c 9000000 /dev/zero >/small/file; stat -c %s /small/file >/share/size; exec sleep 1000"
    spec = {
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "share", "emptyDir": {}}, {"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}],
        "initContainers": [container("links", links, share)],
        "containers": [
            container("main", fills, share, small),
            *(container(f"part{n}", "touch /part/x; exec sleep 1000", mount) for n, mount in enumerate(parts.values())),
        ],
    }
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "parts"}, "spec": spec})
    states: dict[str, dict[str, Any]] = {}
    for _ in lab.api.poll("pods", "default", lambda pods: _have_begun(pods, states), 10):
        pass
    refused = {name: state["waiting"]["message"] for name, state in states.items() if "waiting" in state}
    assert refused == {
        f"part{n}": f"subPath {name!r}: it leads out of its volume"
        for n, name in enumerate(parts)
        if name in ("up", "there", "up/made")
    }
    seen = lab(
        "exec", "parts", "-c", "main", "--", "sh", "-c", "ls /share/in /share/new; while ! cat /share/size; do sleep 0.01; done"
    )
    assert seen.stdout.split() == ["/share/in:", "x", "/share/new:", "x", str(1 << 20)]


def _have_begun(pods: list[dict[str, Any]], states: dict[str, dict[str, Any]]) -> bool:
    """Has each container of this pod been started, or refused? Then `states` says so."""
    (pod,) = (pod for pod in pods if pod["metadata"]["name"] == "parts")
    states.update({one["name"]: one["state"] for one in pod["status"].get("containerStatuses", ())})
    decided = [one for one in states.values() if "running" in one or one["waiting"]["reason"] == "CreateContainerConfigError"]
    return len(decided) == len(states) > 1


def test_memory_and_processors_are_limited(lab: Podplane) -> None:
    """Where the lab may use control groups, as root's may; a limit that the pod finds in its own group is none."""
    containers = [
        {
            "name": "hog",
            "image": "host/python3",
            "command": ["python3", "-c", HOG],
            "resources": {"limits": {"memory": "32Mi"}},
        },
        {"name": "busy", "image": "host/sh", "command": ["sh", "-c", BUSY], "resources": {"limits": {"cpu": "50m"}}},
    ]
    little = {"limits": {"memory": "64Ki", "ephemeral-storage": "1"}}
    containers.append({"name": "little", "image": "podplane/client", "resources": little})
    containers.append({"name": "asks", "image": "podplane/client", "resources": {"requests": {"cpu": "500m"}}})
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": containers}
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "greedy"}, "spec": spec})
    for _ in lab.api.poll("pods", "default", lambda pods: len(_ended(pods, "greedy")) == 2, 15):
        pass
    ended = _ended(lab.api.objects("pods", "default"), "greedy")
    told = [e["message"] for e in lab.api.objects("events", "default") if "its limits of" in e["message"]]
    if told:
        pytest.skip("this lab may not use control groups")
    assert (ended["hog"]["reason"], ended["hog"]["exitCode"]) == ("OOMKilled", 137)
    used, passed = map(float, ended["busy"]["message"].split())
    assert used < passed / 2, "it has a twentieth of a processor, in coarse periods"
    (pod,) = (pod for pod in lab.api.objects("pods", "default") if pod["metadata"]["name"] == "greedy")
    assert _shares(lab, f"{pod['metadata']['uid']}-asks-0") in ({"512"}, {"20"})
    assert _shares(lab, "rest") in ({"2"}, {"1"})
    assert all(0 < limit < 1 << 60 for limit in _limits_of_tcp(lab)), "buffers of connections are bounded, too"
    (waits,) = (one["state"]["waiting"] for one in pod["status"]["containerStatuses"] if one["name"] == "little")
    assert waits["reason"] == "CreateContainerError"
    assert waits["message"] == "memory limit 64Ki is too low: no container starts with less than 1Mi"


def _limits_of_tcp(lab: Podplane) -> list[int]:
    """Of all pods, and of those without limits of memory; none in version 2, where they count as memory."""
    places = [Path(folder) for folder in json.loads(lab.folder.groups.read_text())]
    found = [path for place in places for path in (place / TCP, place / "rest" / TCP) if path.exists()]
    return [int(path.read_text()) for path in found]


def _shares(lab: Podplane, group: str) -> set[str]:
    """What a group of the lab's has for its share of the processors."""
    places = [Path(folder, group) for folder in json.loads(lab.folder.groups.read_text())]
    found = [path for place in places for name in ("cpu.shares", "cpu.weight") if (path := place / name).exists()]
    return {path.read_text().strip() for path in found}


HOG = """
import glob, os
os.mkdir("/tmp/g")
os.system("mount -t cgroup -o memory none /tmp/g || mount -t cgroup2 none /tmp/g")
for path in glob.glob("/tmp/g/memory.limit_in_bytes") + glob.glob("/tmp/g/memory.max"):
    try:
        open(path, "w").write("900000000")
    except OSError:
        pass
bytearray(100 << 20)"""
BUSY = """exec python3 -c '
from time import process_time, time
began, first = time(), process_time()
while process_time() < first + 0.04: pass
print(process_time() - first, time() - began)' >/dev/termination-log"""


def _ended(pods: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Containers of a pod that have ended, and how."""
    (pod,) = (pod for pod in pods if pod["metadata"]["name"] == name)
    states = {one["name"]: one["state"] for one in pod["status"].get("containerStatuses", ())}
    return {name: state["terminated"] for name, state in states.items() if "terminated" in state}

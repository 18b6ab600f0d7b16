"""A lab of a user who is not root: its pods get what they ask for, are contained as root's are, and reach nothing of that user's."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.kernel import releases
from tests.attack.test_mounts import TRIES
from tests.attack.test_pods_of_a_lab import CALLS, CAPABILITIES, PORTS_AND_PINGS, USUAL
from tests.e2e.conftest import Podplane, ordinary_users

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")]
POD = "tried"
SAID: list[str] = []
"""What `up` said."""
RIGHTS = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
}


def _pod() -> dict[str, Any]:
    """A pod with volumes, probes, hooks, an init container and two containers, one of which gives up its rights."""
    share = {"name": "share", "mountPath": "/share"}
    sub = {"name": "share", "mountPath": "/sub", "subPath": "below"}
    config = {"name": "config", "mountPath": "/config"}
    init = {"name": "init", "image": "host/sh", "command": ["sh", "-c", "mkdir /share/below; echo made >/share/below/file"]}
    main = {
        "name": "main",
        "image": "podplane/echo",
        "securityContext": RIGHTS,
        "volumeMounts": [config, sub],
        "readinessProbe": {"exec": {"command": ["cat", "/sub/hook"]}, "periodSeconds": 1},
        "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "cat /config/word >/sub/hook"]}}},
    }
    free = {
        "name": "free",
        "image": "podplane/client",
        "volumeMounts": [config, share],
        "securityContext": {"privileged": True},
        "resources": {"limits": {"memory": "64Mi", "cpu": "2"}},
    }
    usual = {"name": "usual", "image": "podplane/client"}
    spec = {
        "volumes": [{"name": "share", "emptyDir": {}}, {"name": "config", "configMap": {"name": "given"}}],
        "initContainers": [init | {"volumeMounts": [share]}],
        "containers": [main, free, usual],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}, "spec": spec}


@pytest.fixture(scope="module")
def lab() -> Iterator[Podplane]:
    """A lab of one node and the pod, which is ready."""
    with ordinary_users() as command:
        SAID.append(command("up", "--nodes", "1").stderr)
        given = {"word": "given\n", "try.py": TRIES}
        command.api.create("configmaps", "default", {"metadata": {"name": "given"}, "data": given})
        command.api.create("pods", "default", _pod())
        for _ in command.api.poll("pods", "default", lambda pods: any(_is_ready(pod) for pod in pods), 15):
            pass
        yield command


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    return pod["metadata"]["name"] == POD and conditions.get("Ready") == "True"


def _says(lab: Podplane, container: str, script: str) -> list[str]:
    return lab("exec", POD, "-c", container, "--", "sh", "-c", f"exec 2>/dev/null; {script}; true").stdout.splitlines()


def test_its_volumes_and_hooks_are_there(lab: Podplane) -> None:
    assert _says(lab, "main", "cat /sub/file /sub/hook") == ["made", "given"]
    assert _says(lab, "free", "cat /share/below/hook; echo mine >/share/other; cat /share/other") == ["given", "mine"]


def test_what_it_does_not_ask_for_is_what_containerd_gives(lab: Podplane) -> None:
    assert _says(lab, "usual", f"{CAPABILITIES} /proc/1/status /proc/self/status") == [USUAL] * 2
    assert _says(lab, "usual", CALLS) == ["filter 2", "thread"]


def test_a_pod_has_the_one_user_that_all_its_containers_ask_for(lab: Podplane) -> None:
    spec = {
        "securityContext": {"runAsUser": 1000, "runAsGroup": 3000, "runAsNonRoot": True},
        "volumes": [{"name": "share", "emptyDir": {}}],
        "containers": [
            {"name": name, "image": "podplane/client", "volumeMounts": [{"name": "share", "mountPath": "/share"}]}
            for name in ("first", "second")
        ],
    }
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec})
    for _ in lab.api.poll("pods", "default", lambda pods: all(p["status"].get("phase") == "Running" for p in pods), 15):
        pass
    script = "id -u; id -g; touch /share/own; stat -c %u:%g /share/own; sed -n 's/^CapEff:.//p' /proc/self/status"
    assert lab("exec", "one", "-c", "second", "--", "sh", "-c", script).stdout.split() == [
        "1000",
        "3000",
        "1000:3000",
        "0" * 16,
    ]


def test_it_pings_and_listens_on_low_ports_without_capabilities(lab: Podplane) -> None:
    assert _says(lab, "main", PORTS_AND_PINGS) == ["bound", "may ping"]


def test_what_it_gives_up_is_gone(lab: Podplane) -> None:
    status = _says(lab, "main", "cat /proc/1/status /proc/self/status")
    assert [line.split()[1] for line in status if line.startswith("CapBnd")] == [f"{1 << 10:016x}"] * 2
    assert [line.split()[1] for line in status if line.startswith("NoNewPrivs")] == ["1"] * 2
    assert _says(lab, "main", "touch /etc/x && echo written") == []
    assert _says(lab, "free", "touch /etc/x && echo written") == ["written"]


@pytest.mark.parametrize("how", ["", "nested"])
def test_no_mount_can_be_changed(lab: Podplane, how: str) -> None:
    read_only = "/config /proc/sys /sys"
    assert lab("exec", POD, "-c", "free", "--", "python3", "/config/try.py", read_only, *how.split()).stdout == "\n"


def test_the_labs_folder_and_its_namespaces_are_out_of_reach(lab: Podplane) -> None:
    assert _says(lab, "free", f"ls -A {lab.home}; cat {lab.folder.kubeconfig}") == []
    holder = lab.folder.holder()
    assert holder is not None
    kinds = ("user", "mnt", "net", "ipc", "uts", "pid")
    seen = _says(lab, "free", f"readlink {' '.join(f'/proc/self/ns/{kind}' for kind in kinds)}")
    assert len(seen) == len(kinds)
    assert not set(seen) & {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds for pid in (holder, "self")}


def test_its_files_belong_to_the_user_who_runs_it(lab: Podplane) -> None:
    assert _says(lab, "free", "touch /share/owned; stat -c %u:%g /share/owned; cat /proc/self/uid_map") == [
        "0:0",
        "         0          0          1",
    ]
    assert _says(lab, "free", "cat /etc/shadow") == []


def test_limits_that_can_not_be_had_are_told(lab: Podplane) -> None:
    told = [e["message"] for e in lab.api.objects("events", "default") if e["reason"] == "NotApplied"]
    note = next((line for line in SAID[-1].splitlines() if line.startswith("Limits of ")), "")
    if note:
        assert note.startswith("Limits of cpu and memory are not applied to containers: no control")
        assert [line.split(":")[:2] for line in told] == [["container free", " its limits of cpu and memory are not applied"]]
    else:
        assert told == []


def test_its_pods_are_killed_first_for_want_of_memory(lab: Podplane) -> None:
    here = int(Path("/proc/self/oom_score_adj").read_text())
    scores = [_says(lab, container, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj") for container in ("main", "free")]
    assert all(score > max(here, 900) for words in scores for score in map(int, words))


def test_its_pods_leave_a_quarter_of_the_users_processes_and_signals(lab: Podplane) -> None:
    for kind, letter in ((resource.RLIMIT_NPROC, "u"), (resource.RLIMIT_SIGPENDING, "i")):
        whole, share = resource.getrlimit(kind)[1], 1 if letter == "u" else 4
        if letter == "u" and not releases.limits_processes():
            continue  # of each user of a pod there are 4,096 then
        said = lab("exec", POD, "-c", "free", "--", "bash", "-c", f"ulimit -H{letter}").stdout.strip()
        assert said == ("unlimited" if whole == resource.RLIM_INFINITY else str(whole * 3 // 4 // share))

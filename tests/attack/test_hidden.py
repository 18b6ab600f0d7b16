"""A pod that reads what its user reads: homes, the lab's folder and what others keep on the machine are empty."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.kernel.rootfs import HIDDEN_FOLDERS, OWN, Root
from tests.e2e.conftest import Podplane, nothing_left, until
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained

SHARED: list[str] = []
"""The folder of the machine that the lab's pods may have."""
PLACE = "/var/tmp"
"""A folder that pods see."""


@pytest.mark.kernel
@contained
async def test_folders_that_are_hidden_are_empty(machine: Machine) -> None:
    lab_folder()
    with tempfile.TemporaryDirectory(dir=PLACE) as home:
        write(f"{home}/secret")
        script = f"cat {home}/secret 2>/dev/null; touch {home}/own && ls {home}"
        assert await machine.says(script, root=Root(FOLDER)) == "secret\nown\nsecret"
        assert await machine.says(script, root=Root(FOLDER, hidden=[home])) == "own"
        os.mkdir(f"{home}/below")
        assert await machine.says(f"find {home}", root=Root(FOLDER, hidden=[home, f"{home}/below"])) == home
        assert await machine.says(f"umount {home} 2>/dev/null || ls -A {home}", root=Root(FOLDER, hidden=[home])) == ""


@pytest.mark.kernel
@contained
async def test_homes_and_what_others_keep_are_empty_unless_homes_are_wanted(machine: Machine) -> None:
    lab_folder()
    inside = [path for path in OWN if path.startswith("/root/")]
    places = " ".join(HIDDEN_FOLDERS)
    assert await machine.says(f"find {places} -mindepth 1 2>/dev/null | head -3", root=Root(FOLDER)) == ""
    shown = await machine.says("ls -A /root", root=Root(FOLDER, homes=True))
    hidden = await machine.says("ls -A /root", root=Root(FOLDER))
    assert set(hidden.split()) <= {path.split("/")[2] for path in inside} <= set(shown.split())


def write(path: str) -> None:
    """Have a secret there."""
    Path(path).write_text("secret\n")


@pytest.fixture(scope="module")
def lab() -> Iterator[Podplane]:
    """A lab in a place that pods see."""
    with (
        tempfile.TemporaryDirectory(dir=PLACE) as home,
        tempfile.TemporaryDirectory(dir="/tmp") as shared,
        nothing_left(Path(home)) as command,
    ):
        Path(home).chmod(0o755)
        SHARED.append(shared)
        command("up", "--nodes", "1", "--pods-per-node", "1", "--allow-host-paths", shared, "--allow-host-pid")
        yield command


@pytest.mark.e2e
def test_the_labs_folder_is_empty_in_a_pod(lab: Podplane) -> None:
    (pod,) = (p["metadata"]["name"] for p in lab.api.objects("pods") if p["metadata"]["name"].startswith("echo"))
    folder = lab.folder
    assert folder.kubeconfig.exists()
    said = lab("exec", pod, "--", "find", str(folder.path.parent.parent)).stdout.split()
    assert said == [str(folder.path.parent.parent), str(folder.path.parent)]


@pytest.mark.e2e
def test_a_host_path_is_the_machines_if_it_was_allowed_and_refused_if_it_is_hidden(lab: Podplane) -> None:
    shared = Path(SHARED[-1])
    (shared / "file").write_text("from outside\n")
    (shared / "out").symlink_to("/etc")
    paths = {"made": f"{shared}/new/er", "out": f"{shared}/out", "log": "/var/log", "tmp": "/tmp", "etc": "/etc"}
    for name, path in paths.items():
        spec = {
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "v", "hostPath": {"path": path}}, {"name": "all", "hostPath": {"path": str(shared)}}],
            "containers": [
                {
                    "name": "main",
                    "image": "host/sh",
                    "command": ["sh", "-c", "cat /all/file >/v/copy; sleep 1000"],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "all", "mountPath": "/all", "readOnly": True}],
                }
            ],
        }
        lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    said: dict[str, str] = {}
    for _ in lab.api.poll("pods", "default", lambda pods: len(_said(pods, said)) >= len(paths), 10):
        pass
    hidden = f"pods do not see this folder of the machine (docs/security.md); `{lab.folder.command('up')} --allow-host-paths"
    assert {name: said[name] for name in paths} == {
        "made": "",
        "etc": "",
        "out": f"hostPath {shared}/out: it leads out of its volume",
        "log": f"hostPath /var/log: {hidden} /var/log` gives what is there",
        "tmp": f"hostPath /tmp: {hidden} /tmp` gives what is there",
    }
    lab(
        "exec",
        "made",
        "--",
        "sh",
        "-c",
        "while ! [ -s /v/copy ]; do sleep 0.01; done; touch /all/x 2>/dev/null && exit 1; true",
    )
    assert (shared / "new" / "er" / "copy").read_text() == "from outside\n"
    assert not Path("/etc/copy").exists()


@pytest.mark.e2e
def test_a_pod_gets_the_processes_of_the_lab_if_that_was_allowed(lab: Podplane) -> None:
    """Exactly those: the machine's others are not among them. They end with it, though it is not their process 1."""
    spec = {
        "hostPID": True,
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "host/sh", "command": ["sh", "-c", "setsid sleep 4321 & sleep 1000"]}],
    }
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sees"}, "spec": spec})
    said: dict[str, str] = {}
    for _ in lab.api.poll("pods", "default", lambda pods: "sees" in _said(pods, said), 10):
        pass
    assert said["sees"] == ""
    seen = [line.strip() for line in lab("exec", "sees", "--", "sh", "-c", COMMANDS).stdout.splitlines()]
    assert "podplane" in seen[0]
    assert {"sleep 4321", "sleep 1000"} < set(seen)
    assert any("echo" in line for line in seen), "another pod's"
    assert not any("pytest" in line for line in seen)
    assert [e for e in lab.api.objects("events", "default") if "hostPID" in e["message"]] == []
    lab("delete", "pod", "sees")
    until(lambda: not any(_has(place, b"sleep\0" + b"4321\0") for place in Path("/proc").glob("[0-9]*/cmdline")))


COMMANDS = "for p in $(ls /proc | grep '^[0-9]' | sort -n); do tr '\\0' ' ' 2>/dev/null </proc/$p/cmdline; echo; done"


def _has(place: Path, words: bytes) -> bool:
    try:
        return place.read_bytes() == words
    except OSError:  # it has ended
        return False


def _said(pods: list[dict[str, Any]], said: dict[str, str]) -> dict[str, str]:
    """Why pods wait, "" for those that run."""
    for pod in pods:
        for status in pod["status"].get("containerStatuses", ()):
            message = status["state"].get("waiting", {}).get("message", "")
            if message or "running" in status["state"]:
                said[pod["metadata"]["name"]] = message
    said.pop("echo-node1-1", None)
    return said

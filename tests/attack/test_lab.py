"""What is sent to a lab, and what is done to it: whatever it is, the lab goes on, and says what is wrong."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.kubeapi.errors import ApiError
from podplane.lab.folder import LOG
from tests.e2e.conftest import Podplane, running

pytestmark = pytest.mark.e2e
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


def on_a_disk_of(size: str, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which `p` is podplane, with its state on a disk that is no larger, and that nobody else sees."""
    begin = f'mount -t tmpfs -o size={size} tmpfs {folder}; export HOME={folder}; p() {{ "$0" -m podplane "$@"; }}\n'
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", begin + script, sys.executable],
        env={"PATH": os.environ["PATH"]},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_up_says_which_disk_is_full(tmp_path: Path) -> None:
    done = on_a_disk_of("16k", tmp_path, "p up --nodes 1")
    why = f"no space is left on the disk of {tmp_path}/.local/state/podplane/lab: free some there, then `podplane up`"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"podplane: {why}")


def test_a_lab_on_a_full_disk_goes_on_and_writes_again_when_there_is_space(tmp_path: Path) -> None:
    script = """
    trap 'p down --purge >/dev/null' EXIT
    p up --nodes 1 >/dev/null && p run first >/dev/null || exit 1
    head -c 9M /dev/zero 2>/dev/null >$HOME/full
    p run second 2>&1; p get pods; p exec first -- echo inside; p status
    rm $HOME/full
    p run third
    """
    said = on_a_disk_of("8m", tmp_path, script).stdout
    why = f"no space is left on the disk of {tmp_path}/.local/state/podplane/lab: free some there"
    refused, *rest = said.splitlines()
    assert refused == f"podplane: {why}"
    assert f"  writes  refused: {why}" in rest
    assert [line.split()[:3] for line in rest if line.startswith(("first", "inside", "third"))] == [
        ["first", "1/1", "Running"],
        ["inside"],
        ["third", "runs", "on"],
    ]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """A lab of one node."""
    with running(tmp_path_factory, "--nodes", "1") as started:
        yield started


def test_a_lab_whose_database_is_held_goes_on_and_writes_again_afterwards(lab: Podplane) -> None:
    database = sqlite3.connect(lab.folder.store, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    with pytest.raises(ApiError, match="another process holds") as refused:
        lab.api.create("configmaps", "default", CONFIG)
    assert (refused.value.code, refused.value.reason) == (503, "ServiceUnavailable")
    assert "writes  refused: another process holds" in lab("status").stdout
    assert [one["metadata"]["name"] for one in lab.api.objects("nodes")] == ["node1"]
    database.close()
    lab.api.create("configmaps", "default", CONFIG)
    assert "refused" not in lab("status").stdout


def the_pod(lab: Podplane, name: str) -> dict[str, Any]:
    """A pod, as it is when it waits for something or runs."""
    found: list[dict[str, Any]] = []

    def is_known(pods: list[dict[str, Any]]) -> bool:
        found[:] = [pod for pod in pods if pod["metadata"]["name"] == name and pod["status"].get("containerStatuses")]
        return any(is_running(pod) or state_of(pod)["waiting"].get("message") for pod in found)

    for _ in lab.api.poll("pods", "default", is_known, 10):
        pass
    return found[0]


def state_of(pod: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = pod["status"]["containerStatuses"][0]["state"]
    return state


def is_running(pod: dict[str, Any]) -> bool:
    return "running" in state_of(pod)


def test_paths_that_no_kernel_takes_end_no_kubelet(lab: Podplane) -> None:
    """Nor do folders that are deeper than a recursion."""
    refused = {
        "long": ("a" * 300, "File name too long"),
        "nul": ("a\0", "null byte"),
        "longer": ("a/" * 3000, "File name too long"),
    }
    paths = {"deep": "a/" * 1500} | {name: path for name, (path, _) in refused.items()}
    for name, path in paths.items():
        mounts = [{"name": "v", "mountPath": "/x", "subPath": path}]
        container = {"name": "main", "image": "podplane/echo", "volumeMounts": mounts}
        spec = {"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0}
        lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    for name, (_, why) in refused.items():
        assert why in state_of(the_pod(lab, name))["waiting"]["message"]
    assert is_running(the_pod(lab, "deep"))
    for name in paths:
        lab.api.delete("pods", "default", name)
    for _ in lab.api.poll("pods", "default", lambda pods: not {p["metadata"]["name"] for p in pods} & paths.keys(), 10):
        pass
    assert "errors" not in lab("status").stdout


def test_a_lab_goes_on_when_its_zygote_was_stopped_and_ends_with_its_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory, "--nodes", "1") as lab:
        holder = lab.folder.holder()
        assert holder is not None
        (zygote,) = [int(pid) for pid in children_of(holder) if b"zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(zygote, signal.SIGSTOP)
        lab("run", "web")
        assert "was stopped by a signal: it goes on" in (lab.folder.path / LOG).read_text()
        with os.fdopen(os.pidfd_open(holder), "rb") as ended:
            shutil.rmtree(lab.folder.path)
            assert select.select([ended], [], [], 20) == ([ended], [], [])
        assert "is not running" in lab("status", code=3).stdout


def children_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()

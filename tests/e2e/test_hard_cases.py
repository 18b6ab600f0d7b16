"""What a lab must live through: objects that make no sense, nodes and pods that go at the wrong moment, much data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from typing import Any

import pytest

from podplane.kubeapi.errors import ApiError
from podplane.lab.manifests import pod
from tests.e2e.conftest import COMMAND, Kubectl, Podplane, registered_again, stream, until

pytestmark = pytest.mark.e2e

SECONDS = 20
UNAVAILABLE = "node.kubernetes.io/network-unavailable"
NONSENSE: dict[str, Any] = {
    "words for truth": {"hostNetwork": "yes"},
    "a number as a folder": {"containers": [{"name": "main", "workingDir": 5}]},
    "a word as a port": {"containers": [{"name": "main", "ports": [{"containerPort": "80"}]}]},
    "truth as a time": {"terminationGracePeriodSeconds": True},
}


@pytest.mark.parametrize("spec", NONSENSE.values(), ids=NONSENSE.keys())
def test_objects_that_make_no_sense_are_refused_and_the_lab_goes_on(lab: Podplane, spec: dict[str, Any]) -> None:
    manifest = pod("odd")
    manifest["spec"] |= spec
    with pytest.raises(ApiError, match="cannot be handled as a Pod: spec") as refused:
        lab.api.create("pods", "default", manifest)
    assert refused.value.code == 400
    lab("run", "after")
    lab("delete", "pod", "after", "--now")


def test_a_node_that_is_deleted_registers_again_and_connections_of_its_pods_go_on(lab: Podplane, kubectl: Kubectl) -> None:
    with stream(kubectl, "echo-node2-1", "echo-node2-2"), stream(kubectl, "echo-node1-1", "echo-node2-1"):
        before, after = registered_again(lab, "node2")
        assert after["spec"]["podCIDRs"] == before["spec"]["podCIDRs"]
    assert "All 21 promises are kept" in lab("check").stdout
    assert "everything is as wanted" in lab("status", "--node", "node2").stdout


def test_pods_that_are_deleted_while_they_start_are_gone(lab: Podplane) -> None:
    api = lab.api
    for number in range(20):
        api.create("pods", "default", pod(f"brief-{number}"))
        api.delete("pods", "default", f"brief-{number}", grace=1)
    for left in api.poll("pods", "default", lambda pods: not any("brief" in p["metadata"]["name"] for p in pods), 20):
        names = [p["metadata"]["name"] for p in left]
    assert [name for name in names if "brief" in name] == []


def test_a_large_file_goes_through_a_command(lab: Podplane, tmp_path: Any) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(range(256)) * 40_000)
    with file.open("rb") as source:
        words = [*COMMAND, "exec", "-i", "echo-node1-1", "--", "cat"]
        done = subprocess.run(words, env=lab.environment, stdin=source, capture_output=True, timeout=60)
    assert done.stdout == file.read_bytes()


def test_an_echo_server_ends_well_and_answers_all_that_it_was_asked(lab: Podplane) -> None:
    script = (
        "import socket; s = socket.create_connection(('127.0.0.1', 8080)); s.sendall(b'line\\n' * 20000); s.settimeout(5)\n"
        "n = 0\nwhile n < 20000: n += s.recv(65536).count(b'\\n')\nprint(n)"
    )
    assert lab("exec", "echo-node1-1", "--", "python3", "-c", script).stdout == "20000\n"
    lab("exec", "echo-node1-1", "--", "kill", "-TERM", "1", code=None)
    for pods in lab.api.poll("pods", "default", lambda found: any(_restarted(p) for p in found), 5):
        ended = [p["status"]["containerStatuses"][0]["lastState"]["terminated"] for p in pods if _restarted(p)]
    assert [(state["exitCode"], state["reason"]) for state in ended] == [(0, "Completed")]


def _restarted(found: dict[str, Any]) -> bool:
    return any(c["restartCount"] for c in found.get("status", {}).get("containerStatuses", ()))


def test_what_a_node_says_of_its_uplink_is_true_after_a_new_start_and_when_it_registers_again(podplane: Podplane) -> None:
    def says(status: str) -> bool:
        node = podplane.api.get("nodes", "", "node1")
        tainted = UNAVAILABLE in {taint["key"] for taint in node["spec"].get("taints", ())}
        return has_condition(node, "NetworkUnavailable", status) and tainted == (status == "True")

    def registered_again() -> bool:
        return any(node["metadata"]["uid"] != former for node in podplane.api.objects("nodes", ""))

    podplane("up", "--nodes", "1")
    podplane("fault", "node1", "--uplink-down")
    until(lambda: says("True"), SECONDS)
    podplane("down")
    podplane("up")
    until(lambda: says("False"), SECONDS)
    podplane("fault", "node1", "--uplink-down")
    until(lambda: says("True"), SECONDS)
    former = podplane.api.get("nodes", "", "node1")["metadata"]["uid"]
    podplane.api.delete("nodes", "", "node1")
    until(registered_again, SECONDS)
    until(lambda: says("True"), SECONDS)
    podplane("fault", "node1", "--clear")
    until(lambda: says("False"), SECONDS)


def has_condition(node: dict[str, Any], kind: str, status: str) -> bool:
    """Does the node say this?"""
    return (kind, status) in {(one["type"], one["status"]) for one in node["status"].get("conditions", ())}


@pytest.mark.skipif(
    not all(map(shutil.which, ("pgrep", "nsenter", "hostname"))), reason="finding that host takes pgrep and nsenter"
)
def test_the_host_outside_comes_back(lab: Podplane) -> None:
    servers = subprocess.run(["pgrep", "--parent", _zygote(lab)], capture_output=True, text=True, check=True).stdout.split()
    names = {pid: _hostname(pid) for pid in servers}
    os.kill(int(next(pid for pid, name in names.items() if name == "outside")), signal.SIGKILL)
    time.sleep(0.5)
    assert "All 21 promises are kept" in lab("check").stdout


def _zygote(lab: Podplane) -> str:
    words = ["pgrep", "--parent", str(lab.folder.holder()), "--full", "podplane.runtime.zygote"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def _hostname(pid: str) -> str:
    """What it calls its machine; "" for one that nobody may look into: it is on its way into a container, or waits to be one."""
    words = ["nsenter", "--target", pid, "--user", "--uts", "--preserve-credentials", "hostname"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def test_more_pods_than_there_is_room_for_are_refused_at_once(lab: Podplane) -> None:
    assert "has room for 759 pods" in lab("run", "many", "--replicas", "100000", code=2).stderr

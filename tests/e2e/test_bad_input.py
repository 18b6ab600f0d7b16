"""What bad input gets: one line that says what and what to do, exit status 2, and nothing half made."""

from __future__ import annotations

import socket

import pytest

from tests.e2e.conftest import Podplane

pytestmark = pytest.mark.e2e

REFUSED = {
    "overlap": (("up", "--cluster-cidr", "10.96.0.0/16"), "overlaps service CIDR"),
    "too small": (("up", "--nodes", "5", "--cluster-cidr", "10.4.0.0/23"), "have room for 2 nodes with 253 pods each"),
    "too many pods": (("up", "--pods-per-node", "300"), "253 pods each"),
    "not a CIDR": (("up", "--cluster-cidr", "banana"), "write it as 10.244.0.0/16"),
    "host bits": (("up", "--node-cidr", "192.168.1.7/24"), "host bits set"),
    "family missing": (("up", "--node-cidr", "192.168.1.0/24"), "the cluster CIDR has IPv6"),
    "no nodes": (("up", "--nodes", "0"), "a lab has 1 to 1000"),
    "too many nodes": (("up", "--nodes", "2000"), "a lab has 1 to 1000"),
    "bad name": (("up", "--name", "Not_a_name"), "lower-case letters"),
    "no such port": (("up", "--port", "70000"), "give 1 to 65535"),
    "negative pods": (("up", "--pods-per-node", "-1"), "give 0 or more"),
    "not running": (("get", "pods"), "is not running: start it with"),
}


@pytest.mark.parametrize(("words", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(podplane: Podplane, words: tuple[str, ...], expected: str) -> None:
    done = podplane(*words, code=2)
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(podplane.home.iterdir()) == []


ON_A_LAB = {
    "unknown node": (("run", "web", "--node", "node9"), "there is no node 'node9': this lab has node1, node2, node3"),
    "name taken": (("run", "echo-node1-1"), 'pods "echo-node1-1" already exists'),
    "bad pod name": (("run", "Web_1"), "is invalid: metadata.name"),
    "no such pod": (("exec", "nobody", "--", "true"), "there is no pod nobody in namespace default"),
    "delete no such pod": (("delete", "pod", "nobody"), "there is no pod nobody in namespace default"),
    "delete nothing": (("delete", "pod"), "say which pods"),
    "no such namespace": (("run", "web", "-n", "nowhere"), 'namespaces "nowhere" not found'),
    "no replicas": (("run", "web", "--replicas", "0"), "give 1 or more"),
    "other CIDR": (("up", "--cluster-cidr", "10.99.0.0/16"), "first, then up again"),
    "bad selector": (("get", "pods", "-l", "a==b==c"), "label selector"),
}


@pytest.mark.parametrize(("words", "expected"), ON_A_LAB.values(), ids=ON_A_LAB.keys())
def test_refused_by_a_running_lab(lab: Podplane, words: tuple[str, ...], expected: str) -> None:
    before = lab("get", "pods", "-A").stdout.count("\n")
    done = lab(*words, code=2)
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert lab("get", "pods", "-A").stdout.count("\n") == before


def test_replicas_of_which_one_name_is_taken_leave_none(lab: Podplane) -> None:
    lab("run", "some-1")
    assert "already exists" in lab("run", "some", "--replicas", "3", code=2).stderr
    assert "some-0" not in lab("get", "pods").stdout
    lab("delete", "pod", "some-1")


def test_a_port_in_use_is_named_and_the_usual_one_gives_way(podplane: Podplane) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in podplane("up", "--port", str(port), code=2).stderr
        assert list(podplane.home.iterdir()) == []
    podplane("up", "--nodes", "1", "--name", "one")
    podplane("up", "--nodes", "1", "--name", "two")
    ports = {podplane("status", "--name", name).stdout.split("https://127.0.0.1:")[1].split()[0] for name in ("one", "two")}
    assert len(ports) == 2


def test_a_stopped_lab_keeps_its_addresses_or_is_purged(podplane: Podplane) -> None:
    podplane("up", "--nodes", "2")
    podplane("down")
    assert "--purge` deletes it" in podplane("up", "--cluster-cidr", "10.99.0.0/16", code=2).stderr
    assert "can only get more" in podplane("up", "--nodes", "1", code=2).stderr
    podplane("up", "--nodes", "3")
    assert podplane("get", "nodes").stdout.count("Ready") == 3
    podplane("down", "--purge")
    podplane("up", "--nodes", "1", "--cluster-cidr", "10.99.0.0/16")


def test_a_state_folder_that_cannot_be_written(podplane: Podplane) -> None:
    blocked = podplane.home / "file"
    blocked.write_text("")
    podplane.environment["XDG_STATE_HOME"] = str(blocked)
    done = podplane("up", code=2)
    assert "set HOME or XDG_STATE_HOME" in done.stderr


def test_too_few_open_files(podplane: Podplane) -> None:
    import subprocess

    from tests.e2e.conftest import COMMAND

    words = " ".join([*COMMAND, "up", "--nodes", "50", "--pods-per-node", "10"])
    done = subprocess.run(
        ["sh", "-c", f"ulimit -Sn 300; ulimit -Hn 300; {words}"], env=podplane.environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "open files" in done.stderr


def test_state_that_is_broken_is_named(podplane: Podplane) -> None:
    podplane("up", "--nodes", "1")
    podplane("down")
    for log in podplane.folder.path.glob("state.db-*"):
        log.unlink()
    podplane.folder.store.write_bytes(b"this is no database, not at all" * 100)
    done = podplane("up", code=2)
    assert "--purge` deletes this lab's state" in done.stderr
    assert podplane.folder.store.exists()
    podplane("down", "--purge")
    podplane("up", "--nodes", "1")

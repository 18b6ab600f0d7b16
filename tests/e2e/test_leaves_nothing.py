"""After `down` the machine is as before, whatever was killed in between, and the next command puts things right."""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Podplane, ordinary_users

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]


def machine(home: Path) -> dict[str, object]:
    """What a lab could leave: processes, interfaces, mounts and sockets of this network namespace, files of the state folder."""
    return {
        "processes": sorted(_ours(home)),
        "interfaces": sorted(line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]),
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(home) in line],
        "files": sorted(str(path) for path in home.rglob("*")),
        "groups": sorted(_groups(home)),
    }


def _groups(home: Path) -> Iterator[str]:
    """Control groups of the labs of this test."""
    for name in ("lab", "other"):
        number = f"{zlib.crc32(os.fsencode(home / 'podplane' / name)):08x}"
        for place, folders, _ in os.walk("/sys/fs/cgroup"):
            yield from (f"{place}/{folder}" for folder in folders if folder.startswith("podplane-") and folder.endswith(number))


def _ours(home: Path) -> Iterator[int]:
    """Processes whose environment has this test's state folder, and all that they started: all of its commands, whatever became of them."""
    marker = f"XDG_STATE_HOME={home}".encode()
    parents: dict[int, int] = {}
    own: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        try:
            parents[pid] = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
            own |= {pid} if marker in path.read_bytes().split(b"\0") else set()
        except OSError:
            continue
    for pid in parents:
        line = pid
        while line in parents and line not in own:
            line = parents[line]
        if line in own:
            yield pid


def namespaces() -> set[str]:
    """Network namespaces that processes of ours hold."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(os.readlink(path))
        except OSError:
            continue
    return found


def settles(probe: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Does it become true? Not each look is cheap: they are the rarer the longer it takes."""
    begin = time.monotonic()
    while (waited := time.monotonic() - begin) < seconds:
        if probe():
            return True
        time.sleep(min(0.3, max(0.02, waited / 20)))
    return probe()


def test_down_keeps_settings_and_objects_only_and_with_purge_leaves_the_machine_as_it_was(podplane: Podplane) -> None:
    before = machine(podplane.home)
    podplane("up", "--pods-per-node", "2")
    podplane("run", "sleeper", "--", "sh", "-c", "sleep 1000 & sleep 1000")
    assert len(list(_ours(podplane.home))) > 8
    podplane("down")
    kept = {path.name for path in podplane.folder.path.iterdir()}
    assert kept <= {"lab.json", "state.db", "state.db-wal", "state.db-shm", "lab.log", "pki", "kubeconfig", "audit.log"}
    assert not list(_ours(podplane.home))
    podplane("down", "--purge")
    assert machine(podplane.home) == before


@pytest.mark.parametrize("milliseconds", [30, 120, 210, 300, 400, 500])
def test_up_is_killed_at_any_moment(podplane: Podplane, milliseconds: int) -> None:
    starting = podplane.start("up", "--pods-per-node", "2")
    time.sleep(milliseconds / 1000)
    starting.kill()
    starting.wait()
    assert podplane("status", code=None).returncode in (0, 2, 3)
    podplane("up", "--pods-per-node", "2")
    assert podplane("get", "pods").stdout.count("Running") == 6
    podplane("down", "--purge")
    assert not list(_ours(podplane.home))
    assert not list(podplane.home.iterdir())


def test_up_that_is_killed_leaves_no_process(podplane: Podplane) -> None:
    for milliseconds in (150, 250, 350):
        starting = podplane.start("up", "--nodes", "20", "--pods-per-node", "10")
        time.sleep(milliseconds / 1000)
        starting.kill()
        starting.wait()
        assert settles(lambda: not list(_ours(podplane.home)))


def test_down_is_killed(podplane: Podplane) -> None:
    podplane("up", "--pods-per-node", "2")
    stopping = podplane.start("down")
    time.sleep(0.12)
    stopping.kill()
    stopping.wait()
    podplane("down")
    assert not list(_ours(podplane.home))


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_process_1_is_killed_and_then_the_zygote(podplane: Podplane) -> None:
    podplane("up", "--pods-per-node", "2")
    before = json.loads(podplane("get", "pods", "-o", "json").stdout)["items"]
    holder = podplane.folder.holder()
    assert holder
    os.kill(holder, signal.SIGKILL)
    assert settles(lambda: not list(_ours(podplane.home)))
    assert "not running" in podplane("status", code=3).stdout
    podplane("up")
    after = json.loads(podplane("get", "pods", "-o", "json").stdout)["items"]
    assert [p["status"]["podIPs"] for p in after] == [p["status"]["podIPs"] for p in before]
    holder = podplane.folder.holder()
    assert holder
    zygote = _children(holder)[0]
    os.kill(zygote, signal.SIGKILL)
    assert settles(lambda: not list(_ours(podplane.home)))
    podplane("up")
    assert podplane("get", "pods").stdout.count("Running") == 6


def test_a_container_is_killed_and_comes_back(podplane: Podplane) -> None:
    podplane("up", "--nodes", "1", "--pods-per-node", "1")
    holder = podplane.folder.holder()
    assert holder
    zygote = _children(holder)[0]
    for container in _children(zygote):
        os.kill(container, signal.SIGKILL)

    def restarted() -> bool:
        pod = podplane.api.get("pods", "default", "echo-node1-1")
        status = pod["status"]["containerStatuses"][0]
        return bool(
            status["restartCount"] >= 1 and status["ready"]
        )  # of the children one waited, and may be the next container by then

    assert settles(restarted)
    assert json.loads(podplane("check", "--json", code=None).stdout)["promises"][0]["ok"]


def test_processes_end_with_their_pod(podplane: Podplane) -> None:
    podplane("up", "--nodes", "1")
    podplane("run", "many", "--", "sh", "-c", "for i in 1 2 3; do sleep 1234 & done; sleep 1234")
    assert settles(lambda: len(_sleepers(podplane.home)) == 4)
    podplane("delete", "pod", "many", "--now")
    assert not _sleepers(podplane.home)


def _sleepers(home: Path) -> list[int]:
    """`sleep 1234` of descendants of this test's labs; containers have an environment of their own, so by ancestry."""
    labs, found = set(_ours(home)), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x001234\x00" and labs & _ancestors(int(path.parent.name)):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _ancestors(pid: int) -> set[int]:
    found = set()
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        found.add(pid)
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_gets_the_same() -> None:
    """The lab needs no root: as `nobody`, with nothing but a folder to write to."""
    with ordinary_users() as run:
        run("up", "--pods-per-node", "2")
        assert "promises are kept: " in run("check").stdout
        run("down", "--purge")

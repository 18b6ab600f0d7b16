"""Pods of a lab that root runs: to the machine they are users that nobody is, and they read there what everybody may."""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.kernel.ids import COUNT, FIRST
from podplane.lab.user_ids import UNUSED
from tests.e2e.conftest import Podplane, running

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.getuid() != 0, reason="only root has ids to give away")]
POD = "tried"
PLACE = "/var/tmp"
"""A folder that pods see."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """A lab of one node and a pod."""
    with running(tmp_path_factory, "--nodes", "1") as started:
        container = {"name": "main", "image": "podplane/client", "securityContext": {"privileged": True}}
        share = {"name": "share", "emptyDir": {}}
        container["volumeMounts"] = [{"name": "share", "mountPath": "/share"}]
        body = {"metadata": {"name": POD}, "spec": {"containers": [container], "volumes": [share]}}
        started.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", **body})
        for _ in started.api.poll("pods", "default", lambda pods: any(p["status"].get("phase") == "Running" for p in pods), 15):
            pass
        if says(started, "cat /proc/self/uid_map").split() != ["0", str(FIRST), str(COUNT)]:
            pytest.skip("root may not map ids here")
        yield started


@pytest.fixture(scope="module")
def moved(lab: Podplane) -> Podplane:
    """The lab, if the machine's folders can have their owners moved."""
    if "/layers/var," not in says(lab, "grep ' /var ' /proc/self/mountinfo"):
        pytest.skip("this file system has no idmapped mounts")
    return lab


def says(lab: Podplane, script: str) -> str:
    return lab("exec", POD, "--", "sh", "-c", f"exec 2>/dev/null; {script}; true").stdout.strip()


def test_its_processes_are_nobody_of_the_machine(lab: Podplane) -> None:
    own = says(lab, "readlink /proc/1/ns/user")
    found = [path.parent for path in Path("/proc").glob("[0-9]*/status") if _user_namespace(path.parent) == own]
    assert found
    for process in found:
        fields = dict(line.partition(":")[::2] for line in (process / "status").read_text().splitlines())
        assert {fields[name].split()[0] for name in ("Uid", "Gid")} == {str(UNUSED)} or _is_subordinate(fields)
        assert not fields["Groups"].split(), "of root's other groups nothing is left"


def test_what_its_pods_use_up_counts_for_nobody_of_the_machine(lab: Podplane) -> None:
    holder = os.open(f"/proc/{lab.folder.holder()}/ns/user", os.O_RDONLY)
    owner = struct.pack("=I", 0)
    owner = fcntl.ioctl(holder, NS_GET_OWNER_UID, owner)
    os.close(holder)
    assert struct.unpack("=I", owner)[0] == _first_id(lab)


def test_a_pod_has_no_more_of_what_is_counted_by_user_for_its_many_users(lab: Podplane) -> None:
    most = int(Path("/proc/sys/user/max_inotify_instances").read_text())
    said = [int(word) for word in says(lab, f"python3 -c '{MANY_USERS}'").split()]
    assert len(said) == 12 and 0 < sum(said) <= most // 4
    assert int(says(lab, f"python3 -c '{MANY_USERS}' hard").split()[0]) == said[0], "it is free again"


MANY_USERS = """
import ctypes, os
libc = ctypes.CDLL(None)
ends = [os.pipe(), os.pipe()]
for user in range(12):
    if os.fork() == 0:
        os.close(ends[0][1])
        os.setuid(user)
        taken = 0
        while libc.inotify_init() >= 0:
            taken += 1
        os.write(ends[1][1], b"%d " % taken)
        os.read(ends[0][0], 1)
        os._exit(0)
    print(os.read(ends[1][0], 9).decode(), flush=True)
"""
NS_GET_OWNER_UID = 0xB704


def _first_id(lab: Podplane) -> int:
    """Who user 0 of pods is to the machine."""
    lines = Path(f"/proc/{lab.folder.holder()}/uid_map").read_text().splitlines()
    return next(int(outside) for inside, outside, _ in map(str.split, lines) if inside == str(FIRST))


def _user_namespace(process: Path) -> str:
    try:
        return os.readlink(process / "ns/user")
    except OSError:
        return ""


def _is_subordinate(fields: dict[str, str]) -> bool:
    given = Path("/etc/subuid")
    return given.exists() and f":{fields['Uid'].split()[0]}:" in given.read_text()


def test_it_has_users_of_its_own(lab: Podplane) -> None:
    assert says(lab, "touch /share/f; chown 33:34 /share/f; stat -c %u:%g /share/f /share") == "33:34\n0:0"
    assert says(lab, "setpriv --reuid 33 --regid 34 --clear-groups sh -c 'id -u; id -g; touch /share/own'") == "33\n34"
    assert says(lab, "echo again >/dev/stdout") == "again", "its pipes belong to it"


def test_its_containers_are_who_its_spec_says(lab: Podplane) -> None:
    mounts = {"volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in ("share", "word")]}
    own = {"runAsUser": 12346, "runAsGroup": 34}
    spec = {
        "securityContext": {"runAsUser": 12345, "runAsNonRoot": True, "fsGroup": 2000, "supplementalGroups": [4000]},
        "volumes": [
            {"name": "share", "emptyDir": {}},
            {"name": "word", "downwardAPI": {"defaultMode": 0o400, "items": [{"path": "name", "fieldRef": NAME_FIELD}]}},
        ],
        "containers": [
            {"name": "main", "image": "podplane/client", **mounts},
            {"name": "other", "image": "podplane/echo", "securityContext": own, **mounts},
            {"name": "root", "image": "podplane/echo", "securityContext": {"runAsUser": 0}},
        ],
    }
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "who"}, "spec": spec})
    for _ in lab.api.poll("pods", "default", lambda pods: any(_states(p) == ["running", "running", REFUSED] for p in pods), 15):
        pass
    script = "id -u; id -G; cat /word/name; touch /share/$(id -u); ls -ln /share | cut -d' ' -f3,4; echo x >/dev/stdout; touch /etc/x"
    for name, ids in (("main", ["12345", "0 2000 4000"]), ("other", ["12346", "34 2000 4000"])):
        said = lab("exec", "who", "-c", name, "--", "sh", "-c", f"exec 2>/dev/null; {script}; true").stdout.splitlines()
        assert said[:2] == ids
        assert said[2].startswith("who"), "the group of the volume reads it"
        assert said[-1] == "x"
        assert f"{ids[0]} 2000" in said
        status = lab("exec", "who", "-c", name, "--", "cat", "/proc/1/status", "/proc/self/status").stdout
        assert [line.split()[1:] for line in status.splitlines() if line.startswith("Uid")] == [[ids[0]] * 4] * 2
        assert [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")] == ["0" * 16] * 2


NAME_FIELD = {"fieldPath": "metadata.name"}
REFUSED = "CreateContainerConfigError"


def _states(pod: dict[str, Any]) -> list[str]:
    """What the containers of the pod with three are doing."""
    found = [one["state"] for one in pod["status"].get("containerStatuses", ())]
    return [state.get("waiting", {}).get("reason") or next(iter(state)) for state in found]


def test_the_machines_cgroups_can_be_mounted_and_not_changed(lab: Podplane) -> None:
    assert says(lab, "mkdir /mnt/c; mount -t cgroup2 none /mnt/c && mkdir /mnt/c/new && echo made; ls -d /mnt/c/new") == ""
    assert (
        says(
            lab,
            "for f in $(find /mnt/c -name 'cgroup.*' -o -name '*.max' | head -50); do test -w $f && (: >$f) && echo $f; done",
        )
        == ""
    )


def test_only_what_everybody_reads_can_be_read(moved: Podplane) -> None:
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        os.chmod(place, 0o755)
        secret, closed, shared = Path(place, "secret"), Path(place, "closed"), Path(place, "shared")
        for file in (secret, shared):
            file.write_text("word\n")
        secret.chmod(0o600)
        closed.mkdir(0o700)
        (closed / "file").write_text("word\n")
        look = "cat secret closed/file; ls closed"
        assert (
            says(moved, f"cd {place}; {look}; chmod 777 secret closed; {look}; cp secret new; mv secret old; cat new old") == ""
        )
        assert (
            says(moved, f"ln {place}/secret /var/tmp/link; cat /var/tmp/link; mount --bind {place} /mnt; cat /mnt/secret") == ""
        )
        assert says(
            moved, f"cat {place}/shared; echo other >{place}/shared; cat {place}/shared; rm {place}/secret && echo gone"
        ) == ("word\nother\ngone")
        assert (shared.read_text(), secret.read_text()) == ("word\n", "word\n")


def test_what_is_changed_on_the_way_is_its_own(moved: Podplane) -> None:
    before = Path("/etc/passwd").read_text()
    assert (
        says(moved, "echo x >>/etc/passwd; mkdir -p /var/lib/x/y /usr/lib/x; touch /etc/ssl/x; ls -d /var/lib/x/y /usr/lib/x")
        == "/usr/lib/x\n/var/lib/x/y"
    )
    assert Path("/etc/passwd").read_text() == before
    assert not Path("/usr/lib/x").exists()


def test_passwords_of_the_machine_are_not_there(moved: Podplane) -> None:
    assert {line.split(":")[1] for line in says(moved, "cat /etc/shadow").splitlines()} <= {"*"}
    assert says(moved, "cat /etc/shadow- /etc/gshadow-") == ""

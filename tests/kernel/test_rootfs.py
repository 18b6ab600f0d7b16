"""A container's own file system: what it changes nobody else sees, what its pod mounts is where it is wanted, its processes are bounded."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from podplane.kernel import releases, rootfs, syscalls, user_limits
from podplane.kernel.rootfs import Bind, Root
from podplane.kernel.volumes import Tmpfs
from tests.kernel.test_zygote import Machine, contained

pytestmark = pytest.mark.kernel
FOLDER = "/mnt"


def lab_folder() -> Path:
    """A tmpfs for the lab's files, with the two mount points."""
    syscalls.mount("tmpfs", FOLDER, "tmpfs", 0)
    rootfs.prepare(FOLDER)
    return Path(FOLDER)


def pid_max() -> str:
    """That of this PID namespace."""
    return Path("/proc/sys/kernel/pid_max").read_text()


def content(path: str) -> str:
    """What this process reads there."""
    return Path(path).read_text()


def exists(path: str) -> bool:
    """Is it there, for this process?"""
    return Path(path).exists()


@contained
async def test_changes_are_the_containers_own(machine: Machine) -> None:
    lab_folder()
    root = Root(FOLDER)
    script = "mkdir /data /etc/x && echo 1 > /data/a && echo 1 > /tmp/a && echo 1 > /usr/a && cat /data/a /tmp/a /usr/a && ls -A /run /mnt"
    assert (await machine.says(script, root=root)).split() == ["1", "1", "1", "/mnt:", "/run:"]
    assert await machine.says("ls -d /data /etc/x /usr/a /tmp/a 2>/dev/null", root=root) == ""
    assert not list(filter(exists, ("/data", "/etc/x", "/usr/a")))


@contained
async def test_mounts_are_where_they_are_wanted(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "volume").mkdir()
    (folder / "volume" / "key").write_text("value\n")
    (folder / "file").write_text("nameserver 10.96.0.10\n")
    targets = ("/etc/some/where/new", "/var/run/secrets/kubernetes.io/serviceaccount", "/data", "/usr/share/deep/er")
    binds = [Bind(f"{FOLDER}/volume", target, read_only=True) for target in targets]
    binds += [Bind(f"{FOLDER}/file", "/etc/resolv.conf"), Bind(f"{FOLDER}/volume", "/writable")]
    root = Root(FOLDER, binds)
    script = "cat " + " ".join(f"{target}/key" for target in targets) + "; cat /etc/resolv.conf; echo more > /writable/other"
    assert (await machine.says(script, root=root)).split() == ["value"] * 4 + ["nameserver", "10.96.0.10"]
    assert (folder / "volume" / "other").read_text() == "more\n"
    assert await machine.says("touch /data/x 2>/dev/null || echo refused", root=root) == "refused"


@contained
async def test_a_file_of_an_image_is_the_containers_own(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "program").write_text("#!/bin/sh\necho runs $0\n")
    (folder / "program").chmod(0o755)
    targets = ("/program", "/usr/share/deep/er/program")
    root = Root(FOLDER, [Bind(f"{FOLDER}/program", target, copied=True) for target in targets])
    script = "; ".join(
        f"{target}; mv {target} /tmp/p && ! [ -e {target} ] && mv /tmp/p {target} && rm {target}" for target in targets
    )
    assert await machine.says(script, root=root) == "runs /program\nruns /usr/share/deep/er/program"
    assert await machine.says("/program", root=root) == "runs /program", "and the next container has it again"
    assert exists(f"{FOLDER}/program") and not exists("/program")


@contained
async def test_what_joins_a_container_sees_its_files(machine: Machine) -> None:
    lab_folder()
    container = await machine.running("echo here > /tmp/mine", root=Root(FOLDER))
    assert await machine.says("cat /tmp/mine", join=container.id, netns=-1) == "here"


@contained
async def test_a_host_path_shows_what_the_container_sees_anyhow(machine: Machine) -> None:
    lab_folder()
    binds = [Bind("/", "/host", inside=True), Bind("/etc", "/host-etc", read_only=True, inside=True)]
    binds.append(Bind("/var/new/er", "/data", inside=True))
    root = Root(FOLDER, binds)
    script = """touch /host/etc/x /data/y && ls /etc/x /var/new/er/y
        touch /host-etc/z 2>/dev/null || echo refused"""
    assert (await machine.says(script, root=root)).split() == ["/etc/x", "/var/new/er/y", "refused"]
    assert not list(filter(exists, ("/etc/x", "/var/new")))


@contained
async def test_a_host_path_of_a_file_that_the_pod_has_in_another_form_is_the_machines(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "hosts").write_text("10.1.0.2 pod\n")
    binds = [Bind(f"{FOLDER}/hosts", "/etc/hosts"), Bind("/etc/hosts", "/etc/hosts-original", inside=True)]
    script = "cat /etc/hosts; cat /etc/hosts-original; ls -d /.kept* 2>/dev/null"
    own = content("/etc/hosts")
    assert await machine.says(script, root=Root(FOLDER, binds)) == f"10.1.0.2 pod\n{own}".strip()
    binds.append(Bind("/etc/hosts", "/etc/hosts", read_only=True, inside=True))
    script = "cat /etc/hosts; echo x >> /etc/hosts || echo refused; echo x >> /etc/hosts-original; tail -1 /etc/hosts-original"
    said = await machine.says(f"exec 2>/dev/null; {script}", root=Root(FOLDER, binds))
    assert said == f"{own}refused\nx".strip() and content("/etc/hosts") == own


@contained
async def test_a_host_path_that_the_pod_covers_shows_nothing_that_it_may_not_see(machine: Machine) -> None:
    folder = lab_folder()
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        secrets = [Path(file.name), folder / "token"]
        (folder / "own").write_text("own\n")
        for secret in secrets:
            secret.write_text("secret\n")
            path = str(secret)
            for target in (path, f"/tmp/../{path}"):
                binds = [Bind(f"{FOLDER}/own", target, read_only=True), Bind(path, "/seen", inside=True)]
                assert await machine.says(f"cat /seen {path}", root=Root(FOLDER, binds)) == "own\nown"
            assert await machine.says("cat /seen", root=Root(FOLDER, binds[1:])) == "", "and nothing without the mount"
            assert secret.read_text() == "secret\n"


@contained
async def test_no_mount_path_leads_to_the_machines_own_files(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "volume").mkdir()
    syscalls.mount("tmpfs", "/srv", "tmpfs", 0)
    assert await machine.says("ls -A / | grep '^[.]'", root=Root(FOLDER)) == ""
    binds = [Bind(f"{FOLDER}/volume", f"/.old{where}") for where in ("", "/srv/made")]
    assert await machine.says("ls -d /.old/srv/made", root=Root(FOLDER, binds)) == "/.old/srv/made"
    assert os.listdir("/srv") == []
    (folder / "volume" / "link").symlink_to("/.old/srv")
    binds = [Bind(f"{FOLDER}/volume", "/data"), Bind(f"{FOLDER}/volume", "/data/link/made")]
    await machine.says("true", root=Root(FOLDER, binds))
    assert os.listdir("/srv") == []


@contained
async def test_a_part_of_a_volume_is_never_outside_of_it(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "volume" / "deep").mkdir(parents=True)
    (folder / "volume" / "deep" / "file").write_text("own\n")
    (folder / "volume" / "link").symlink_to("deep")
    (folder / "volume" / "out").symlink_to("../" * 9 + "etc")

    def root(below: str, target: str = "/seen", *, make: bool = False) -> Root:
        return Root(FOLDER, [Bind(f"{FOLDER}/volume", target, below=below, makes_below=make)])

    for below in ("deep", "link", "./deep//", "deep/../link"):
        assert await machine.says("cat /seen/file; ls /seen", root=root(below)) == "own\nfile"
    assert await machine.says("cat /seen", root=root("link/file")) == "own"
    assert await machine.says("touch /etc/new/x; ls /etc/new", root=root("link/made/er", "/etc/new", make=True)) == "x"
    assert os.listdir(f"{FOLDER}/volume/deep/made/er") == ["x"]
    for below, why in {
        "out": "leads out of its volume",
        "out/hosts": "leads out of its volume",
        "none": "nothing in the volume",
    }.items():
        process = machine.sh("true", root=root(below, make="out" in below))
        assert await process.exited == 126
        assert process.refused and why in process.error and repr(below) in process.error


@contained
async def test_file_systems_of_volumes_are_their_pods_only(machine: Machine) -> None:
    folder = lab_folder()
    place = f"{FOLDER}/pods/uid/empty"
    mounts = machine.processes.make_mounts([Tmpfs(place, 1 << 20, ["a", "b"]), Tmpfs(f"{place}/c", 1 << 16)])
    await mounts.made()
    root = Root(FOLDER, [Bind(f"{place}/{name}", f"/{name}") for name in "abc"])
    script = """for v in a b c; do head -c 3000000 /dev/zero >/$v/file; done 2>/dev/null
        stat -c %s /a/file /b/file /c/file; stat -c %a /a /b /c"""
    sizes = (await machine.says(script, root=root, mounts=mounts.id)).split()
    assert sizes[3:] == ["777"] * 3
    assert (1 << 20) - (1 << 16) < sum(map(int, sizes[:2])) <= 1 << 20 and 0 < int(sizes[2]) <= 1 << 16
    assert await machine.says("stat -c %s /a/file", root=root, mounts=mounts.id) == sizes[0], "the next container has it too"
    assert [path.name for path in folder.rglob("file")] == []
    mounts.release()
    mounts.release()
    process = machine.sh("true", root=root, mounts=mounts.id)
    assert await process.exited == 126 and "its volumes are gone" in process.error
    taken = folder / "file"
    taken.write_text("")
    with pytest.raises(OSError):
        await machine.processes.make_mounts([Tmpfs(str(taken), 1 << 20)]).made()
    assert await machine.says("echo runs", root=Root(FOLDER)) == "runs"


@contained
async def test_a_mount_that_cannot_be_is_told(machine: Machine) -> None:
    lab_folder()
    process = machine.sh("true", root=Root(FOLDER, [Bind(f"{FOLDER}/nothing", "/data")]))
    assert await process.exited == 126
    assert "mount /data: No such file or directory" in process.error


@contained
async def test_processes_are_bounded(machine: Machine) -> None:
    lab_folder()
    before = pid_max()
    if not releases.limits_processes():  # Linux 6.13 and before: those of a user are
        assert await machine.says("bash -c 'ulimit -u'", root=Root(FOLDER)) == str(user_limits.MAX_PROCESSES)
        return
    bomb = "import os,time\nn=0\ntry:\n while n<600:\n  if os.fork()==0: time.sleep(60)\n  n+=1\nexcept OSError: print(n)"
    said = await machine.says(f"exec {sys.executable} -c '{bomb}'", root=Root(FOLDER, pids=400))
    assert 0 < int(said) < 400
    assert pid_max() == before


@contained
async def test_what_came_to_the_machine_later_is_seen(machine: Machine) -> None:
    lab_folder()
    script = f"""
import os, sys
sys.path[:] = {sys.path!r}
from podplane.kernel import rootfs
first = rootfs.machine()
print(rootfs.machine() is first)
os.mkdir("/later", 0o700)
os.symlink("later", "/link")
now = rootfs.machine()
print(set(now.layers) - set(first.layers), set(now.links) - set(first.links), now.empty == first.empty)
"""
    (Path(FOLDER) / "script").write_text(script)
    root = Root(FOLDER, [Bind(f"{FOLDER}/script", "/script")])
    said = await machine.says(f"exec {sys.executable} -I -S /script", root=root)
    assert said == "True\n{'later'} {('link', 'later')} True"


@contained
async def test_modes_do_not_depend_on_what_the_lab_was_started_with(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "file").write_text("")
    os.umask(0o077)
    other = Machine()  # its zygote has this umask too
    root = Root(FOLDER, [Bind(f"{FOLDER}/file", "/data/deep/file")])
    said = await other.says("umask; stat -c %a /tmp /run /dev/shm /proc /data /data/deep /dev", root=root)
    assert said.split() == ["0077", "1777", "755", "1777", "555", "755", "755", "755"]

"""A pod that has all capabilities of its user namespace, and wants to change what is mounted in it, or the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podplane.kernel import rootfs
from podplane.kernel.rootfs import Bind, Root
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained

pytestmark = pytest.mark.kernel
TRIES = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
MS_REMOUNT, MS_BIND, MS_REC = 32, 4096, 16384
READ_ONLY = sys.argv[1].split()
ALL = READ_ONLY + ["/data", "/proc", "/sys", "/dev", "/dev/null", "/usr", "/etc"]
if len(sys.argv) > 2:
    assert not libc.unshare(0x10000000 | 0x20000), "a user namespace in the pod's"
    for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        open(f"/proc/self/{name}", "w").write(text)
done = []
def attempt(name, code):
    if code == 0:
        done.append(name)
for path in READ_ONLY:
    attempt(f"remount {path}", libc.mount(None, path.encode(), None, MS_REMOUNT | MS_BIND, None))
    cleared = struct.pack("=QQQQ", 0, 1, 0, 0)
    attempt(f"mount_setattr {path}", libc.syscall(442, -100, path.encode(), 0x8000, cleared, 32))
for path in ALL:
    attempt(f"umount {path}", libc.umount2(path.encode(), 2))
os.makedirs("/tmp/new", exist_ok=True)
for path in READ_ONLY:
    if libc.mount(path.encode(), b"/tmp/new", None, MS_BIND | MS_REC, None) == 0:
        attempt(f"remount a bind of {path}", libc.mount(None, b"/tmp/new", None, MS_REMOUNT | MS_BIND, None))
        libc.umount2(b"/tmp/new", 2)
for path in ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        done.append(f"open {path}")
    except OSError:
        pass
for kind in ("sysfs", "proc"):
    if libc.mount(kind.encode(), b"/tmp/new", kind.encode(), 0, None) == 0:
        done += [name for name in ("/tmp/new/sys/kernel/pid_max", "/tmp/new/power/state") if os.access(name, os.W_OK)]
        libc.umount2(b"/tmp/new", 2)
for line in open("/proc/self/mountinfo"):
    where = line.split()[4]
    if where.startswith("/data") and not {"nosuid", "nodev"} <= set(line.split()[5].split(",")):
        done.append(f"{where} without nosuid, nodev")
print(*done, sep="; ")
"""


def volumes(folder: Path) -> Root:
    """A container with a read-only volume that has mounts below it, a writable one, and the script."""
    for name in ("config", "data"):
        (folder / name).mkdir()
    (folder / "try.py").write_text(TRIES)
    return Root(
        FOLDER,
        [
            Bind(f"{FOLDER}/config", "/config", read_only=True),
            Bind(f"{FOLDER}/data", "/data"),
            Bind(f"{FOLDER}/try.py", "/try.py", read_only=True),
        ],
        pids=400,
    )


def python(*words: str) -> str:
    """A command that runs the script."""
    return f"exec /usr/bin/env python3 /try.py '{' '.join(READ_ONLY)}' {' '.join(words)}"


READ_ONLY = ["/config", "/try.py", "/proc/sys", "/sys"]


@contained
async def test_no_mount_of_the_lab_can_be_changed_or_removed(machine: Machine) -> None:
    root = volumes(lab_folder())
    assert await machine.says(python(), root=root) == ""
    assert await machine.says(python("nested"), root=root) == "", "nor from a user namespace in the pod's"


@contained
async def test_what_tells_of_the_machine_is_empty(machine: Machine) -> None:
    lab_folder()
    files = " ".join(f"/proc/{name}" for name in rootfs.HIDDEN)
    folders = " ".join(rootfs.HIDDEN_KERNEL)
    assert await machine.says(
        f"exec 2>/dev/null; cat {files}; for d in {folders}; do ls -A $d; done; ls -d {folders}", root=Root(FOLDER)
    ) == ("\n".join(sorted(filter(os.path.isdir, rootfs.HIDDEN_KERNEL))))


@contained
async def test_devices_can_be_used_and_not_changed(machine: Machine) -> None:
    lab_folder()
    script = """exec 2>/dev/null
        for d in null full zero random urandom tty net/tun; do
            chmod 666 /dev/$d && echo mode; chown 0 /dev/$d && echo owner; touch /dev/$d && echo times
        done
        echo x >/dev/null && head -c 2 /dev/zero | wc -c; exec 3<>/dev/urandom && echo opened"""
    assert (await machine.says(script, root=Root(FOLDER))).split() == ["2", "opened"]


@contained
async def test_the_interpreter_of_a_built_in_program_can_not_be_changed(_: Machine) -> None:
    lab_folder()
    rootfs.protect_interpreter()
    machine = Machine()  # it starts with what is protected now
    script = """exec 2>&1; exe=/proc/1/exe; ls -lL $exe >/dev/null || echo none
        chmod $(stat -L -c %a $exe) $exe; touch -a $exe; chown 0 $exe; (: >>$exe); cat /proc/1/comm; true"""
    container = machine.start("podplane/client", root=Root(FOLDER))
    await container.started()
    *said, name = (await machine.says(script, join=container.id)).split("\n")
    assert (name, len(said)) == ("client", 4)
    assert all(any(why in line for why in ("Read-only", "busy", "ermi")) for line in said), said


@contained
async def test_mounts_are_told_to_nobody_and_devices_can_not_be_made(machine: Machine) -> None:
    root = volumes(lab_folder())
    script = """exec 2>/dev/null; grep -E ' (shared|master|propagate_from):' /proc/self/mountinfo
        for place in /tmp /data /dev; do mknod $place/memory c 1 1 && head -c 1 $place/memory && echo read; done
        mount --make-rshared / && mount -t tmpfs seen /mnt && echo mounted"""
    assert await machine.says(script, root=root) == "mounted"
    assert "seen /mnt" not in Path("/proc/self/mounts").read_text()  # noqa: ASYNC240  # of this kernel, at once


@contained
async def test_what_a_pod_may_do_in_its_own_namespaces(machine: Machine) -> None:
    root = volumes(lab_folder())
    script = """exec 2>&1
        hostname other && uname -n
        mount -t tmpfs none /mnt && echo tmpfs
        python3 -c 'import os; os.close(os.openpty()[0]); print("pty")'
        python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print("raw")'
        python3 -c 'import socket; socket.create_server(("", 80)); print("port 80")'
        ls /dev/pts; ls -d /dev/mqueue"""
    said = (await machine.says(script, root=root)).split("\n")
    assert said == ["other", "tmpfs", "pty", "raw", "port 80", "ptmx", "/dev/mqueue"]


@contained
async def test_terminals_and_ipc_of_others_are_not_there(machine: Machine) -> None:
    lab_folder()
    said = await machine.says("ls /dev/pts; readlink /proc/self/ns/ipc /proc/self/ns/uts", root=Root(FOLDER))
    assert said.split()[0] == "ptmx"
    assert not set(said.split()) & own_namespaces()


def own_namespaces() -> set[str]:
    """The namespaces of this process."""
    return {os.readlink(f"/proc/self/ns/{kind}") for kind in ("ipc", "uts")}


@contained
async def test_all_mounts_but_terminals_and_message_queues_are_locked(machine: Machine) -> None:
    root = volumes(lab_folder())
    script = "cut -d' ' -f5 /proc/self/mountinfo | sort -r | while read m; do umount $m 2>/dev/null && echo $m; done"
    assert set((await machine.says(script, root=root)).split()) == {"/dev/pts", "/dev/mqueue"}

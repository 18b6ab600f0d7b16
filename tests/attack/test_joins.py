"""A pod that looks into the processes that join it: none of them ever shows the lab's files, memory or descriptors."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from podplane.kernel import syscalls
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Bind, Root
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import PATH, Machine, contained, ends

pytestmark = pytest.mark.kernel
JOINS = 100
SECRET = f"{FOLDER}/secret"
RACER = f"""
import os, signal
found, seen, ended = set(), set(), []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
own = os.readlink("/proc/self/ns/mnt")
print("ready", flush=True)
rounds = 0
while not ended:
    if rounds % 20 == 0:
        last = int(open("/proc/loadavg").read().split()[-1])
    rounds += 1
    for pid in range(max(2, last), last + 3):
        try:
            os.stat(f"/proc/{{pid}}")
        except OSError:
            continue
        seen.add(pid)
        last = max(last, pid)
        for name in ("root{SECRET}", "cwd{SECRET}"):
            try:
                os.stat(f"/proc/{{pid}}/{{name}}")
                found.add(name)
            except OSError:
                pass
        for name in ("ns/mnt", "ns/user"):
            try:
                if os.readlink(f"/proc/{{pid}}/{{name}}") not in (own, os.readlink("/proc/self/ns/user")):
                    found.add(name)
            except OSError:
                pass
        try:
            for fd in os.listdir(f"/proc/{{pid}}/fd"):
                if os.readlink(f"/proc/{{pid}}/fd/{{fd}}").startswith(("socket", "/dev/ptmx", "/dev/pts/ptmx")):
                    found.add("descriptor")
        except OSError:
            pass
print(len(seen) > 0, *sorted(found), flush=True)
"""
"""Says whether it saw processes that came, and what it found of the lab in them."""


def write(path: str) -> None:
    """Have a file of the lab there."""
    Path(path).write_text("the lab's\n")


@contained
async def test_a_pod_that_looks_into_what_joins_it_sees_nothing_of_the_lab(machine: Machine) -> None:
    lab_folder()
    write(SECRET)
    process, reader = machine.talker(f"exec {sys.executable} -I -S -c '{RACER}'", root=Root(FOLDER))
    assert await reader.readline() == b"ready\n"
    for number in range(JOINS):
        terminals: list[int] = []
        joined = machine.start("true", join=process.id, terminal=terminals.append if number % 2 else None)
        assert await ends(joined) == 0
        for fd in terminals:
            os.close(fd)
    process.signal(15)
    assert (await reader.read()).decode().split() == ["True"]


@contained
async def test_a_container_among_the_processes_of_another_shows_nothing_of_the_lab(machine: Machine) -> None:
    lab_folder()
    write(SECRET)
    process, reader = machine.talker(f"exec {sys.executable} -I -S -c '{RACER}'", root=Root(FOLDER))
    assert await reader.readline() == b"ready\n"
    look = "readlink /proc/self/ns/pid /proc/self/ns/mnt; cat /proc/1/comm; ls /root /proc/1/root/root; sleep 0.01"
    for _ in range(JOINS // 4):
        pids, mounts, *rest = (await machine.says(look, root=Root(FOLDER), pids=process.id)).split()
        assert pids == os.readlink(f"/proc/{process.pid}/ns/pid") and mounts != os.readlink(f"/proc/{process.pid}/ns/mnt")
        assert rest[0].startswith("python") and not set(rest) & {"secret", "lab"}
    process.signal(15)
    has_seen, *found = (await reader.read()).decode().split()
    assert has_seen == "True" and set(found) <= {"ns/mnt"}, "it has mounts of its own, as any container"


@contained
async def test_a_built_in_program_that_joins_shows_nothing_of_the_lab(machine: Machine) -> None:
    lab_folder()
    write(SECRET)
    container = await machine.running(root=Root(FOLDER))
    joined = machine.start("podplane/client", join=container.id)
    await joined.started()
    script = f"""exec 2>/dev/null; for pid in $(ls /proc | grep '^[0-9]'); do
        [ "$(tr -d '\\0' </proc/$pid/cmdline | cut -c-15)" = podplane/client ] || continue
        echo seen; readlink /proc/$pid/fd/* | grep -v /dev/null; cat /proc/$pid/root{SECRET}
        readlink /proc/$pid/ns/user /proc/self/ns/user | sort -u | wc -l
    done"""
    assert (await machine.says(script, join=container.id)).split() == ["seen", "1"]


@contained
async def test_the_memory_of_a_built_in_program_has_no_words_of_others(machine: Machine) -> None:
    lab_folder()
    words = [f"word-{number}-of-another-pod" for number in range(200)]
    variables = {f"SECRET_{number}": f"variable-{number}-of-another-pod" for number in range(200)}
    assert await ends(machine.start("true", *words, env=PATH | variables, root=Root(FOLDER))) == 0
    process = machine.start("podplane/echo", env={"OWN": "its-own-variable"}, root=Root(FOLDER))
    await process.started()
    memory = memory_of(process.pid)
    found = {text: memory.count(text) for text in (b"its-own-variable", b"-of-another-pod")}
    assert found.pop(b"its-own-variable") > 0
    assert found == {b"-of-another-pod": 0}


def memory_of(pid: int) -> bytes:
    """All that a process may write to."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, access, *_ = line.split()
            if access.startswith("rw"):
                start, end = (int(word, 16) for word in area.split("-"))
                memory.seek(start)
                found.append(memory.read(end - start))
    return b"".join(found)


KEYS = """
import ctypes, sys
libc = ctypes.CDLL(None)
KEYCTL, SESSION = int(sys.argv[1]), -3
if libc.syscall(KEYCTL, 10, SESSION, b"user", b"secret", 0) >= 0:
    print("found")
if len(sys.argv) > 2 and libc.syscall(KEYCTL - 2, b"user", b"secret", b"x", 1, SESSION) >= 0:
    print("added")
"""


@contained
async def test_session_keyrings_are_not_inherited(_: Machine) -> None:
    (lab_folder() / "keys.py").write_text(KEYS)
    number = syscalls.SYS_KEYCTL[os.uname().machine]
    libc = ctypes.CDLL(None)
    syscalls.join_new_session_keyring()
    assert libc.syscall(number - 2, b"user", b"secret", b"x", 1, syscalls.KEY_SPEC_SESSION_KEYRING) >= 0
    assert libc.syscall(number, 10, syscalls.KEY_SPEC_SESSION_KEYRING, b"user", b"secret", 0) >= 0
    machine = Machine()
    root = Root(FOLDER, [Bind(f"{FOLDER}/keys.py", "/keys.py", read_only=True)])
    look = f"python3 /keys.py {number}"
    container = await machine.running(f"{look} add >/tmp/said", root=root)
    assert await machine.says(f"cat /tmp/said; {look}", join=container.id) == "added"
    assert await machine.says(look, root=root) == ""


@contained
async def test_containers_that_can_use_no_keys_have_no_keyring_of_their_own(machine: Machine) -> None:
    """A user may have 200 keys (kernel.keys.maxkeys), and all pods may be one user. Others may be that user at the same time."""
    lab_folder()
    count = 'awk \'$1 == 0 || $1 == "0:" {split($4, part, "/"); print part[1]}\' /proc/key-users'
    options = {"root": Root(FOLDER), "rights": Rights(is_filtered=True)}
    before = int(await machine.says(count, **options))
    held = [await machine.running(**options) for _ in range(20)]
    assert int(await machine.says(count, **options)) < before + len(held) // 2

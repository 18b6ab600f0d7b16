"""Containers in one PID namespace: they see each other, what one leaves behind ends with it, and all of it ends with process 1."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from podplane.kernel import zygote_processes
from podplane.kernel.rootfs import Root
from podplane.kernel.user_limits import MAX_PROCESSES
from podplane.kernel.zygote_messages import LAB
from podplane.kernel.zygote_process import ZygoteProcess
from tests.attack.test_stopped import STOPPER
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, alive, contained, ends, until

pytestmark = pytest.mark.kernel


async def pause(machine: Machine) -> ZygoteProcess:
    """Process 1 of a namespace that containers are to share."""
    lab_folder()
    process = machine.start("/pause", root=Root(FOLDER), program="podplane/client")
    await process.started()
    return process


def commands(pid: int) -> list[str]:
    """What runs in the mount namespace of a process: names of commands, by process id."""
    found, own = [], os.readlink(f"/proc/{pid}/ns/mnt")
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(place / "ns/mnt") == own:
                found.append((place / "comm").read_text().strip())
    return sorted(found)


LEAVES = "sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & (setsid sh -c 'sleep 1000; true' >/dev/null 2>&1 &)"

ZOMBIES = (
    "for i in $(seq 100); do sleep 0.1; left=$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z {parent}'); "
    "[ $left = 0 ] && break; done; echo $left"
)
"""Prints how many have ended and are not reaped: 0 as soon as all are, on a busy machine later than on others."""

LEFT = ["sh", "sleep", "sleep", "sleep", "sleep"]
"""What runs then, with the container's own process."""


@contained
async def test_they_see_each_other_and_process_1_is_pause(machine: Machine) -> None:
    first = await pause(machine)
    one = await machine.running(root=Root(FOLDER), pids=first.id)
    other = await machine.running(root=Root(FOLDER), pids=first.id)
    said = await machine.says("tr '\\0' ' ' </proc/1/cmdline; echo; cat /proc/[0-9]*/comm | grep -c sleep", join=one.id)
    assert said.split() == ["/pause", "2"]
    spaces = {kind: {os.readlink(f"/proc/{p.pid}/ns/{kind}") for p in (first, one, other)} for kind in ("pid", "mnt", "user")}
    assert {kind: len(found) for kind, found in spaces.items()} == {"pid": 1, "mnt": 3, "user": 1}
    assert await machine.says("kill $(grep -lx sleep /proc/[0-9]*/comm | cut -d/ -f3)", join=one.id) == ""
    assert (await ends(one), await ends(other)) == (143, 143), "one that has no children is told like any other"


@contained
async def test_what_one_leaves_behind_has_ended_when_its_end_is_told(machine: Machine) -> None:
    first = await pause(machine)
    one = await machine.running(LEAVES, root=Root(FOLDER), pids=first.id)
    other = await machine.running(LEAVES, root=Root(FOLDER), pids=first.id)
    await until(lambda: (commands(one.pid), commands(other.pid)) == (LEFT, LEFT))
    joined = await machine.running(join=one.id)
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    mounts = os.readlink(f"/proc/{one.pid}/ns/mnt")
    os.kill(one.pid, signal.SIGKILL)
    assert await ends(one) == 137
    for pid in seen:
        with contextlib.suppress(OSError):
            assert os.readlink(f"/proc/{pid}/ns/mnt") != mounts
    assert await ends(joined) == 137
    assert commands(other.pid) == LEFT


@contained
async def test_what_has_no_parent_any_more_is_reaped(machine: Machine) -> None:
    first = await pause(machine)
    script = f"for i in 1 2 3 4 5; do (setsid sh -c 'exit 0' &); done; {ZOMBIES.format(parent='1 ')}"
    assert await machine.says(script, root=Root(FOLDER), pids=first.id) == "0"


@contained
async def test_all_of_it_ends_with_process_1(machine: Machine) -> None:
    first = await pause(machine)
    every = [await machine.running(LEAVES, root=Root(FOLDER), pids=first.id) for _ in range(2)]
    first.signal(signal.SIGKILL)
    assert [await ends(one) for one in (first, *every)] == [137] * 3
    await until(lambda: not any(alive(one.pid) for one in every))
    late = machine.start("true", root=Root(FOLDER), pids=first.id)
    assert await ends(late) == 126
    assert late.error == "true: can't be started: its container has ended"


@contained
async def test_one_among_the_processes_of_the_lab_sees_them_and_leaves_none(machine: Machine) -> None:
    """So is a container with `hostPID`, where `up` allowed that."""
    lab_folder()
    zygote = machine.processes.pid
    one = await machine.running(LEAVES, root=Root(FOLDER), pids=LAB)
    await until(lambda: commands(one.pid) == LEFT)
    assert os.readlink(f"/proc/{one.pid}/ns/pid") == os.readlink(f"/proc/{zygote}/ns/pid")
    joined = await machine.running("sleep 1000 >/dev/null 2>&1 &", join=one.id)
    own = await machine.running(root=Root(FOLDER))
    ask = "sed -n 's/^Max processes *[0-9]* *\\([0-9]*\\) .*/\\1/p' /proc/self/limits"
    most = [int(await machine.says(ask, **where)) for where in ({"join": one.id}, {"root": Root(FOLDER), "pids": LAB})]
    assert max(most) <= MAX_PROCESSES, "no namespace of its own bounds their number"
    seen = set((await machine.says("cd /proc; echo [0-9]*", join=one.id)).split())
    assert {str(process.pid) for process in (one, joined, own)} | {str(zygote)} <= seen
    assert await machine.says(f"(setsid sh -c 'exit 0' &); {ZOMBIES.format(parent='')}", join=one.id) == "0"
    mounts = os.readlink(f"/proc/{one.pid}/ns/mnt")
    one.signal(signal.SIGKILL)
    assert [await ends(process) for process in (one, joined)] == [137] * 2
    left = [name for name in seen if _mounts(name) == mounts]
    assert (left, alive(own.pid), alive(zygote)) == ([], True, True)


def _mounts(pid: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt")
    return ""


@contained
async def test_descriptors_do_not_pile_up(machine: Machine) -> None:
    first = await pause(machine)
    places = ("/proc/self/fd", f"/proc/{machine.processes.pid}/fd")
    await ends(machine.start("true", root=Root(FOLDER), pids=first.id))
    before = [len(os.listdir(place)) for place in places]
    await asyncio.gather(*(ends(machine.start("true", root=Root(FOLDER), pids=first.id)) for _ in range(10)))
    await until(lambda: all(len(os.listdir(place)) <= known for place, known in zip(places, before, strict=True)))


@contained
async def test_the_end_of_one_is_told_though_others_stop_what_comes(machine: Machine) -> None:
    """Where all have one user, they may stop whoever comes into their namespace."""
    zygote_processes.LEFT_SECONDS = 0.2  # of the process of this test alone
    first = await pause(machine)
    one = await machine.running(root=Root(FOLDER), pids=first.id)
    _, reader = machine.talker(f"exec {sys.executable} -I -S -c '{STOPPER}'", root=Root(FOLDER), pids=first.id)
    assert await reader.readline() == b"ready\n"
    one.signal(signal.SIGKILL)
    assert await ends(one) == 137
    assert not machine.processes._leaving

"""Children of the zygote that wait to be containers: whoever comes next gets one, and their end harms nobody."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Bind, Root
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, alive, contained, ends, until

pytestmark = pytest.mark.kernel


def waiting(machine: Machine) -> list[int]:
    """The children of the zygote."""
    zygote = machine.processes.pid
    return [int(word) for word in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()]


async def spare(machine: Machine) -> int:
    """The one that waits, after a container that has ended."""
    assert await ends(machine.start("true", sandbox=machine.processes.make_sandbox().id)) == 0
    await until(lambda: len(waiting(machine)) == 1)
    return await ready(machine, waiting(machine)[0])


async def ready(machine: Machine, pid: int) -> int:
    """This one, which has got ready, and of which the zygote knows it: both wait. Before that no container is given to it."""
    await until(lambda: sleeps(pid))
    await until(lambda: sleeps(machine.processes.pid))
    return pid


def sleeps(pid: int) -> bool:
    """Does it wait for something, other than a device or a lock of the kernel?"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@contained
async def test_the_next_container_is_the_one_that_waited(machine: Machine) -> None:
    sandbox = machine.processes.make_sandbox()
    pid = await spare(machine)
    process = machine.start("sleep", "1000", sandbox=sandbox.id, hostname="next")
    await process.started()
    assert process.pid == pid
    await until(lambda: len(waiting(machine)) == 2)
    said = await machine.says("echo $$ $(hostname)", sandbox=sandbox.id, hostname="other")
    assert said == "1 other"
    process.signal(signal.SIGKILL)
    assert await ends(process) == 137


@contained
async def test_it_holds_two_sockets_alone(machine: Machine) -> None:
    pid = await spare(machine)
    await until(lambda: len(os.listdir(f"/proc/{pid}/fd")) == 5)
    held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert sum(name.startswith("socket:") for name in held) == 2


@contained
async def test_a_container_starts_when_the_one_that_waited_was_killed(machine: Machine) -> None:
    pid = await spare(machine)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: waiting(machine) == [])
    assert await ends(machine.start("sh", "-c", "exit 7", sandbox=machine.processes.make_sandbox().id)) == 7


@contained
async def test_it_ends_with_the_zygote(machine: Machine) -> None:
    pid = await spare(machine)
    os.kill(machine.processes.pid, signal.SIGKILL)
    await until(lambda: not alive(pid))
    await until(lambda: machine.losses == 1)


@contained
async def test_as_many_wait_as_a_lab_is_going_to_need(machine: Machine) -> None:
    machine.processes.make_ahead(3, (), None, Rights())
    await until(lambda: len(waiting(machine)) == 3)
    waited = waiting(machine)
    await ready(machine, waited[-1])
    sandbox = machine.processes.make_sandbox().id
    several = [machine.start("sleep", "1000", sandbox=sandbox) for _ in range(4)]
    for one in several:
        await one.started()
    assert [one.pid for one in several[:3]] == waited
    assert several[3].pid not in waited
    for one in several:
        one.signal(signal.SIGKILL)
        assert await ends(one) == 137


@contained
async def test_those_that_nobody_needs_any_more_end(machine: Machine) -> None:
    machine.processes.make_ahead(4, (), None, Rights())
    await until(lambda: len(waiting(machine)) == 4)
    machine.processes.make_ahead(1, (), None, Rights())
    await until(lambda: len(waiting(machine)) == 1)
    last = await ready(machine, waiting(machine)[0])
    process = machine.start("sleep", "1000", sandbox=machine.processes.make_sandbox().id)
    await process.started()
    assert process.pid == last


async def begun(machine: Machine, root: Root) -> int:
    """One that waits, with the beginning of such a file system, and no other."""
    machine.processes.make_ahead(0, (), None, Rights())
    await until(lambda: len(waiting(machine)) == 0)
    machine.processes.make_ahead(1, (), root, Rights())
    await until(lambda: len(waiting(machine)) == 1)
    pid = waiting(machine)[0]
    await until(lambda: "overlay" in Path(f"/proc/{pid}/mounts").read_text())
    return await ready(machine, pid)


async def listed(machine: Machine, root: Root, pid: int) -> list[str]:
    """What a container says of its mounts and of what lies in /, which is this process, or any other with 0."""
    below = "ls -lA --time-style=+ / | grep -v ' proc$' | tr -s ' '"
    script = f"cut -d' ' -f2-3 /proc/mounts | sort; {below}; cat /etc/hosts; echo $(cat /usr/own/key)"
    process, reader = machine.talker(script, root=root, sandbox=machine.processes.make_sandbox().id)
    said = (await reader.read()).decode().splitlines()
    await process.exited
    assert (process.pid == pid) is bool(pid)
    return said


@contained
async def test_a_file_system_that_was_begun_is_as_any_other(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "hosts").write_text("127.0.0.1\tlocalhost\n")
    (folder / "volume").mkdir()
    (folder / "volume" / "key").write_text("value\n")
    alike = Root(FOLDER, last_words="/dev/termination-log")
    hosts = Bind(f"{FOLDER}/hosts", "/etc/hosts", copied=True)
    volumes = [Bind(f"{FOLDER}/volume", target, read_only=True) for target in ("/run/secrets/own", "/etc/some/where", "/data")]
    root = msgspec.structs.replace(alike, binds=[hosts, *volumes])
    plain = await listed(machine, root, 0)
    assert "127.0.0.1\tlocalhost" in plain
    assert await listed(machine, root, await begun(machine, alike)) == plain


@contained
async def test_a_file_system_with_a_mount_below_one_that_was_begun_is_made_anew(machine: Machine) -> None:
    said = await made_anew(machine, binds=[Bind(f"{FOLDER}/volume", "/usr/own", read_only=True)])
    assert said[-1] == "value" and is_made_once(said)


@contained
async def test_a_file_system_of_another_size_is_made_anew(machine: Machine) -> None:
    said = await made_anew(machine, size=1 << 20)
    assert said[-1] != "value" and is_made_once(said)


def is_made_once(said: list[str]) -> bool:
    return sum(line.startswith("/usr overlay") for line in said) == 1


async def made_anew(machine: Machine, **other: Any) -> list[str]:
    """What is in a file system that differs so from one that was begun; it is what is in one of which nothing was."""
    folder = lab_folder()
    (folder / "volume").mkdir()
    (folder / "volume" / "key").write_text("value\n")
    alike = Root(FOLDER)
    pid = await begun(machine, alike)
    root = msgspec.structs.replace(alike, **other)
    said = await listed(machine, root, pid)
    assert await listed(machine, root, 0) == said
    return said


@contained
async def test_one_that_can_not_get_ready_is_followed_by_no_other(machine: Machine) -> None:
    machine.processes.make_ahead(50, (), Root("/nowhere"), Rights())
    sandbox = machine.processes.make_sandbox().id
    assert await ends(machine.start("sh", "-c", "exit 7", sandbox=sandbox)) == 7
    await until(lambda: not waiting(machine))

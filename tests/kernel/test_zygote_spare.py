"""Children of the zygote that wait to be containers: whoever comes next gets one, and their end harms nobody."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from podplane.kernel.rights import Rights
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
    return waiting(machine)[0]


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
    last = waiting(machine)[0]
    process = machine.start("sleep", "1000", sandbox=machine.processes.make_sandbox().id)
    await process.started()
    assert process.pid == last

"""Containers whose start never ends, and many that start at once: neither delays what joins another, as commands of probes do."""

from __future__ import annotations

import os

import pytest

from podplane.kernel import zygote_processes
from podplane.kernel.rootfs import Bind, Root
from podplane.kernel.zygote_processes import MAX_STARTING
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained, ends, until

pytestmark = pytest.mark.kernel


@contained
async def test_starts_that_hang_delay_nobody_else(machine: Machine) -> None:
    os.mkfifo(lab_folder() / "never")
    zygote_processes.SLOW_SECONDS = 0.3  # of the process of this test alone
    running = await machine.running(root=Root(FOLDER))
    hanging = Root(FOLDER, [Bind(f"{FOLDER}/never", "/etc/never", copied=True)])
    stuck = [machine.start("true", root=hanging, sandbox=machine.processes.make_sandbox().id) for _ in range(2 * MAX_STARTING)]
    assert await ends(machine.start("true", join=running.id)) == 0, "as a probe's command"
    await until(lambda: sum(one.pid > 0 for one in stuck) >= MAX_STARTING)
    assert await ends(machine.start("true", root=Root(FOLDER))) == 0, "another container has its turn"
    assert not any(one.is_over_starting for one in stuck)
    for one in stuck:
        one.signal(9)
    assert {await ends(one) for one in stuck} == {137}
    assert not machine.processes._starting


@contained
async def test_what_joins_waits_for_none_of_many_that_start(machine: Machine) -> None:
    lab_folder()
    running = await machine.running(root=Root(FOLDER))
    many = [machine.start("true", root=Root(FOLDER), sandbox=machine.processes.make_sandbox().id) for _ in range(100)]
    assert await ends(machine.start("true", join=running.id)) == 0
    assert sum(one.is_over_starting for one in many) <= len(many) // 2, "it was there before most of them"
    assert {await ends(one) for one in many} == {0}


@contained
async def test_one_pod_that_starts_many_keeps_no_other_waiting_for_all(machine: Machine) -> None:
    lab_folder()
    own = machine.processes.make_sandbox().id
    many = [machine.start("true", root=Root(FOLDER), sandbox=own) for _ in range(100)]
    assert await ends(machine.start("true", root=Root(FOLDER), sandbox=machine.processes.make_sandbox().id)) == 0
    assert sum(one.is_over_starting for one in many) <= len(many) // 2
    assert {await ends(one) for one in many} == {0}


@contained
async def test_file_systems_that_nobody_wants_any_more_are_not_made(machine: Machine) -> None:
    lab_folder()
    for _ in range(20):
        machine.processes.make_sandbox()
    mounts = machine.processes.make_mounts([])
    mounts.release()
    mounts.release()
    with pytest.raises(OSError, match="nobody wants it any more"):
        await mounts.made()
    await machine.processes.make_sandbox().netns()
    assert not machine.processes._places

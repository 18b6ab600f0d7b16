"""Limits of containers in control groups of version 2, from the hierarchy to the process that is killed. Where controllers belong to
version 1, these run in a virtual machine (`make test-vm`)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.kernel import cgroups
from podplane.kernel.cgroups import Group, Groups, Limits
from podplane.kernel.rootfs import Root
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained, ends

pytestmark = pytest.mark.kernel
MOUNTS = [
    one
    for one in cgroups.mounts(*(Path(f"/proc/self/{name}").read_text() for name in ("mountinfo", "cgroup")))
    if one.version == 2
]
FREE = set(Path(MOUNTS[0].point, cgroups.AVAILABLE).read_text().split()) if MOUNTS else set()
if os.getuid() != 0 or not set(cgroups.CONTROLLERS) <= FREE:
    pytest.skip("no root, or memory, cpu and pids do not belong to control groups of version 2 here", allow_module_level=True)


@pytest.fixture
def groups() -> Iterator[Groups]:
    """Those of a lab that root runs."""
    held: list[int] = []
    name = f"{cgroups.PREFIX}test-{secrets.token_hex(4)}"
    made = cgroups.prepare(name, held, is_root=True)
    made.bound(Limits(memory=1 << 40, processes=1000))
    try:
        yield made
    finally:
        for fd in held:
            os.close(fd)
        for one in made.hierarchies:
            cgroups.remove(one.folder)
            assert not os.path.exists(one.folder), "nothing is left in it"


def made_of(groups: Groups, limits: Limits) -> Group:
    group = groups.of_container(f"c-{secrets.token_hex(4)}", limits)
    assert group is not None
    return group


def limit_of(folder: str) -> str:
    """Bytes of memory of the container whose processes are in this group."""
    return Path(os.path.dirname(folder), "memory.max").read_text()


HOG = "exec python3 -c 'print(len(bytearray(100 << 20)))'"
FORKS = """exec python3 -c '
import os, time
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            time.sleep(100)
        made += 1
except OSError:
    pass
print(made)'"""
BUSY = """exec python3 -c '
from time import process_time, time
began, first = time(), process_time()
while process_time() < first + 0.3: pass
print((process_time() - first) / (time() - began) < 0.5)'"""


async def says(machine: Machine, groups: Groups, limits: Limits, script: str) -> tuple[str, bool]:
    """What a container of these limits says, and whether it lacked memory; its groups are removed."""
    group = made_of(groups, limits)
    process, reader = machine.talker(script, root=Root(FOLDER), group=group)
    said = (await reader.read()).decode().strip()
    await process.exited
    return said, cgroups.end(group)


def test_all_pods_together_are_bounded(groups: Groups) -> None:
    assert groups.controllers == {"memory", "cpu", "pids"}
    (one,) = groups.hierarchies
    assert Path(one.folder, "pids.max").read_text() == "1000\n"
    assert Path(one.folder, "memory.max").read_text() == f"{1 << 40}\n"
    assert Path(one.folder, cgroups.REST, "cpu.weight").read_text() == "1\n"


def test_who_takes_too_much_memory_is_killed_and_that_is_known(groups: Groups) -> None:
    @contained
    async def run(machine: Machine) -> None:
        lab_folder()
        assert await says(machine, groups, Limits(memory=48 << 20), HOG) == ("", True)
        assert await says(machine, groups, Limits(memory=400 << 20), HOG) == (str(100 << 20), False)
        assert await says(machine, groups, Limits(), HOG) == (str(100 << 20), False)

    run()


def test_processes_and_processors_are_limited(groups: Groups) -> None:
    @contained
    async def run(machine: Machine) -> None:
        lab_folder()
        said, _ = await says(machine, groups, Limits(processes=20), FORKS)
        assert 0 < int(said) < 20
        assert await says(machine, groups, Limits(cpu=100), BUSY) == ("True", False)

    run()


TRIES = """exec 2>/dev/null; mkdir /tmp/g; mount -t cgroup2 none /tmp/g && echo mounted; cat /proc/self/cgroup
    find /tmp/g -name memory.max | while read f; do echo 900000000 >$f && echo raised; done
    mkdir /tmp/g/new && for i in $(seq 80); do mkdir /tmp/g/new/$i || break; done; ls -d /tmp/g/new/[0-9]* | wc -l; rmdir /tmp/g/new/*"""


def test_it_is_the_root_of_what_it_sees_and_can_not_raise_its_limits(groups: Groups) -> None:
    @contained
    async def run(machine: Machine) -> None:
        lab_folder()
        group = made_of(groups, Limits(memory=64 << 20))
        (folder,) = group.folders
        process, reader = machine.talker(TRIES, root=Root(FOLDER), group=group)
        mounted, place, made = (await reader.read()).decode().split()
        await ends(process)
        assert (mounted, place) == ("mounted", "0::/")
        assert 0 < int(made) < int(cgroups.MAX_GROUPS)
        assert limit_of(folder) == f"{64 << 20}\n"
        assert cgroups.end(group) is False

    run()

"""A container that writes all it can: there is an end to it everywhere, and nobody else has less room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podplane.kernel.rootfs import Bind, Root
from podplane.kernel.volumes import BYTES_PER_FILE
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained, ends

pytestmark = pytest.mark.kernel
SIZE = 4 << 20
PLACES = ("", "tmp", "run", "dev", "dev/shm", "etc", "usr", "var/log", "root", "dev/termination-log", "etc/hosts")


def etc(folder: Path) -> list[Bind]:
    """A file of the lab that a container may write to."""
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    return [Bind(f"{FOLDER}/hosts", "/etc/hosts", copied=True)]


@contained
async def test_what_is_written_outside_of_volumes_has_one_bound(machine: Machine) -> None:
    folder = lab_folder()
    root = Root(FOLDER, etc(folder), size=SIZE, last_words="/dev/termination-log")
    script = f"""exec 2>/dev/null; for place in {" ".join(f"/{place}" for place in PLACES)}; do
            [ -f $place ] && file=$place || file=$place/filled
            head -c {2 * SIZE} /dev/zero >$file; stat -c %s $file
        done"""
    sizes = [int(line) for line in (await machine.says(script, root=root)).split()]
    assert len(sizes) == len(PLACES) and 0 < sum(sizes) <= SIZE
    assert (folder / "hosts").read_text() == "127.0.0.1 localhost\n"
    assert await machine.says(f"head -c {SIZE // 2} /dev/zero >/tmp/file && echo written", root=root) == "written"


@contained
async def test_the_number_of_files_has_a_bound(machine: Machine) -> None:
    lab_folder()
    script = "import os\nfor n in range(10**6): os.close(os.open(f'/tmp/{n}', os.O_CREAT))"
    assert await ends(machine.start("python3", "-c", script, root=Root(FOLDER, size=SIZE))) == 1
    script = script.replace("10**6", str(SIZE // BYTES_PER_FILE // 2))
    assert await ends(machine.start("python3", "-c", script, root=Root(FOLDER, size=SIZE))) == 0


@contained
async def test_a_termination_message_is_read_from_the_containers_own_file(machine: Machine) -> None:
    folder = lab_folder()
    before = sorted(os.listdir(folder))
    for path in ("/dev/termination-log", "/etc/new/er", "/top", "/usr/lib/words"):
        root = Root(FOLDER, size=SIZE, last_words=path)
        process = machine.sh(f"rm {path} 2>/dev/null; head -c 100000 /dev/zero | tr '\\0' x >{path}; sleep 0.01", root=root)
        assert await ends(process) == 0
        assert process.last_words == b"x" * 4096
    assert sorted(os.listdir(folder)) == before
    assert await ends(process := machine.start("podplane/agnhost", "help", root=root)) == 0
    assert process.last_words == b""


@contained
async def test_what_a_container_wrote_is_freed_at_its_end(machine: Machine) -> None:
    lab_folder()
    await ends(machine.sh("true", root=Root(FOLDER)))
    held = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        process = machine.sh("echo last >/dev/termination-log", root=Root(FOLDER, last_words="/dev/termination-log"))
        assert await ends(process) == 0
        assert process.last_words == b"last\n"
    assert len(os.listdir("/proc/self/fd")) == held

"""Paths that a pod chooses, through links that it made: whatever they lead to, nothing outside of the container is read or changed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.kernel import syscalls
from podplane.kernel.rootfs import Bind, Root
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained, ends

pytestmark = pytest.mark.kernel
DESCRIPTORS = range(10, 30)
LINKS = {
    "root": "/",
    "up": "../" * 9,
    "lab": FOLDER,
    "self": "/proc/self/root",
    "one": "/proc/1/root",
    "cwd": "/proc/self/cwd",
    "thread": "/proc/thread-self/root",
    **{f"fd{n}": f"/proc/self/fd/{n}" for n in DESCRIPTORS},
    **{f"above{n}": f"/proc/self/fd/{n}/../../.." for n in DESCRIPTORS},
}
"""Links in a volume, by their names. A descriptor may be that of another part of a volume, from which `..` leads further."""
BELOW = ("made", f"{FOLDER.strip('/')}/made", "srv/made", "secret")


def world() -> dict[str, str]:
    """What a container may not change: the lab's folder, but the volume, and the machine's."""
    folders = [FOLDER, "/srv", "/", "/etc"]
    found = {f"{folder} {name}": "" for folder in folders for name in os.listdir(folder)}
    for path in (Path(FOLDER, "secret"), Path("/srv/secret")):
        found[str(path)] = path.read_text()
    return found | {"below": " ".join(sorted(os.listdir(f"{FOLDER}/other")))}


def prepared() -> list[Bind]:
    """A volume with the links, of which a part is mounted too, and another one."""
    folder = lab_folder()
    syscalls.mount("tmpfs", "/srv", "tmpfs", 0)
    for name in ("volume/part/deep", "other"):
        (folder / name).mkdir(parents=True)
    for path in (folder / "secret", Path("/srv/secret")):
        path.write_text("classified\n")
    for name, to in LINKS.items():
        (folder / "volume" / name).symlink_to(to)
    part = Bind(f"{FOLDER}/volume", "/part", below="part/deep")
    return [Bind(f"{FOLDER}/volume", "/data"), part, Bind(f"{FOLDER}/volume", "/zpart", below="part/deep")]


def paths() -> Iterator[str]:
    """Where things are to be mounted, or made."""
    for link, below in itertools.product(LINKS, BELOW):
        if below == BELOW[0] or not link[-1].isdigit():
            yield f"/data/{link}/{below}"
    for odd in ("/proc/self/root", "/proc/1/cwd", "/proc/self/fd/5", "/../..", "/data/..", "/dev/fd/7"):
        yield f"{odd}/{BELOW[1]}"


@contained
async def test_no_mount_path_leads_out(machine: Machine) -> None:
    binds = prepared()
    before = world()
    for number, path in enumerate(paths()):
        # the place of a volume, and that of a termination message; the former in the middle of the others
        root = Root(FOLDER, [binds[0], Bind(f"{FOLDER}/other", path), *binds[1:]])
        if number % 2:
            root = Root(FOLDER, binds, last_words=path)
        await ends(machine.start("true", root=root))
        assert world() == before, path


@contained
async def test_no_host_path_and_no_working_directory_leads_out(machine: Machine) -> None:
    binds = prepared()
    before = world()
    for path in itertools.islice(paths(), 0, None, 4):
        root = Root(FOLDER, [*binds, Bind(path, "/seen", inside=True)])
        script = "exec 2>/dev/null; touch /seen/x y; cat /seen/secret /seen/srv/secret secret srv/secret; true"
        assert await machine.says(script, root=root, directory=path) == "", path
        assert world() == before, path


OVER = ("/srv", "/etc", "/usr/share", "/data/part", "/tmp/x", "/dev/shm", "/dev", "/proc/sys", "/opt/new", FOLDER)
"""Where a second volume is mounted: a link of the first one leads below it."""


@contained
async def test_what_is_mounted_below_another_volume_through_a_link_stays_in_that(machine: Machine) -> None:
    binds = prepared()
    third = lab_folder_of("third")
    before = world()
    for number, over in enumerate(OVER):
        for name, to in ((f"over{number}", over), (f"rel{number}", f"../../..{over}")):
            os.symlink(to, f"{FOLDER}/volume/{name}")
            second = Bind(f"{FOLDER}/volume/part", over)
            root = Root(FOLDER, [binds[0], second, Bind(third, f"/data/{name}/deep/made{number}")])
            process = machine.sh(f"touch {over}/deep/made{number}/{name}", root=root)
            await ends(process)
            assert world() == before, over
            if not process.error:
                assert name in os.listdir(third), f"the third volume is not seen below {over}"
    assert {f"over{OVER.index(over)}" for over in ("/srv", "/etc", "/tmp/x", "/dev/shm", "/opt/new")} <= set(os.listdir(third))


def lab_folder_of(name: str) -> str:
    """One more volume."""
    path = f"{FOLDER}/{name}"
    os.mkdir(path)
    return path


FLIPS = ("/", "../" * 9, FOLDER, "/proc/self/root", "/proc/self/fd/12/../../..", "part", ".", "/zpart")
FLIPPER = f"""
import itertools, os
os.mkdir("/data/dir")
print("ready", flush=True)
for number, to in enumerate(itertools.cycle({FLIPS!r})):
    try:
        os.symlink(to, f"/data/dir/{{number}}")
        os.rename(f"/data/dir/{{number}}", "/data/flip")
        if number % 3 == 0:
            os.unlink("/data/flip")
            os.mkdir("/data/flip")
            os.rename("/data/flip", f"/data/dir/made{{number}}")
    except OSError:  # a container that is being made was faster, and made a folder
        os.rename("/data/flip", f"/data/dir/other{{number}}")
"""
"""Moves a link all the time, which leads elsewhere each time, and is a folder now and then."""


@contained
async def test_links_that_change_all_the_time_lead_nothing_out(machine: Machine) -> None:
    binds = prepared()
    before = world()
    flipper, reader = machine.talker(f"exec python3 -c '{FLIPPER.replace(chr(39), chr(34))}'", root=Root(FOLDER, binds))
    assert await reader.readline() == b"ready\n"
    for number in range(24):
        through = "/data/flip/" + BELOW[number % len(BELOW)] + str(number)
        more = (
            Root(FOLDER, [binds[0], Bind(f"{FOLDER}/other", through), binds[2]]),
            Root(FOLDER, binds, last_words=through),
            Root(FOLDER, [*binds, Bind(f"{FOLDER}/volume", "/seen", below=f"flip/srv/made{number}", makes_below=True)]),
            Root(FOLDER, [*binds, Bind(through, "/seen", inside=True)]),
        )[number % 4]
        await ends(machine.sh("touch /seen/x", root=more))
        assert world() == before, through
    assert not flipper.exited.done()

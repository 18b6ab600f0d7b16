"""What is told of containers that do not start: the owner of a pod learns from it no path of the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from podplane.kernel.cgroups import Group
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Bind, Root
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained

pytestmark = pytest.mark.kernel
PLACES = (FOLDER, "/sys/fs", "/gone/", sys.prefix, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def faults() -> Iterator[dict[str, object]]:
    """What may be wrong of a container, or of the lab, when it is started."""
    whole = Root(FOLDER)
    yield {"root": Root("/gone/lab")}
    yield {"root": Root(FOLDER, size=1)}
    yield {"root": Root(FOLDER, layers="/gone/layers", binds=[Bind("/gone/source", "/data")])}
    yield {"root": Root(FOLDER, [Bind(f"{FOLDER}/file", "/usr")])}
    yield {"root": Root(FOLDER, [Bind("/gone/source", "/data", below="part")])}
    yield {"root": Root(FOLDER, [Bind(f"{FOLDER}/file", "/data", below="part")])}
    yield {"root": Root(FOLDER, [Bind(FOLDER, "/data", below="gone")])}
    yield {"root": Root(FOLDER, [Bind("/gone/file", "/etc/hosts", copied=True)])}
    yield {"root": Root(FOLDER, [Bind(FOLDER, "/proc/gone")])}
    yield {"root": Root(FOLDER, [Bind(FOLDER, "/data\0")])}
    yield {"root": Root(FOLDER, last_words="/proc/gone")}
    yield {"root": Root(FOLDER, sysctls={"net.gone": "1"})}
    yield {"root": whole, "group": Group(folders=("/sys/fs/cgroup/gone/group",))}
    yield {"root": whole, "group": Group(folders=("/gone/group/inner",), files=(("/gone/group/memory.max", "1"),))}
    yield {"root": whole, "group": Group(files=(("/sys/fs/cgroup/memory.limit", "1"),))}
    yield {"root": whole, "mounts": 77}
    yield {"root": whole, "join": 77}
    yield {"root": whole, "sandbox": 77}
    yield {"root": whole, "rights": Rights(user=1000)}
    yield {"root": whole, "rights": Rights(groups=(7,))}
    yield {"root": whole, "oom": 99999}
    yield {"root": whole, "directory": "/none"}
    yield {"root": whole, "hostname": "x" * 100}


@contained
async def test_why_a_container_does_not_start_names_no_path_of_the_machine(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "file").touch()
    for fault in faults():
        process = machine.sh("exit 0", **fault)
        await process.exited
        assert process.error, f"it starts: {fault}"
        assert not [place for place in PLACES if place in process.error], process.error
        assert "\n" not in process.error and "Traceback" not in process.error
    assert await machine.says("echo fine", root=Root(FOLDER)) == "fine"

"""A pod that puts modules of its own where a built-in program imports them: they run, but hold nothing of the lab then."""

from __future__ import annotations

import importlib.util
import os

import pytest

from podplane.kernel import zygote
from podplane.kernel.process import ProcessError
from podplane.kernel.rootfs import Bind, Root
from podplane.kernel.zygote_messages import WHY_BYTES
from tests.attack.importing import MODULES
from tests.kernel import test_zygote
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained

pytestmark = pytest.mark.kernel
FORGED = """
import os
links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
print("the pod's code runs", *(link for link in links if link.startswith("socket")), flush=True)
"""
SAYS = """
for fd in range(3, 30):
    try:
        os.write(fd, b"forged\\n\\x1b[31m" + b"x" * 5000)
    except OSError:
        pass
os._exit(0)
"""


@contained
async def test_no_code_of_a_pod_runs_while_the_socket_of_the_zygote_is_open(_: Machine) -> None:
    began, real = zygote.start("tests.attack.importing"), zygote.start
    zygote.start = lambda _: began
    try:
        machine = test_zygote.Machine()
    finally:
        zygote.start = real
    folder = lab_folder()
    binds = []
    for name in MODULES:
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        (folder / f"{name}.py").write_text(FORGED)
        binds.append(Bind(f"{FOLDER}/{name}.py", found.origin))
        os.utime(folder / f"{name}.py", (1, 1))
    read, write = os.pipe2(os.O_CLOEXEC)
    process = machine.processes.spawn(
        ["importing"],
        (machine.null, write, machine.null),
        sandbox=machine.processes.make_sandbox().id,
        root=Root(FOLDER, binds),
    )
    os.close(write)
    assert await process.exited == 0, process.error
    with os.fdopen(read) as said:
        assert said.read().split("\n") == ["the pod's code runs", "before", "the pod's code runs", "after", ""]
    assert process.ran


@contained
async def test_what_a_pod_says_of_a_start_is_one_short_line_about_itself(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "ssl.py").write_text(FORGED + SAYS)
    os.utime(folder / "ssl.py", (1, 1))
    found = importlib.util.find_spec("ssl")
    assert found is not None and found.origin is not None
    root = Root(FOLDER, [Bind(f"{FOLDER}/ssl.py", found.origin)])
    process = machine.start("podplane/agnhost", "netexec", "--tls-cert-file=/x", "--tls-private-key-file=/y", root=root)
    with pytest.raises(ProcessError):
        await process.started()
    await process.exited
    assert len(process.error) <= WHY_BYTES and process.error.isprintable() and "forged" in process.error

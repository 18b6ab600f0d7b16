"""Terminals of commands that join a container: they are the container's own, and what it puts in the place of their device is not used."""

from __future__ import annotations

import os

import pytest

from podplane.kernel.process import ProcessError
from podplane.kernel.rootfs import Root
from podplane.kernel.zygote_process import ZygoteProcess
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained, ends

pytestmark = pytest.mark.kernel
IN_PLACE_OF_PTMX = {
    "mkfifo /dev/ptmx": "",  # nobody opens its other end
    "touch /dev/ptmx": "is no terminal device",
    "ln -s /dev/null /dev/ptmx": "is no terminal device",
    "ln -s /dev/tty /dev/ptmx": "",
    "ln -s /dev/net/tun /dev/ptmx": "is no terminal device" if os.access("/dev/net/tun", os.R_OK | os.W_OK) else "",
    "ln -s /proc/self/fd/0 /dev/ptmx": "",
    "ln -s ptmx /dev/ptmx": "Too many levels",
    "mkdir /dev/ptmx": "Is a directory",
    "true": "No such file",
    "mknod /dev/ptmx c 5 2": "",
}
"""What a pod does there, after it removed what was there; and what is said of it, "" for what kernels do not agree on."""


async def said_on_terminal(machine: Machine, script: str, **options: object) -> str:
    """All that a script says on a terminal of its own."""
    taken: list[int] = []
    process = machine.sh(script, terminal=taken.append, **options)
    assert await ends(process) == 0, process.error
    found = b""
    try:
        while data := os.read(taken[0], 4096):
            found += data
    except OSError:  # EIO: nobody has the other end any more
        pass
    os.close(taken[0])
    return found.decode().replace("\r", "").strip()


@contained
async def test_terminals_have_names_in_the_container(machine: Machine) -> None:
    lab_folder()
    look = "tty; readlink /proc/self/fd/0; stat -c %u /dev/pts/[0-9]*; ls /dev/pts; exec >/dev/pts/0; echo seen"
    expected = ["/dev/pts/0", "/dev/pts/0", "0", "0", "ptmx", "seen"]
    assert (await said_on_terminal(machine, look, root=Root(FOLDER))).split() == expected
    container = await machine.running(root=Root(FOLDER))
    for _ in range(2):
        assert (await said_on_terminal(machine, look, join=container.id)).split() == expected


@contained
async def test_what_a_pod_puts_in_the_place_of_the_device_is_not_used(machine: Machine) -> None:
    lab_folder()
    container = await machine.running(root=Root(FOLDER))
    assert await machine.says("echo fine", join=container.id) == "fine"  # what its start left open is closed now
    before = os.listdir("/proc/self/fd")
    for script, why in IN_PLACE_OF_PTMX.items():
        await machine.says(f"rm -rf /dev/ptmx; {script}", join=container.id)
        process: ZygoteProcess = machine.sh("exit 0", join=container.id, terminal=os.close)
        with pytest.raises(ProcessError, match="no terminal: "):
            await process.started()
        assert why in process.error, script
        await ends(process)
    assert os.listdir("/proc/self/fd") == before
    assert await machine.says("echo fine", join=container.id) == "fine"

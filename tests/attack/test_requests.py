"""What is asked of the process that starts all containers: no request of a pod ends it, and the lab with it."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from podplane.kernel import zygote_processes
from podplane.kernel.process import ProcessError
from podplane.kernel.rootfs import Root
from podplane.kernel.volumes import Tmpfs
from podplane.kernel.zygote_messages import MESSAGE_BYTES, WHY_BYTES
from podplane.kernel.zygote_processes import ZygoteProcesses
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained, ends


@pytest.mark.kernel
@contained
async def test_more_volumes_than_fit_into_a_message_are_refused(machine: Machine) -> None:
    lab_folder()
    for count in (1000, 3000, 20_000):
        wanted = [Tmpfs(f"{FOLDER}/pods/{'x' * 200}/{number}", 4096) for number in range(count)]
        with pytest.raises(OSError, match=f"{count} at a time are too many") as refused:
            await machine.processes.make_mounts(wanted).made()
        assert refused.value.errno == errno.E2BIG
    assert await ends(machine.start("true", root=Root(FOLDER))) == 0


@pytest.mark.kernel
@contained
async def test_requests_that_make_no_sense_end_nothing(machine: Machine) -> None:
    lab_folder()
    for odd in (*ODD, b"x" * MESSAGE_BYTES):
        machine.processes.connection.send(odd)
    process = machine.sh("exit 0", root=Root(FOLDER, sysctls={"kernel.shm_rmid_forced": "\0" * 40_000}))
    with pytest.raises(ProcessError):
        await process.started()
    assert len(process.error) <= WHY_BYTES
    assert await ends(machine.start("true", root=Root(FOLDER))) == 0
    assert machine.losses == 0


ODD = (b"{", b"{}", b'{"type":"spawn","id":1}', b'{"type":"mounts","id":7,"tmpfs":[{"path":"/a\\u0000","size":1}]}')


class Short(socket.socket):
    """A socket for which the kernel has no memory at first."""

    lacks = 3

    def send(self, *arguments: object) -> int:
        if Short.lacks:
            Short.lacks -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return super().send(*arguments)  # type: ignore[arg-type]


async def test_want_of_memory_for_a_message_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote_processes, "SHORT_SECONDS", 0.001)
    lost: list[int] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        processes = ZygoteProcesses(Short(fileno=ours.detach()), lambda: lost.append(1))
        processes.make_sandbox()
        theirs.setblocking(False)
        async with asyncio.timeout(5):
            assert b"sandbox" in await asyncio.get_running_loop().sock_recv(theirs, 4096)
        assert (lost, Short.lacks) == ([], 0)
        processes.close()

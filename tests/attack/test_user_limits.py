"""A pod that takes all it gets of what the kernel counts by user: other pods, the lab and its user have theirs."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Mapping

import pytest

from podplane.kernel import user_limits
from podplane.kernel.process import Process
from podplane.kernel.rootfs import Root
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained, ends

pytestmark = pytest.mark.kernel
TAKE = """
import ctypes, os, resource, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)

def count(one, most=5000):
    taken = 0
    while taken < most and one(taken) >= 0:
        taken += 1
    return taken

def user_namespace(_):
    pid = os.fork()
    if pid == 0:
        done = libc.unshare(0x10000000) == 0
        os.write(made[1], b"x" if done else b"-")
        signal.pause()
    return 0 if os.read(made[0], 1) == b"x" else -1

def message(number):
    try:
        pairs.append(socket.socketpair())
        pairs[-1][0].setblocking(False)
        while True:
            socket.send_fds(pairs[-1][0], [b"x"], [0] * 250)
    except BlockingIOError:
        return 0
    except OSError:
        return -1

made, pairs = os.pipe(), []
queue = (ctypes.c_long * 8)(0, 10, 8192)
timer = ctypes.c_long()
kinds = {
    "inotify": lambda _: libc.inotify_init(),
    "user_namespaces": user_namespace,
    "timers": lambda _: libc.timer_create(1, None, ctypes.byref(timer)),
    "queues": lambda number: libc.mq_open(b"/q%d" % number, os.O_CREAT | os.O_RDWR, 0o600, queue),
    "messages": message,
    "memory": lambda _: libc.shmget(0, ctypes.c_size_t(int(sys.argv[2])), 0o600),
    "semaphores": lambda _: libc.semget(0, 16000, 0o600),
}
print(count(kinds[sys.argv[1]]), flush=True)
if sys.argv[-1] == "hold":
    signal.pause()
"""


async def takes(machine: Machine, what: str, more: str = "", *, holds: bool) -> tuple[Process, int]:
    """A pod of its own that takes all it gets, and how much that is."""
    words = f"{what} {more} {'hold' if holds else ''}"
    sandbox = machine.processes.make_sandbox().id
    process, reader = machine.talker(f"exec python3 -c '{TAKE}' {words}", root=Root(FOLDER), sandbox=sandbox)
    return process, int(await reader.readline())


LIMITS = {"max_inotify_instances": 56, "max_user_namespaces": 1068}
"""Of which a lab has three quarters: a pod 10, and 50."""


def limited(test: Callable[[Machine], object], kinds: Mapping[int, int] = {}) -> Callable[[], None]:
    """A test in a lab whose user may have little."""

    @contained
    async def run(_: Machine) -> None:
        lab_folder()
        for kind, most in kinds.items():
            resource.setrlimit(kind, (most, most))
        user_limits.in_lab(LIMITS, has_own_user=False)
        await asyncio.ensure_future(test(Machine()))  # type: ignore[arg-type]

    run.__doc__ = test.__doc__
    return run


async def _shares(machine: Machine) -> None:
    for what, most in (("inotify", 10), ("user_namespaces", 50), ("timers", 1000), ("queues", 1)):
        first, taken = await takes(machine, what, holds=True)
        assert 0 < taken <= most, what
        second, left = await takes(machine, what, holds=True)
        assert left == taken, f"{what}: another pod has its own"
        for process in (first, second):
            process.signal(9)
            await process.exited


test_what_is_counted_by_user_is_shared_out = limited(
    _shares, {resource.RLIMIT_SIGPENDING: 4000, resource.RLIMIT_MSGQUEUE: 200_000}
)


async def _messages(machine: Machine) -> None:
    hog, _ = await takes(machine, "messages", holds=True)
    before = asyncio.get_running_loop().time()
    assert await ends(machine.start("true", root=Root(FOLDER))) == 0
    assert asyncio.get_running_loop().time() < before + 5, "the lab passes descriptors on, as before"
    hog.signal(9)
    await hog.exited


test_descriptors_in_messages_of_a_pod_keep_the_lab_from_nothing = limited(_messages, {resource.RLIMIT_NOFILE: 4000})


async def _ipc(machine: Machine) -> None:
    quarter = int(user_limits.IPC["kernel/shmall"]) * resource.getpagesize() // 4 - 4096
    assert (await takes(machine, "memory", str(quarter), holds=False))[1] == 4
    assert (await takes(machine, "semaphores", holds=False))[1] == 16


test_memory_that_belongs_to_no_process_is_bounded = limited(_ipc)


async def _raised(machine: Machine) -> None:
    script = """exec 2>/dev/null
        for file in /proc/sys/user/max_inotify_instances /proc/sys/kernel/shmall; do echo 99999 >$file && echo $file; done
        for letter in i n q; do hard=$(bash -c "ulimit -H$letter"); bash -c "ulimit -H$letter $((hard + 1))" && echo $letter; done
        cat /proc/sys/user/max_inotify_instances"""
    assert await machine.says(script, root=Root(FOLDER)) == "10"
    container = await machine.running(root=Root(FOLDER))
    assert await machine.says("ulimit -n", join=container.id) == "3000", "what joins it has no more"


test_none_of_it_can_be_raised = limited(_raised, {resource.RLIMIT_NOFILE: 4000})

"""The sandbox of a pod: a user namespace, and the network, IPC and UTS namespaces that it owns.

What a pod's processes are allowed, they are allowed in there alone: their capabilities count for what belongs to the user namespace,
and mounts that were made before they entered it are locked (mount_namespaces(7)). The user namespace is made first, so that it owns the
others; who made it has all capabilities in it, and so has the lab.

The namespaces are held by descriptors. A process is born in them and killed: to make a user namespace, or to enter one, needs one thread.
"""

from __future__ import annotations

import fcntl
import os
import signal
from typing import NamedTuple

from podplane.kernel import ids, syscalls, user_limits
from podplane.kernel.ids import Ids
from podplane.kernel.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUSER, CLONE_NEWUTS

KINDS = ("net", "ipc", "uts")
NS_GET_USERNS = 0xB701
"""ioctl_ns(2): a descriptor of the user namespace that owns another namespace."""


class Sandbox(NamedTuple):
    """Descriptors of the namespaces but for the user namespace, which owns these."""

    net: int
    ipc: int
    uts: int

    def close(self) -> None:
        """Let go of them."""
        for fd in self:
            os.close(fd)


def make(users: Ids, user: int = 0, group: int = 0, maker: int = 0) -> Sandbox:
    """New namespaces, with these users; where there is but one, it has these numbers. `maker`: for whom it counts what is used up there
    (`user_limits.as_maker`). OSError says what forbids them.

    The caller has one thread, and reaps its children. Nothing waits for the process that is born in them: that it is there is enough.
    """
    with user_limits.as_maker(maker):
        pid = syscalls.sleep_in(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS, ids.SLEEP_SECONDS)
    try:
        made: list[int] = []
        try:
            made += (os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in KINDS)
            ids.write_maps(pid, *(users.map_of(number) for number in (user, group)))
        except OSError:
            for fd in made:
                os.close(fd)
            raise
    finally:
        os.kill(pid, signal.SIGKILL)
    return Sandbox(*made)


def enter_before_mounts(sandbox: Sandbox) -> None:
    """Into its network, IPC and UTS namespaces; the caller stays in its own user namespace, whose mounts it may still change."""
    syscalls.setns(sandbox.net, CLONE_NEWNET)
    syscalls.setns(sandbox.ipc, CLONE_NEWIPC)
    syscalls.setns(sandbox.uts, CLONE_NEWUTS)


def enter(sandbox: Sandbox, users: Ids) -> None:
    """Into its user namespace, as user 0 there, with a mount and a cgroup namespace that belong to it: all mounts that are there now are
    locked."""
    user = fcntl.ioctl(sandbox.net, NS_GET_USERNS)
    syscalls.setns(user, CLONE_NEWUSER)
    os.close(user)
    if users.size > 1:
        ids.become(0, 0)
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP)

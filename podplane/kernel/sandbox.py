"""The sandbox of a pod: a user namespace, and the network, IPC and UTS namespaces that it owns.

What a pod's processes are allowed, they are allowed in there alone: their capabilities count for what belongs to the user namespace,
and mounts that were made before they entered it are locked (mount_namespaces(7)). The user namespace is made first, so that it owns the
others; who made it has all capabilities in it, and so has the lab.

The namespaces are held by descriptors. A process makes them and ends: to enter another user namespace, or to make one, needs one thread.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from podplane.kernel import syscalls
from podplane.kernel.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUSER, CLONE_NEWUTS

KINDS = ("user", "ipc", "uts", "net")
MAP = "0 0 1"
"""User 0 of the pod is user 0 of the lab, which is the user who runs it; there is no other."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Descriptors of the namespaces."""

    user: int
    ipc: int
    uts: int
    net: int

    def close(self) -> None:
        """Let go of them."""
        for fd in (self.user, self.ipc, self.uts, self.net):
            os.close(fd)


def make() -> Sandbox:
    """New namespaces; the caller has one thread. OSError says what forbids them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            ours.close()
            _be_maker(theirs)
        theirs.close()
        try:
            number, descriptors = _outcome(ours)
            if number:
                raise OSError(number, os.strerror(number))
            try:
                _write_maps(pid)
            except OSError:
                Sandbox(*descriptors).close()
                raise
        finally:
            ours.close()  # the word for the maker to end
            os.waitpid(pid, 0)
    return Sandbox(*descriptors)


def _be_maker(answer: socket.socket) -> None:
    """Make them, hand them over, stay until that is done."""
    try:
        try:
            syscalls.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
            made = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in KINDS]
        except OSError as error:
            answer.send(str(error.errno).encode())
        else:
            _send(answer, b"0", made)
        answer.recv(1)
    finally:
        os._exit(0)


def _send(connection: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    rights = array.array("i", descriptors)
    connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _outcome(connection: socket.socket) -> tuple[int, list[int]]:
    """(errno or 0, descriptors)."""
    received = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(16, socket.CMSG_LEN(len(KINDS) * received.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(content)
    return int(data or b"3"), list(received)


def _write_maps(pid: int) -> None:
    """Say which users and groups there are in the new user namespace."""
    for name, text in (("setgroups", "deny"), ("uid_map", MAP), ("gid_map", MAP)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def enter_before_mounts(sandbox: Sandbox) -> None:
    """Into its network, IPC and UTS namespaces; the caller stays in its own user namespace, whose mounts it may still change."""
    syscalls.setns(sandbox.net, CLONE_NEWNET)
    syscalls.setns(sandbox.ipc, CLONE_NEWIPC)
    syscalls.setns(sandbox.uts, CLONE_NEWUTS)


def enter(sandbox: Sandbox) -> None:
    """Into its user namespace, with a mount and a cgroup namespace that belong to it: all mounts that are there now are locked."""
    syscalls.setns(sandbox.user, CLONE_NEWUSER)
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP)

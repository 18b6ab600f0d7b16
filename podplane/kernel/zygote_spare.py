"""A child of the zygote that waits to be a container: it was forked while nobody waited for that.

A fork copies what the zygote has mapped, some milliseconds of the start of a container, and the new PID namespace takes a while, too. What
they are made for need not be known before. So the zygote has one such child when it has rested for a moment since it last started a
container; while many are asked for, each is forked when its turn comes.

It holds nothing of the zygote but the socket to the lab, on which a child reports. When the zygote ends it ends.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import NoReturn

import msgspec

from podplane.kernel import sandbox
from podplane.kernel.sandbox import Sandbox
from podplane.kernel.zygote_child import Child, Place, Program, Share
from podplane.kernel.zygote_messages import NOT_EXECUTABLE, Spawn, receive

REST_SECONDS = 0.03
"""So long the zygote has nothing to do before it makes one."""
LAST_DESCRIPTOR = 1 << 20


class Spare(msgspec.Struct, frozen=True):
    """One that waits; `common` are the control groups that it is in."""

    pid: int
    connection: socket.socket
    common: frozenset[str]

    def take(self, command: Spawn, descriptors: list[int]) -> bool:
        """Be this container, which has no volumes of its pod's own mount namespace; False when it can't: it is gone, say."""
        try:
            socket.send_fds(self.connection, [msgspec.json.encode(command)], descriptors)
        except OSError:
            return False
        finally:
            self.connection.close()
        return True


def make(
    fork: Callable[[], int],
    common: frozenset[str],
    news: socket.socket,
    programs: Mapping[str, Program],
    place: Callable[[Sandbox], Place],
) -> Spare | None:
    """Have one wait; None when there can be none. `fork` is fork(2) into a new PID namespace, `news` the socket to the lab,
    `place` says where a container of a pod belongs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = fork()
    except OSError:
        ours.close()
        theirs.close()
        return None
    if pid == 0:
        _wait(theirs, news, programs, place)
    theirs.close()
    return Spare(pid, ours, common)


def _wait(
    own: socket.socket, news: socket.socket, programs: Mapping[str, Program], place: Callable[[Sandbox], Place]
) -> NoReturn:
    """The child, until it is a container, or nobody can ask it any more. It does not return."""
    try:
        signal.set_wakeup_fd(-1)
        first = 3
        for fd in sorted((own.fileno(), news.fileno())):
            os.closerange(first, fd)
            first = fd + 1
        os.closerange(first, LAST_DESCRIPTOR)
        data, descriptors = receive(own)
        own.close()
        if data:
            command = msgspec.json.decode(data, type=Spawn)
            namespaces = Sandbox(*descriptors[1 : 1 + len(sandbox.KINDS)])
            Child(command, descriptors, place(namespaces), Share(command.group, command.oom), news, programs).become()
    finally:
        os._exit(NOT_EXECUTABLE)

"""What the lab and the zygote say to each other, and the child of a fork to the lab: messages over a SEQPACKET socket, with descriptors
(SCM_RIGHTS)."""

from __future__ import annotations

import array
import errno
import socket
from collections.abc import Sequence

import msgspec

from podplane.kernel.cgroups import Group
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Root
from podplane.kernel.volumes import Tmpfs

MESSAGE_BYTES = 200 * 1024
"""The longest message, and the most bytes of a command's arguments and environment."""
MAX_DESCRIPTORS = 7
SHORT_OF = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS))
"""This machine, of what a message needs (unix(7))."""
STARTED, WHY_BYTES = b"\0", 1024
"""What a built-in program says on its pipe, or so much of why it can't be started."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a command that could not be started, as shells have them."""


class MakeSandbox(msgspec.Struct, tag="sandbox"):
    """Make a sandbox; the answer comes with its descriptors, of which none stays here: each fork would copy and close them all. `user` and
    `group` are the numbers of those that it has, where pods have one."""

    id: int
    user: int = 0
    group: int = 0


class MakeMounts(msgspec.Struct, tag="mounts"):
    """Make file systems for volumes of a pod, in a mount namespace that its containers begin with: what is mounted in the lab's own is
    copied for each container of all pods."""

    id: int
    tmpfs: Sequence[Tmpfs]


class Release(msgspec.Struct, tag="release"):
    """Let go of mounts: what runs and sees them keeps them, nothing else can be started with them."""

    id: int


class Spawn(msgspec.Struct, tag="spawn", omit_defaults=True):
    """Start a process. With it come descriptors: its Words, those of its sandbox or the network namespace (not when joining), then stdin,
    stdout, stderr. With `tty` these are a new terminal of its own instead, and do not come. `name` is the first of its words.

    `join` is the id of a container that the process joins (all its namespaces); 0 makes new mount and PID namespaces, in those of
    `sandbox`, with a file system of its own made of `root`, whose sources may lie in `mounts`; without a sandbox a UTS namespace too, and
    the process stays in the lab's user namespace. With `pids`, the id of a container or LAB, it has the PID namespace of that, and no new
    one.
    `program` names the built-in program; without it the first word does, or is a command.
    `group` are its control groups, `oom` how much rather than others it is killed for want of memory (`oom_score_adj` of proc(5)): both are
    also those of what joins it.
    """

    id: int
    name: str
    hostname: str = ""
    directory: str = "/"
    join: int = 0
    tty: bool = False
    root: Root | None = None
    program: str = ""
    sandbox: bool = False
    rights: Rights = Rights()
    mounts: int = 0
    group: Group | None = None
    oom: int = 0
    pids: int = 0


class Ahead(msgspec.Struct, tag="ahead"):
    """Have so many processes wait to be containers of pods, each in the groups `common`; they are made while there is nothing else to do.
    Of those that wait, only so many stay. `root` and `rights` are like those of most: what these have in common is found out before."""

    id: int
    count: int
    common: Sequence[str] = ()
    root: Root | None = None
    rights: Rights = Rights()


class Words(msgspec.Struct):
    """Arguments and environment of a process, in a file (memfd_create(2)) that only the process itself reads: what the zygote reads may
    stay in its memory, of which all that is forked later has a copy."""

    argv: list[str]
    env: dict[str, str]


LAB = -1
"""In place of a process among whose processes a container is: those of the lab."""


class EndLeft(msgspec.Struct, tag="left"):
    """End all processes among those of the process `pids` whose mount namespace has this inode: one that is not among its own processes
    leaves them when it ends. When that is done an exit code comes."""

    id: int
    pids: int
    mounts: int


class Signal(msgspec.Struct, tag="signal"):
    """Send a signal to the process that was started as `id`; of one that ended, nothing happens."""

    id: int
    signal: int


class Event(msgspec.Struct, omit_defaults=True):
    """News of the process that was started as `id`: its pid, that it runs, that it couldn't start (`refused`: what its volumes shall give
    is not there), its exit code.

    With the news that it runs comes a descriptor of its termination message, if it has a file for one, and then those of its `mounts` (its
    mount namespace, if it is among others' processes), and of the other end of its `terminal`, if it has one. With `hears` these come
    before it runs, and then one of a pipe, on which it says STARTED or why it can't.
    """

    id: int
    pid: int = 0
    started: bool = False
    error: str = ""
    code: int | None = None
    refused: bool = False
    mounts: bool = False
    terminal: bool = False
    hears: bool = False
    trace: str = ""
    """Where in podplane an error was that nobody thought of, for its log."""


Command = Spawn | EndLeft | Signal | MakeSandbox | MakeMounts | Release | Ahead


_room = bytearray(MESSAGE_BYTES)
"""For the message that is being received. One for all: to get as much from the kernel for each, and give it back, takes 12 µs."""


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it, close-on-exec; no bytes when the other end is closed. For one thread of a
    process."""
    descriptors = array.array("i")
    size, ancillary, _, _ = connection.recvmsg_into([_room], socket.CMSG_LEN(MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % 4])
    return bytes(memoryview(_room)[:size]), list(descriptors)

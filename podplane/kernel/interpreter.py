"""A process of podplane's own beside this one: a fresh interpreter that runs one module, and has one end of a socket to this process.

It may be started while this process has threads (posix_spawn(3)), and is the same whoever starts it: a lab, or an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys

import msgspec

CONNECTION_FD = 3
"""The descriptor that the process finds its end at."""
ENTRY = "import sys; sys.path[:] = sys.argv[2:]; __import__(sys.argv[1], fromlist=['main']).main(3)"


class Spawned(msgspec.Struct, frozen=True):
    """A process that was started, and this end of the SEQPACKET socket to it; its end is to be awaited by `follow`."""

    pid: int
    connection: socket.socket


class Interpreter(msgspec.Struct):
    """A process that runs; `exited` has its exit code (128 + n by signal n) once it ended."""

    pid: int
    connection: socket.socket
    exited: asyncio.Future[int]

    def kill(self) -> None:
        """SIGKILL; of a process that ended, nothing happens."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    @property
    def is_stopped(self) -> bool:
        """Was it stopped by a signal since this was asked last?"""
        try:
            return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG) is not None
        except ChildProcessError:  # it ended
            return False


def spawn(module: str, message_bytes: int) -> Spawned:
    """Run `main(fd)` of this module in a process of its own. OSError when there can be none. Messages have at most so many bytes."""
    ours, theirs = connected(message_bytes)
    with theirs:
        try:
            argv = [sys.executable, "-I", "-S", "-c", ENTRY, module, *sys.path]
            actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), CONNECTION_FD)]
            pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
        except OSError:
            ours.close()
            raise
    return Spawned(pid, ours)


def connected(message_bytes: int) -> tuple[socket.socket, socket.socket]:
    """Both ends of a SEQPACKET socket whose messages have at most so many bytes."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, message_bytes)
    return ends


def follow(spawned: Spawned) -> Interpreter:
    """The process, whose end is awaited from now on. To be called on an event loop."""
    return Interpreter(spawned.pid, spawned.connection, exit_of(spawned.pid))


def exit_of(pid: int) -> asyncio.Future[int]:
    """The exit code of a child of this process (128 + n by signal n), once it ended. To be called on an event loop."""
    loop = asyncio.get_running_loop()
    fd = os.pidfd_open(pid)
    exited: asyncio.Future[int] = loop.create_future()

    def ended() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if not exited.done():
            exited.set_result(128 - code if code < 0 else code)

    loop.add_reader(fd, ended)
    return exited

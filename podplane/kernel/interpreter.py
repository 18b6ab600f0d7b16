"""A process of podplane's own beside this one: a fresh interpreter that runs one module, and has one descriptor of ours.

It may be started while this process has threads (posix_spawn(3)), and is the same whoever starts it: a lab, or an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass

CONNECTION_FD = 3
"""The descriptor that the process finds its connection at."""
ENTRY = "import sys; sys.path[:] = sys.argv[2:]; __import__(sys.argv[1], fromlist=['main']).main(3)"


@dataclass(slots=True)
class Interpreter:
    """A process that runs; `exited` has its exit code (128 + n by signal n) once it ended."""

    pid: int
    exited: asyncio.Future[int]

    def kill(self) -> None:
        """SIGKILL; of a process that ended, nothing happens."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def start(module: str, connection: socket.socket) -> Interpreter:
    """Run `main(fd)` of this module in a process of its own. OSError when there can be none. To be called on an event loop."""
    argv = [sys.executable, "-I", "-S", "-c", ENTRY, module, *sys.path]
    actions = [(os.POSIX_SPAWN_DUP2, connection.fileno(), CONNECTION_FD)]
    pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
    loop = asyncio.get_running_loop()
    process = Interpreter(pid, loop.create_future())
    fd = os.pidfd_open(pid)

    def ended() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if not process.exited.done():
            process.exited.set_result(128 - code if code < 0 else code)

    loop.add_reader(fd, ended)
    return process

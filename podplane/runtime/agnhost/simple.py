"""The subcommands of agnhost that need no more than a few lines: pause, entrypoint-tester, tcp-reset."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping

from podplane.runtime.agnhost.common import KILLED_BY_TERM, Context, opened, prepared, say
from podplane.runtime.agnhost.flags import Value
from podplane.runtime.serving import Connection, Message

RESET_FLAGS: Mapping[str, Value] = {"port": 8080}


def pause(context: Context) -> int:
    """Wait for SIGTERM or SIGINT; each has its exit code."""
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    for number in ending:
        signal.signal(number, signal.SIG_DFL)
    say("Paused")
    context.ready()
    return {signal.SIGINT: 1, signal.SIGTERM: KILLED_BY_TERM}[signal.Signals(signal.sigwait(ending))]


def entrypoint_tester(context: Context) -> int:
    """Print the whole command, as Go prints a list."""
    context.ready()
    say(f"[{' '.join(context.argv)}]")
    return 0


def tcp_reset(context: Context) -> int:
    """Read one byte of each connection and close it: who has sent more gets a reset."""
    loop, servers = prepared()
    servers.add(opened(socket.SOCK_STREAM, context.flags.number("port")), Reset)
    context.ready()
    return loop.run()


class Reset(Message):
    """One byte, then the end."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None)

    def begin(self, connection: Connection) -> None:
        """The client speaks first, and no more than this is read."""
        connection.read_bytes = 1

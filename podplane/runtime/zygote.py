"""The zygote's process, from its first line: a fresh interpreter that imports what containers need and nothing else.

Every fork copies the pages that either side touches afterwards, and hooks that modules leave behind run in every child
(`threading` alone touches a hundred pages). So this module and what it imports stay free of threading, logging and random.
"""

from __future__ import annotations

import socket

from podplane.kernel.zygote import Zygote
from podplane.runtime.programs import PROGRAMS


def main(fd: int) -> None:
    """Serve on the socket `fd` until its other end is closed."""
    Zygote(socket.socket(fileno=fd), PROGRAMS).run()

"""Tells the service manager that started this process how it does: sd_notify(3), a datagram of lines to $NOTIFY_SOCKET.

READY=1       the node's network is in place
STATUS=…      what it waits for, in a line that `systemctl status` shows
WATCHDOG=1    the event loop goes on; without one within WATCHDOG_USEC the manager starts the process again
STOPPING=1    it ends because it was asked to
FDSTORE=1     descriptors that the next process gets, named FDNAME (sd_pid_notify_with_fds(3)); FDSTOREREMOVE=1 forgets those of a name
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from podplane.cni.socket_path import reachable

log = logging.getLogger(__name__)
SOCKET, USEC, PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
BEATS = 3
"""So many within the time of the watchdog: one that is late does no harm."""


class Notifier:
    """Of this process; without a manager that listens, all that it is told goes nowhere. What can't be sent is not sent again."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get(SOCKET, "")
        own = environment.get(PID, str(os.getpid())) == str(os.getpid())
        usec = environment.get(USEC, "")
        self.watchdog_seconds = int(usec) / 1e6 if own and usec.isascii() and usec.isdecimal() else 0.0
        """The process has to say that it goes on so often; 0: nobody asks."""
        self.with_beat: Callable[[], object] = bool
        """What is to be told again and again until the manager has taken it."""

    @property
    def has_manager(self) -> bool:
        """Did a manager that listens start this process?"""
        return bool(self._address)

    def ready(self, **more: str) -> None:
        """The node's network is in place; `more` is for a manager that knows such names (they begin with `X_`)."""
        self._send(READY="1", STATUS="the network of this node is in place", **more)

    def status(self, text: str) -> None:
        """What it does, or waits for."""
        self._send(STATUS=text.replace("\n", " "))

    def stopping(self) -> None:
        """It ends."""
        self._send(STOPPING="1")

    def store(self, name: str, fds: Sequence[int]) -> bool:
        """Have the manager keep these descriptors for the process after this one, whatever becomes of them; was that told?"""
        return self._send(fds, FDSTORE="1", FDNAME=name, FDPOLL="0")

    def forget(self, name: str) -> None:
        """Have it close those of this name."""
        self._send(FDSTOREREMOVE="1", FDNAME=name)

    async def beat(self) -> None:
        """Say that the event loop goes on, for as long as somebody asks."""
        while self.watchdog_seconds:
            self._send(WATCHDOG="1")
            self.with_beat()
            await asyncio.sleep(self.watchdog_seconds / BEATS)

    def _send(self, fds: Sequence[int] = (), /, **lines: str) -> bool:
        if not self._address:
            return True
        message = "\n".join(f"{name}={value}" for name, value in lines.items()).encode()
        with contextlib.ExitStack() as opened:
            try:
                abstract, path = self._address.startswith("@"), Path(self._address)
                name = f"\0{self._address[1:]}" if abstract else opened.enter_context(reachable(path))
                one = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
                one.sendmsg([message], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, name)
            except OSError as error:
                log.warning("notify socket=%s error=%s", self._address, error.strerror)
                return False
        return True

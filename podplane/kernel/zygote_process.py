"""One process that the zygote starts: what is heard of it, in which order that may come."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence

import msgspec

from podplane.kernel.process import NotYet, ProcessError
from podplane.kernel.zygote_answers import Silence, Silent, answered
from podplane.kernel.zygote_messages import STARTED, WHY_BYTES, Event

log = logging.getLogger(__name__)
START_SECONDS, JOIN_SECONDS = 120.0, 30.0
"""A process that has not started after so long is killed: in namespaces of its own (kubelet, runtimeRequestTimeout), or in a container,
where others may stop it."""
LAST_WORDS_BYTES = 4096
"""Of a termination message that is kept (kubelet, MaxContainerTerminationMessageLength)."""


def one_line(said: bytes) -> str:
    """What somebody said, without what is no text."""
    return " ".join("".join(char if char.isprintable() else " " for char in said.decode(errors="replace")).split())


class ZygoteProcess(msgspec.Struct, eq=False):
    """A process that the zygote starts."""

    id: int
    _send_signal: Callable[[int, int], None]
    exited: asyncio.Future[int]
    _started: asyncio.Future[None]
    pid: int = 0
    error: str = ""
    refused: bool = False
    last_words: bytes = b""
    _silence: Silence = lambda: ""
    _terminal: Callable[[int], None] | None = None
    ran: bool = False
    _last_words: int = -1
    pids: int = 0
    """The process among whose processes it is, 0 if it has a PID namespace of its own."""
    _joins: bool = False
    _hears: int = -1
    _mounts: int = -1
    _code: int | None = None
    _end_left: Callable[[ZygoteProcess, int], None] = lambda process, _: process.left_nothing()
    _news: Callable[[Event], None] = lambda _: None
    _late: asyncio.TimerHandle | None = None

    async def started(self) -> None:
        """Wait until its program runs. ProcessError when that can't be, NotYet when nothing is heard of it."""
        try:
            await answered(self._started, self._silence)
        except Silent as error:
            raise NotYet(error.strerror) from None

    def signal(self, number: int) -> None:
        """Send a signal; of a process that ended, nothing happens."""
        if not self.exited.done():
            self._send_signal(self.id, number)

    @property
    def is_over_starting(self) -> bool:
        """Does its program run, or is it known that it never will?"""
        return self._started.done()

    @property
    def is_waited_for(self) -> bool:
        """Do others wait until it has started?"""
        return not self.is_over_starting and not (self._joins and self.pid)

    def limit(self, loop: asyncio.AbstractEventLoop) -> None:
        """It begins now: it may not take for ever."""
        self._late = loop.call_later(JOIN_SECONDS if self._joins else START_SECONDS, self._give_up, loop)

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.is_over_starting:
            return
        if self._silence():  # it may run, and nobody has said so yet
            self.limit(loop)
            return
        seconds = JOIN_SECONDS if self._joins else START_SECONDS
        self.tell(Event(self.id, error=f"it did not start within {seconds:g} s"))
        self.signal(signal.SIGKILL)

    def tell(self, event: Event, descriptors: Sequence[int] = ()) -> None:
        """Take news."""
        *words, hears = descriptors if event.hears else (*descriptors, -1)
        *words, terminal = words if event.terminal else (*words, -1)
        *words, self._mounts = words if event.mounts else (*words, self._mounts)
        for fd in words:
            self._last_words = fd
        if terminal >= 0:
            (self._terminal or os.close)(terminal)
        if hears >= 0:
            os.set_blocking(hears, False)
            self._hears = hears
            asyncio.get_running_loop().add_reader(hears, self._hear)
        if event.code is not None:
            self._hear(is_last=True)
        if event.trace:
            log.error("%s\n%s", event.error, event.trace)
        self.pid = event.pid or self.pid
        self.error = event.error or self.error
        self.refused = event.refused or self.refused
        self.ran = event.started or self.ran
        if (
            self.ran and self.pid and not self._started.done()
        ):  # the child may say that it runs before the zygote says who it is
            self._started.set_result(None)
        if event.error and not self._started.done():
            self._started.set_exception(ProcessError(event.error))
            self._started.exception()  # looked at, so that nobody needs to wait for it
        if event.code is not None and self._code is None:
            self._read_last_words()
            self._code = event.code
            if self._mounts >= 0:
                self._end_left(self, os.fstat(self._mounts).st_ino)
            else:
                self.left_nothing()
        if self._late is not None and self.is_over_starting:
            self._late.cancel()

    def left_nothing(self) -> None:
        """It has ended, and all that it had started."""
        assert self._code is not None
        if self._mounts >= 0:  # until now nobody else could have a mount namespace of this inode
            os.close(self._mounts)
            self._mounts = -1
        self.exited.set_result(self._code)
        if not self._started.done():
            self._started.set_exception(ProcessError(f"it ended with exit code {self._code} before it ran"))
            self._started.exception()

    def _hear(self, *, is_last: bool = False) -> None:
        """What a built-in program says of its start; nothing when it just ends."""
        if self._hears < 0:
            return
        try:
            said = os.read(self._hears, WHY_BYTES)
        except BlockingIOError:
            if not is_last:
                return
            said = b""
        asyncio.get_running_loop().remove_reader(self._hears)
        os.close(self._hears)
        self._hears = -1
        if said:
            self._news(Event(self.id, started=True) if said == STARTED else Event(self.id, error=one_line(said)))

    def _read_last_words(self) -> None:
        """The file is the container's, and may be as large as that wants."""
        if self._last_words >= 0:
            try:
                self.last_words = os.pread(self._last_words, LAST_WORDS_BYTES, 0)
            except OSError:
                pass
            finally:
                os.close(self._last_words)
                self._last_words = -1

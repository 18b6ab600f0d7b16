"""Processes through the zygote, for an event loop: what is asked goes out at once, what happens comes back as futures."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from podplane.kernel import zygote_answers
from podplane.kernel.cgroups import Group
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Root
from podplane.kernel.volumes import Tmpfs
from podplane.kernel.zygote_answers import Silence, Silent, answered, close_all
from podplane.kernel.zygote_messages import (
    MESSAGE_BYTES,
    NOT_EXECUTABLE,
    SHORT_OF,
    STARTED,
    WHY_BYTES,
    Event,
    MakeMounts,
    MakeSandbox,
    Release,
    Signal,
    Spawn,
    Words,
    receive,
)
from podplane.kernel.zygote_places import ZygoteMounts, ZygoteSandbox

log = logging.getLogger(__name__)
T = TypeVar("T")
SHORT_SECONDS = 0.05
"""Until the next try, where the kernel has no memory for a message."""
LOOK_SECONDS = 1.0
"""Between two looks whether the zygote was stopped."""
MAX_STARTING = 16
"""Processes that are on their way at one time: each costs a fork, and its request a place in the socket's buffer. What joins a container is
not counted any more once it is there: its container may stop it, and nobody else is to wait for that."""
START_SECONDS, JOIN_SECONDS = 120.0, 30.0
"""A process that has not started after so long is killed: in namespaces of its own (kubelet, runtimeRequestTimeout), or in a container,
where others may stop it."""


LAST_WORDS_BYTES = 4096
"""Of a termination message that is kept (kubelet, MaxContainerTerminationMessageLength)."""
HARMLESS = frozenset({0, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})
"""Signals that end nobody who doesn't ask for it (signal(7)), and none at all."""
ENDED = "the zygote has ended"


class ProcessError(Exception):
    """The process couldn't be started; one line that says why."""


class NotYet(ProcessError):
    """Nothing has been heard for so long that its start is awaited no longer; it may come all the same, and can be awaited again."""


class Process(Protocol):
    """A process that was asked for."""

    @property
    def id(self) -> int:
        """The number by which others join it; never used twice."""

    @property
    def exited(self) -> asyncio.Future[int]:
        """Its exit code, once it ended (127 no such command, 126 not executable, 128 + n by signal n)."""

    @property
    def error(self) -> str:
        """Why it couldn't be started, "" when it could (or it isn't known yet)."""

    @property
    def refused(self) -> bool:
        """Couldn't it be started because what its volumes shall give is not there?"""

    @property
    def ran(self) -> bool:
        """Did its program run?"""

    @property
    def last_words(self) -> bytes:
        """Once it ended: the beginning of its termination message."""

    async def started(self) -> None:
        """Wait until its program runs. ProcessError when that can't be, NotYet when nothing is heard of it."""

    def signal(self, number: int) -> None:
        """Send a signal; of a process that ended, nothing happens."""


class Sandbox(Protocol):
    """Namespaces that were asked for."""

    @property
    def id(self) -> int:
        """The number by which processes are started in it."""

    async def netns(self) -> int:
        """A descriptor of its network namespace, which the caller closes, but not before it releases the sandbox; to be asked once.

        OSError when there can be none.
        """

    def release(self) -> None:
        """Let go of it: what runs in it keeps its namespaces. Idempotent."""


class Mounts(Protocol):
    """File systems for volumes of a pod that were asked for."""

    @property
    def id(self) -> int:
        """The number by which processes see them."""

    async def made(self) -> None:
        """Wait until they are there. OSError when that can't be."""

    def release(self) -> None:
        """Let go of them: what runs and sees them keeps them. Idempotent."""


class Processes(Protocol):
    """Where processes come from: the zygote, or a fake."""

    def make_sandbox(self, user: int = 0, group: int = 0) -> Sandbox:
        """Ask for the namespaces of a pod (`kernel.sandbox`). Processes may be asked for in it at once."""

    def make_mounts(self, tmpfs: Sequence[Tmpfs]) -> Mounts:
        """Ask for file systems for the volumes of a pod; only its processes see them."""

    def spawn(
        self,
        argv: Sequence[str],
        stdio: tuple[int, int, int],
        *,
        netns: int = -1,
        join: int = 0,
        env: Mapping[str, str] | None = None,
        hostname: str = "",
        directory: str = "/",
        terminal: Callable[[int], None] | None = None,
        root: Root | None = None,
        program: str = "",
        sandbox: int = 0,
        rights: Rights = Rights(),  # noqa: B008  # it is immutable
        mounts: int = 0,
        group: Group | None = None,
        oom: int = 0,
        pids: int = 0,
    ) -> Process:
        """Ask for a process in new mount and PID namespaces and in those of `sandbox`, or in those of `join`.

        Without either it gets a UTS namespace, and the network namespace `netns`.

        With a `root` it has a file system of its own, whose sources may lie in `mounts`. `program` is the built-in program to run, if
        `argv` doesn't begin with its name.

        `group` are its control groups, `oom` is its `oom_score_adj`; what joins it has these too. With `pids` it is among the processes of
        that container, which may see it, and has all else of its own.

        With `terminal` its streams are a new terminal of the container, not `stdio`; it is called, when the program runs, with a descriptor
        of the other end, which is then the callee's.

        The descriptors may be closed when this returns.
        """


def one_line(said: bytes) -> str:
    """What somebody said, without what is no text."""
    return " ".join("".join(char if char.isprintable() else " " for char in said.decode(errors="replace")).split())


def _is_stopped(pid: int) -> bool:
    """Was this child stopped by a signal since this was asked last?"""
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None
    except ChildProcessError:  # it ended
        return False


class _Waiting(msgspec.Struct):
    process: ZygoteProcess
    request: bytes
    words: bytes
    descriptors: list[int]
    join: int
    sandbox: int


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
    _joins: bool = False
    _hears: int = -1
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
        if event.code is not None and not self.exited.done():
            self._read_last_words()
            self.exited.set_result(event.code)
            if not self._started.done():
                self._started.set_exception(ProcessError(f"it ended with exit code {event.code} before it ran"))
                self._started.exception()
        if self._late is not None and self.is_over_starting:
            self._late.cancel()

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


@dataclass(slots=True)
class ZygoteProcesses:
    """The zygote as `Processes`; `lost` is called once when it ends; who started it ends then too, and with it all containers."""

    connection: socket.socket
    lost: Callable[[], None]
    pid: int = 0
    """Of the zygote; 0 where it is not this process' child."""
    _processes: dict[int, ZygoteProcess] = field(default_factory=dict)
    _sandboxes: dict[int, ZygoteSandbox] = field(default_factory=dict)
    _mounts: dict[int, ZygoteMounts] = field(default_factory=dict)
    _waiting: list[_Waiting] = field(default_factory=list)
    _starting: set[int] = field(default_factory=set)
    _short: list[bytes] = field(default_factory=list)
    _last: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    _heard: float = 0.0

    def __post_init__(self) -> None:
        self.connection.setblocking(False)
        self._loop.add_reader(self.connection, self._read)
        self._heard = self._loop.time()

    async def keep_going(self) -> None:
        """Have the zygote go on whenever a signal has stopped it: nothing can be started without it, and nobody would know why."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.pid and _is_stopped(self.pid):
                log.warning("the zygote (process %d) was stopped by a signal: it goes on", self.pid)
                os.kill(self.pid, signal.SIGCONT)

    def _silence(self) -> str:
        """Why an answer of the zygote is awaited no longer; "" while it says anything."""
        if self._loop.time() - self._heard < zygote_answers.ANSWER_SECONDS:
            return ""
        return (
            f"what starts containers (the zygote, process {self.pid}) has said nothing for {zygote_answers.ANSWER_SECONDS:g} s"
        )

    def close(self) -> None:
        """End the zygote; idempotent."""
        if self.connection.fileno() >= 0:
            self._loop.remove_reader(self.connection)
            self._loop.remove_writer(self.connection)
            self.connection.close()

    def make_sandbox(self, user: int = 0, group: int = 0) -> ZygoteSandbox:
        """Ask for a sandbox; see `Processes.make_sandbox`."""
        self._last += 1
        made = ZygoteSandbox(self._last, self._forget_sandbox, self._loop.create_future(), self._silence)
        if self._ended:
            made.tell(Event(made.id, error=ENDED), [])
            return made
        self._sandboxes[made.id] = made
        self._send(MakeSandbox(made.id, user, group))
        return made

    def make_mounts(self, tmpfs: Sequence[Tmpfs]) -> ZygoteMounts:
        """Ask for file systems; see `Processes.make_mounts`."""
        self._last += 1
        made = ZygoteMounts(self._last, lambda number: self._send(Release(number)), self._loop.create_future(), self._silence)
        if self._ended:
            made.tell(Event(made.id, error=ENDED))
            return made
        request = MakeMounts(made.id, tmpfs)
        if len(msgspec.json.encode(request)) > MESSAGE_BYTES:
            made.tell(Event(made.id, error=f"{len(tmpfs)} at a time are too many", code=errno.E2BIG))
            return made
        self._mounts[made.id] = made
        self._send(request)
        return made

    def spawn(
        self,
        argv: Sequence[str],
        stdio: tuple[int, int, int],
        *,
        netns: int = -1,
        join: int = 0,
        env: Mapping[str, str] | None = None,
        hostname: str = "",
        directory: str = "/",
        terminal: Callable[[int], None] | None = None,
        root: Root | None = None,
        program: str = "",
        sandbox: int = 0,
        rights: Rights = Rights(),  # noqa: B008  # it is immutable
        mounts: int = 0,
        group: Group | None = None,
        oom: int = 0,
        pids: int = 0,
    ) -> ZygoteProcess:
        """Ask for a process; see `Processes.spawn`."""
        self._last += 1
        process = ZygoteProcess(self._last, self._signal, self._loop.create_future(), self._loop.create_future())
        process._news = self._take_news
        process._silence, process._terminal, process._joins = self._silence, terminal, bool(join or pids)
        self._processes[process.id] = process
        request = msgspec.json.encode(
            Spawn(
                process.id,
                argv[0],
                hostname,
                directory or "/",
                join,
                terminal is not None,
                root,
                program,
                bool(sandbox),
                rights,
                mounts,
                group,
                oom,
                pids,
            )
        )
        words = msgspec.json.encode(Words(list(argv), dict(env or {})))
        if max(len(request), len(words)) > MESSAGE_BYTES:
            self._settle(Event(process.id, error=f"{argv[0]}: arguments and environment are too long", code=NOT_EXECUTABLE))
            return process
        if self._ended:
            self._settle(Event(process.id, error=ENDED, code=128 + signal.SIGKILL))
            return process
        wanted = [*([] if join or sandbox else [netns]), *(stdio if terminal is None else ())]
        self._waiting.append(_Waiting(process, request, words, [os.dup(fd) for fd in wanted], join or pids, sandbox))
        self._flush()
        return process

    def _signal(self, number: int, signal_number: int) -> None:
        waiting = next((w for w in self._waiting if w.process.id == number), None)
        if waiting is not None:  # it never began
            if signal_number not in HARMLESS:
                self._forget(waiting)
                self._settle(Event(number, code=128 + signal_number))
            return
        self._send(Signal(number, signal_number))

    def _send(self, command: Signal | MakeSandbox | MakeMounts | Release) -> None:
        if not self._ended:
            self._short.append(msgspec.json.encode(command))
            self._flush()

    def _flush(self) -> None:
        """Send what may be sent now; go on when there is room."""
        if self._ended:
            return
        try:
            while self._short:
                self.connection.send(self._short[0])
                self._short.pop(0)
            while len(self._starting) < MAX_STARTING and (first := next(filter(self._may_begin, self._waiting), None)):
                self._begin(first)
            self._loop.remove_writer(self.connection)
        except BlockingIOError:
            self._loop.add_writer(self.connection, self._flush)
        except OSError as error:
            if error.errno in SHORT_OF:
                self._loop.call_later(SHORT_SECONDS, self._flush)
            else:
                self._end()

    def _begin(self, waiting: _Waiting) -> None:
        """Send a request, with its words in a file that only the new process reads. BlockingIOError when there is no room."""
        namespaces: Sequence[int] = ()
        if waiting.sandbox:
            sandbox = self._sandboxes.get(waiting.sandbox)
            if sandbox is None or (found := sandbox.namespaces) is None:
                self._forget(waiting)
                self._settle(Event(waiting.process.id, error="it can't be started: its sandbox is gone", code=NOT_EXECUTABLE))
                return
            namespaces = found
        try:
            words = _file_of(waiting.words)
        except OSError as error:
            self._forget(waiting)
            self._settle(
                Event(waiting.process.id, error=f"its words can't be passed on: {error.strerror}", code=NOT_EXECUTABLE)
            )
            return
        try:
            socket.send_fds(self.connection, [waiting.request], [words, *namespaces, *waiting.descriptors])
        finally:
            os.close(words)
        self._starting.add(waiting.process.id)
        waiting.process.limit(self._loop)
        self._forget(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)
        self._drop(waiting)

    def _may_begin(self, waiting: _Waiting) -> bool:
        """What enters namespaces of a container waits until that one has them, what belongs in a sandbox until there is one."""
        container, sandbox = self._processes.get(waiting.join), self._sandboxes.get(waiting.sandbox)
        return (container is None or container.is_over_starting) and (sandbox is None or sandbox.is_answered)

    @property
    def _ended(self) -> bool:
        return self.connection.fileno() < 0

    def _forget_sandbox(self, number: int) -> None:
        self._sandboxes.pop(number, None)

    @staticmethod
    def _drop(waiting: _Waiting) -> None:
        close_all(waiting.descriptors)

    def _read(self) -> None:
        while True:
            try:
                data, descriptors = receive(self.connection)
            except BlockingIOError:
                break
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._end()
                return
            self._heard = self._loop.time()
            event = msgspec.json.decode(data, type=Event)
            if (sandbox := self._sandboxes.get(event.id)) is not None:
                sandbox.tell(event, descriptors)
            elif (mounts := self._mounts.pop(event.id, None)) is not None:
                mounts.tell(event)
            else:
                self._settle(event, descriptors)
        self._flush()

    def _take_news(self, event: Event) -> None:
        """What a program says of itself: whoever waits for its place may begin."""
        self._settle(event)
        self._flush()

    def _settle(self, event: Event, descriptors: Sequence[int] = ()) -> None:
        process = self._processes.get(event.id)
        if process is None:
            for fd in descriptors:
                os.close(fd)
            return
        process.tell(event, descriptors)
        if not process.is_waited_for:
            self._starting.discard(event.id)
        if event.code is not None:
            del self._processes[event.id]

    def _end(self) -> None:
        if self._ended:
            return
        self.close()
        for waiting in self._waiting:
            self._drop(waiting)
        for sandbox in list(self._sandboxes.values()):
            sandbox.tell(Event(sandbox.id, error=ENDED), [])
        for mounts in self._mounts.values():
            mounts.tell(Event(mounts.id, error=ENDED))
        for process in self._processes.values():
            process.tell(Event(process.id, error=ENDED, code=128 + signal.SIGKILL))
        self.lost()


def _file_of(data: bytes) -> int:
    """A descriptor of a file without a name that holds this. OSError when there can be none."""
    fd = os.memfd_create("words", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
    except OSError:
        os.close(fd)
        raise
    return fd

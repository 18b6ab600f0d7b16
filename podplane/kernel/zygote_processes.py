"""Processes through the zygote, for an event loop (`process.Processes`)."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from podplane.kernel import zygote_answers
from podplane.kernel.cgroups import Group
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Root
from podplane.kernel.starting import Turns
from podplane.kernel.volumes import Tmpfs
from podplane.kernel.zygote_answers import close_all
from podplane.kernel.zygote_messages import (
    MESSAGE_BYTES,
    NOT_EXECUTABLE,
    SHORT_OF,
    Ahead,
    EndLeft,
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
from podplane.kernel.zygote_process import ZygoteProcess

log = logging.getLogger(__name__)
SHORT_SECONDS = 0.05
"""Until the next try, where the kernel has no memory for a message."""
LOOK_SECONDS = 1.0
"""Between two looks whether the zygote was stopped."""
MAX_STARTING, MAX_JOINING, MAX_PLACES = 16, 16, 8
"""Containers that are on their way at one time; processes that are about to join a container; sandboxes and file systems that are being
made: each costs the zygote some time, and its request a place in the socket's buffer. None of them waits for what joins."""
SLOW_SECONDS = 1.0
"""A container that has not started after so long is not counted any more: nobody else is to wait for what keeps it."""
LEFT_SECONDS = 5.0
"""For ending what a process left among those of others."""
HARMLESS = frozenset({0, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})
"""Signals that end nobody who doesn't ask for it (signal(7)), and none at all."""
ENDED = "the zygote has ended"


def _is_stopped(pid: int) -> bool:
    """Was this child stopped by a signal since this was asked last?"""
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None
    except ChildProcessError:  # it ended
        return False


class _Waiting(msgspec.Struct, eq=False):
    process: ZygoteProcess
    request: bytes
    words: bytes
    descriptors: list[int]
    join: int
    pids: int
    sandbox: int

    @property
    def owner(self) -> int:
        """What it waits beside others of: the container that it joins, or its sandbox, else itself."""
        return self.join or self.sandbox or self.process.id


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
    _joins: Turns[_Waiting] = field(default_factory=Turns)
    _starts: Turns[_Waiting] = field(default_factory=Turns)
    _joining: set[int] = field(default_factory=set)
    _starting: set[int] = field(default_factory=set)
    _places: deque[MakeSandbox | MakeMounts] = field(default_factory=deque)
    _making: set[int] = field(default_factory=set)
    _leaving: dict[int, tuple[ZygoteProcess, asyncio.TimerHandle]] = field(default_factory=dict)
    """By the numbers of what ends that which they left."""
    _urgent: deque[bytes] = field(default_factory=deque)
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
        self._places.append(MakeSandbox(made.id, user, group))
        self._flush()
        return made

    def make_mounts(self, tmpfs: Sequence[Tmpfs]) -> ZygoteMounts:
        """Ask for file systems; see `Processes.make_mounts`."""
        self._last += 1
        made = ZygoteMounts(self._last, self._release, self._loop.create_future(), self._silence)
        if self._ended:
            made.tell(Event(made.id, error=ENDED))
            return made
        request = MakeMounts(made.id, tmpfs)
        if len(msgspec.json.encode(request)) > MESSAGE_BYTES:
            made.tell(Event(made.id, error=f"{len(tmpfs)} at a time are too many", code=errno.E2BIG))
            return made
        self._mounts[made.id] = made
        self._places.append(request)
        self._flush()
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
        process.pids, process._end_left = pids, self._end_left
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
        waiting = _Waiting(process, request, words, [os.dup(fd) for fd in wanted], join, pids, sandbox)
        self._turns(waiting).add(waiting.owner, waiting)
        self._flush()
        return process

    def _signal(self, number: int, signal_number: int) -> None:
        waiting = next((w for turns in (self._joins, self._starts) for w in turns if w.process.id == number), None)
        if waiting is not None:  # it never began
            if signal_number not in HARMLESS:
                self._forget(waiting)
                self._settle(Event(number, code=128 + signal_number))
            return
        self._send(Signal(number, signal_number))

    def _release(self, number: int) -> None:
        asked = next((one for one in self._places if one.id == number), None)
        if asked is None:
            self._send(Release(number))
        else:  # it was not even asked for
            self._places.remove(asked)
            self._mounts.pop(number).tell(Event(number, error="nobody wants it any more", code=errno.ECANCELED))

    def make_ahead(self, count: int, common: Sequence[str], root: Root | None, rights: Rights) -> None:
        """Have so many processes wait to be containers of pods, in the groups that are `common` to those (`cgroups.Group`), most of them
        with a file system and rights like these; of those that wait already, only so many stay."""
        self._last += 1
        self._send(Ahead(self._last, count, common, root, rights))

    def _send(self, command: Signal | Release | EndLeft | Ahead) -> None:
        if not self._ended:
            self._urgent.append(msgspec.json.encode(command))
            self._flush()

    def _flush(self) -> None:
        """Send what may be sent now; go on when there is room."""
        if self._ended:
            return
        try:
            while self._urgent:
                self.connection.send(self._urgent[0])
                self._urgent.popleft()
            self._begin_all(self._joins, self._joining, MAX_JOINING)
            self._make_places()
            self._begin_all(self._starts, self._starting, MAX_STARTING)
            self._loop.remove_writer(self.connection)
        except BlockingIOError:
            self._loop.add_writer(self.connection, self._flush)
        except OSError as error:
            if error.errno in SHORT_OF:
                self._loop.call_later(SHORT_SECONDS, self._flush)
            else:
                self._end()

    def _make_places(self) -> None:
        while self._places and len(self._making) < MAX_PLACES:
            self.connection.send(msgspec.json.encode(self._places[0]))
            self._making.add(self._places.popleft().id)

    def _begin_all(self, turns: Turns[_Waiting], on_their_way: set[int], most: int) -> None:
        while len(on_their_way) < most and (first := turns.next(self._may_begin)) is not None:
            if self._begin(first):
                on_their_way.add(first.process.id)

    def _turns(self, waiting: _Waiting) -> Turns[_Waiting]:
        return self._joins if waiting.join else self._starts

    def _begin(self, waiting: _Waiting) -> bool:
        """Send a request, with its words in a file that only the new process reads; False when it can't be started. BlockingIOError when
        there is no room."""
        namespaces: Sequence[int] = ()
        if waiting.sandbox:
            sandbox = self._sandboxes.get(waiting.sandbox)
            if sandbox is None or (found := sandbox.namespaces) is None:
                self._forget(waiting)
                self._settle(Event(waiting.process.id, error="it can't be started: its sandbox is gone", code=NOT_EXECUTABLE))
                return False
            namespaces = found
        try:
            words = _file_of(waiting.words)
        except OSError as error:
            self._forget(waiting)
            self._settle(
                Event(waiting.process.id, error=f"its words can't be passed on: {error.strerror}", code=NOT_EXECUTABLE)
            )
            return False
        try:
            socket.send_fds(self.connection, [waiting.request], [words, *namespaces, *waiting.descriptors])
        finally:
            os.close(words)
        waiting.process.limit(self._loop)
        self._loop.call_later(SLOW_SECONDS, self._count_no_more, waiting.process.id)
        self._forget(waiting)
        return True

    def _count_no_more(self, number: int) -> None:
        if number in self._starting:
            self._starting.discard(number)
            self._flush()

    def _forget(self, waiting: _Waiting) -> None:
        self._turns(waiting).remove(waiting.owner, waiting)
        self._drop(waiting)

    def _may_begin(self, waiting: _Waiting) -> bool:
        """What enters namespaces of a container waits until that one has them, what belongs in a sandbox until there is one."""
        container, sandbox = self._processes.get(waiting.join or waiting.pids), self._sandboxes.get(waiting.sandbox)
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
            self._making.discard(event.id)
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
        if event.code is not None and event.id in self._leaving:
            ended, late = self._leaving.pop(event.id)
            late.cancel()
            ended.left_nothing()
        process = self._processes.get(event.id)
        if process is None:
            for fd in descriptors:
                os.close(fd)
            return
        process.tell(event, descriptors)
        if not process.is_waited_for:
            self._starting.discard(event.id)
            self._joining.discard(event.id)
        if event.code is not None:
            del self._processes[event.id]

    def _end_left(self, process: ZygoteProcess, mounts: int) -> None:
        """Have that ended which a process left among the processes of others: what is in its mount namespace, of this inode."""
        if self._ended:
            process.left_nothing()
            return
        self._last += 1
        late = self._loop.call_later(LEFT_SECONDS, self._send, Signal(self._last, signal.SIGKILL))
        self._leaving[self._last] = process, late
        self._send(EndLeft(self._last, process.pids, mounts))

    def _end(self) -> None:
        if self._ended:
            return
        self.close()
        for ended, late in self._leaving.values():
            late.cancel()
            ended.left_nothing()
        self._leaving.clear()
        for waiting in (*self._joins, *self._starts):
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

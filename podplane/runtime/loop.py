"""One selector and one thread for all that a built-in program serves: descriptors, timers, and jobs in child processes."""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
MAX_JOBS = 64
MAX_JOB_BYTES = 4 * 1024 * 1024
"""What a job may say; one that says more is ended."""
CHUNK_BYTES = 64 * 1024

Call = Callable[[], None]
Start = Callable[[int], int]
"""Starts a child that writes to this descriptor; its pid."""


@dataclass(slots=True, eq=False)
class Job:
    """A child process, and what it has said so far. It is over when it ended and nobody can say more."""

    pid: int
    done: Callable[[bytes, int], None]
    said: bytearray = field(default_factory=bytearray)
    unfinished: int = 2


class Loop:
    """The loop. Only `call` may be used from signal handlers and other threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.code: int | None = None
        self.jobs = 0
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()
        self._calls: list[Call] = []
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self.watch(self._wake.fileno(), READ, self._woken)

    def watch(self, fd: int, events: int, call: Call) -> None:
        """Call this whenever the descriptor is ready for `events`; of no events, forget the descriptor."""
        known = fd in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, events, call)
        else:
            self._selector.register(fd, events, call)

    def after(self, seconds: float, call: Call) -> None:
        """Call this once, so much later."""
        heapq.heappush(self._timers, (self.clock() + seconds, next(self._numbers), call))

    def call(self, call: Call) -> None:
        """Call this soon, in the loop's thread."""
        self._calls.append(call)
        try:
            self._waker.send(b"!")
        except BlockingIOError:
            pass  # it is going to wake up anyway

    def stop(self, code: int) -> None:
        """End `run` with this exit code."""
        self.code = code

    def on_signal(self, number: signal.Signals, call: Call) -> None:
        """Call this, in the loop, for every such signal."""
        signal.signal(number, lambda *_: self.call(call))

    def run(self) -> int:
        """Serve until `stop`; its exit code."""
        while self.code is None:
            for key, _ in self._selector.select(self._until_timer()):
                if self._selector.get_map().get(key.fd) is key:  # unless what came before it in this turn changed that
                    key.data()
            self._run_timers()
        return self.code

    def _until_timer(self) -> float | None:
        return max(0.0, self._timers[0][0] - self.clock()) if self._timers else None

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.clock():
            heapq.heappop(self._timers)[2]()

    def _woken(self) -> None:
        self._wake.recv(4096)
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    # Jobs.

    def job(self, start: Start, done: Callable[[bytes, int], None]) -> bool:
        """Run a child, then call `done(what it said, its wait status)`; False when there are too many already."""
        if self.jobs >= MAX_JOBS:
            return False
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            job = Job(start(write), done)
            ended = os.pidfd_open(job.pid)
        except OSError:
            os.close(read)
            return False
        finally:
            os.close(write)
        self.jobs += 1
        self.watch(read, READ, lambda: self._hear(job, read))
        self.watch(ended, READ, lambda: self._part_over(job, ended))
        return True

    def _hear(self, job: Job, fd: int) -> None:
        data = os.read(fd, CHUNK_BYTES)
        job.said += data
        if len(job.said) > MAX_JOB_BYTES:
            os.killpg(job.pid, signal.SIGKILL)  # not reaped before its pipe is closed, so this is nobody else
        if not data or len(job.said) > MAX_JOB_BYTES:
            self._part_over(job, fd)

    def _part_over(self, job: Job, fd: int) -> None:
        self.watch(fd, 0, _nothing)
        os.close(fd)
        job.unfinished -= 1
        if not job.unfinished:
            self.jobs -= 1
            _, status = os.waitpid(job.pid, 0)
            job.done(bytes(job.said), status)


def _nothing() -> None:
    """For a descriptor that is watched for nothing."""


def forked(work: Callable[[], bytes]) -> Start:
    """A job that runs this in a fork of the program, and says what it returns."""

    def start(fd: int) -> int:
        pid = os.fork()
        if pid:
            os.setpgid(pid, pid)
            return pid
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            data = work()
            while data:
                data = data[os.write(fd, data) :]
            code = 0
        finally:
            os._exit(code)

    return start


def shell(command: str, environment: dict[str, str]) -> Start:
    """A job that runs this in a shell, and says what it writes to its output and its errors."""

    def start(fd: int) -> int:
        return os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", command],
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, 1), (os.POSIX_SPAWN_DUP2, fd, 2)],
            setpgroup=0,
            setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGINT],
        )

    return start

"""Commands that users run in containers: a process that joins one, with pipes or a terminal towards the conversation."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cluster.channels import STDERR, STDOUT
from podplane.cluster.streams import ExecRequest, StreamError
from podplane.kernel.process import Process
from podplane.runtime.pod import PodWorker, RunningContainer

CHUNK_BYTES = 32 * 1024
LAST_WORDS_SECONDS = 1.0
"""How long output is awaited after the command ended: something it left behind may hold its output open for ever."""


@dataclass(slots=True)
class Streams:
    """`NodeStreams` over the kubelets of a lab: `find` gives the worker of a pod by namespace and name."""

    find: Callable[[str, str], PodWorker | None]
    null: int

    def execute(self, request: ExecRequest) -> CommandExecution:
        """Start a command. StreamError when there is no such container, or it doesn't run now."""
        worker = self.find(request.namespace, request.pod)
        if worker is None or worker.netns is None:
            raise StreamError(f"pod {request.namespace}/{request.pod} does not run yet, or is ending")
        container = worker.container(request.container)
        if container is None:
            names = ", ".join(c.spec.name for c in worker.containers)
            raise StreamError(f"container {request.container} is not valid for pod {request.pod}: it has {names}")
        if container.process is None and not worker.node.sandbox_only:
            state = f"{container.state.state}: {container.state.reason} {container.state.message}".strip()
            raise StreamError(f"container {container.spec.name} of pod {request.pod} does not run now ({state})")
        return CommandExecution.start(worker, container, request, self.null)


@dataclass(slots=True, eq=False)
class CommandExecution:
    """One command, as the conversation sees it."""

    process: Process
    _outputs: list[tuple[int, int]]
    _input: int
    _terminal: int
    _open: set[int]

    @classmethod
    def start(cls, worker: PodWorker, container: RunningContainer, request: ExecRequest, null: int) -> CommandExecution:
        """Start it: with a terminal of its own, or with pipes. In a pod without processes it gets namespaces of its own."""
        assert worker.netns is not None
        environment = dict(worker.environment(container.spec))
        if request.tty:
            environment["TERM"] = "xterm-256color"
            terminal, far = os.openpty()
            stdio, theirs = (far, far, far), [far]
            outputs, own_input = [(STDOUT, terminal)], terminal if request.stdin else -1
        else:
            out, their_out = os.pipe2(os.O_CLOEXEC)
            err, their_err = os.pipe2(os.O_CLOEXEC)
            their_in, own_input = os.pipe2(os.O_CLOEXEC) if request.stdin else (null, -1)
            stdio, theirs = (their_in, their_out, their_err), [their_out, their_err, *([their_in] if request.stdin else [])]
            outputs, terminal = [(STDOUT, out), (STDERR, err)], -1
        process = worker.node.processes.spawn(
            request.command,
            stdio,
            netns=worker.netns.fd,
            join=container.process.id if container.process is not None else 0,
            env=environment,
            hostname=worker.hostname,
            directory=container.spec.working_dir,
            tty=request.tty,
        )
        for fd in theirs:
            os.close(fd)
        ours = {fd for _, fd in outputs} | ({own_input} if own_input >= 0 else set())
        for fd in ours:
            os.set_blocking(fd, False)
        return cls(process, outputs, own_input, terminal, ours)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, data) as it comes, until it has closed its output."""
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(8)
        readers = [asyncio.ensure_future(self._read(channel, fd, queue)) for channel, fd in self._outputs]
        done = asyncio.ensure_future(self._all_read(readers))
        try:
            while True:
                item = asyncio.ensure_future(queue.get())
                await asyncio.wait((item, done), return_when=asyncio.FIRST_COMPLETED)
                if item.done():
                    yield item.result()
                    continue
                item.cancel()
                if queue.empty():
                    return
        finally:
            for task in (*readers, done):
                task.cancel()
            await asyncio.gather(*readers, done, return_exceptions=True)

    async def _all_read(self, readers: Sequence[asyncio.Future[None]]) -> None:
        """All output has been read, or the command ended a while ago."""
        reading: set[asyncio.Future[Any]] = set(readers)
        while reading and not self.process.exited.done():
            done, _ = await asyncio.wait({*reading, self.process.exited}, return_when=asyncio.FIRST_COMPLETED)
            reading -= done
        if reading:
            await asyncio.wait(reading, timeout=LAST_WORDS_SECONDS)

    async def _read(self, channel: int, fd: int, queue: asyncio.Queue[tuple[int, bytes]]) -> None:
        while True:
            try:
                data = os.read(fd, CHUNK_BYTES)
            except BlockingIOError:
                await _ready(fd, writing=False)
                continue
            except OSError:  # EIO: nobody has the terminal's other end any more
                data = b""
            if not data:
                return
            await queue.put((channel, data))

    async def write(self, data: bytes) -> None:
        """To its standard input; what it doesn't want to read is dropped when it ends."""
        while data and self._input >= 0:
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:
                await _ready(self._input, writing=True)
            except OSError:
                self.close_input()

    def close_input(self) -> None:
        """No more input; idempotent. A terminal stays open: there, end of input is a character."""
        if self._input >= 0 and self._terminal < 0:
            self._close(self._input)
            self._input = -1

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's new size."""
        if self._terminal in self._open and 0 < columns < 1 << 16 and 0 < rows < 1 << 16:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def outcome(self) -> tuple[int, str]:
        """(exit code, why it could not be started or "")."""
        code = await asyncio.shield(self.process.exited)
        return code, self.process.error

    def abandon(self) -> None:
        """End it and let go of everything; idempotent."""
        self.process.signal(signal.SIGKILL)
        for fd in list(self._open):
            self._close(fd)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            loop = asyncio.get_running_loop()
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            os.close(fd)


async def _ready(fd: int, *, writing: bool) -> None:
    """Wait until the descriptor can be read, or written."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    add(fd, tell)
    try:
        await ready
    finally:
        remove(fd)

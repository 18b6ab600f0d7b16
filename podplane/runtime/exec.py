"""Commands that users run in containers: a process that joins one, with pipes or a terminal towards the conversation."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from podplane.kernel.namespace import Namespace
from podplane.kernel.process import Process, ProcessError, Processes
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Root
from podplane.kernel.zygote_messages import NOT_EXECUTABLE
from podplane.kubeapi.channels import STDERR, STDOUT
from podplane.kubeapi.streams import ExecRequest
from podplane.model.pod import Container, Pod
from podplane.runtime.container import ContainerRun
from podplane.runtime.descriptors import ready, write_all
from podplane.runtime.images import command_in
from podplane.runtime.node import PodSandbox
from podplane.runtime.terminals import Terminal

CHUNK_BYTES = 32 * 1024
OUTPUT_BYTES = 10 * 1024
REST_SECONDS = 0.005
"""Between two pieces of output that nobody wants."""
LAST_WORDS_SECONDS = 1.0
"""How long output is awaited after the command ended: something it left behind may hold its output open for ever."""


class RunningPod(Protocol):
    """What a command needs of the pod in which it runs (`pod.PodWorker`)."""

    @property
    def pod(self) -> Pod:
        """The object."""

    @property
    def netns(self) -> Namespace | None:
        """Its network namespace, once it has one."""

    @property
    def sandbox(self) -> PodSandbox | None:
        """Its namespaces, once it has some."""

    @property
    def bare_root(self) -> Root | None:
        """The file system of what runs in no container: without volumes."""

    @property
    def null(self) -> int:
        """A descriptor of /dev/null."""

    @property
    def processes(self) -> Processes:
        """What starts processes."""

    @property
    def hostname(self) -> str:
        """What its processes call their machine."""

    def environment(self, container: Container) -> dict[str, str]:
        """The environment of a container's processes. ConfigError when a variable can't be had."""

    def rights(self, container: Container) -> Rights:
        """Who a container's processes are, and what they may do. ConfigError when they can't be that."""


class _Pipes(NamedTuple):
    """Pipes of a command: `theirs` are its standard streams, `outputs` ours by their channels, `input` ours, -1 for none."""

    theirs: tuple[int, int, int]
    outputs: list[tuple[int, int]] = []
    input: int = -1

    @classmethod
    def open(cls, null: int, *, stdin: bool) -> _Pipes:
        """New ones; without `stdin` it reads nothing."""
        out, their_out = os.pipe2(os.O_CLOEXEC)
        err, their_err = os.pipe2(os.O_CLOEXEC)
        their_in, own_input = os.pipe2(os.O_CLOEXEC) if stdin else (null, -1)
        return cls((their_in, their_out, their_err), [(STDOUT, out), (STDERR, err)], own_input)


class CommandExecution(msgspec.Struct, eq=False):
    """One command, as the conversation sees it."""

    process: Process
    _outputs: list[tuple[int, int]]
    _input: int
    _open: set[int]
    _terminal: Terminal | None = None
    _is_typed_to: bool = False
    """Does its terminal get input?"""
    _silence: str = ""
    """Why its start is awaited no longer."""

    @classmethod
    def start(cls, pod: RunningPod, container: ContainerRun, request: ExecRequest, null: int) -> CommandExecution:
        """Start it: with a terminal of its own, or with pipes. In a pod without processes it gets namespaces of its own."""
        assert pod.netns is not None
        # What the container was started with, whatever has become of its ConfigMaps since; a sandbox was started with nothing.
        environment = dict(container.environment) if container.is_alive else pod.environment(container.spec)
        terminal = Terminal() if request.tty else None
        if terminal is not None:
            environment["TERM"] = "xterm-256color"
        pipes = _Pipes((null, null, null)) if terminal is not None else _Pipes.open(null, stdin=request.stdin)
        join = container.process.id if container.process is not None else 0
        command = command_in(container.spec.image, request.command)
        process = pod.processes.spawn(
            command.words,
            pipes.theirs,
            netns=pod.netns.fd,
            join=join,
            env=environment,
            hostname=pod.hostname,
            directory=container.spec.working_dir,
            terminal=terminal.take if terminal is not None else None,
            program=command.program,
            sandbox=pod.sandbox.id if pod.sandbox is not None and not join else 0,
            root=None if join else pod.bare_root,
            rights=pod.rights(container.spec),
        )
        for fd in set(pipes.theirs) - {null}:
            os.close(fd)
        ours = {fd for _, fd in pipes.outputs} | ({pipes.input} - {-1})
        for fd in ours:
            os.set_blocking(fd, False)
        return cls(process, pipes.outputs, pipes.input, ours, terminal, request.stdin)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, data) as it comes, until it has closed its output."""
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(8)
        readers = [asyncio.ensure_future(self._read(channel, fd, queue)) for channel, fd in self._outputs]
        if self._terminal is not None:
            readers.append(asyncio.ensure_future(self._read_terminal(self._terminal, queue)))
        done = asyncio.ensure_future(self._all_read(readers))
        item = asyncio.ensure_future(queue.get())
        try:
            while True:
                await asyncio.wait((item, done), return_when=asyncio.FIRST_COMPLETED)
                if not item.done():
                    return  # all was read, and nothing of it is left
                data = item.result()
                item = asyncio.ensure_future(queue.get())
                yield data
        finally:
            tasks = (*readers, done, item)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _all_read(self, readers: Sequence[asyncio.Future[None]]) -> None:
        """All output has been read, or the command ended a while ago, or nothing is heard of its start."""
        try:
            await self.process.started()
        except ProcessError as error:
            if not self.process.exited.done() and not self.process.error:  # with an error an exit code comes, too
                self._silence = str(error)
            return
        reading: set[asyncio.Future[Any]] = set(readers)
        while reading and not self.process.exited.done():
            done, _ = await asyncio.wait({*reading, self.process.exited}, return_when=asyncio.FIRST_COMPLETED)
            reading -= done
        if reading:
            await asyncio.wait(reading, timeout=LAST_WORDS_SECONDS)

    async def _read_terminal(self, terminal: Terminal, queue: asyncio.Queue[tuple[int, bytes]]) -> None:
        await self._read(STDOUT, await terminal.there(), queue)

    async def _read(self, channel: int, fd: int, queue: asyncio.Queue[tuple[int, bytes]]) -> None:
        while True:
            try:
                data = os.read(fd, CHUNK_BYTES)
            except BlockingIOError:
                await ready(fd, writing=False)
                continue
            except OSError:  # EIO: nobody has the terminal's other end any more
                data = b""
            if not data:
                return
            await queue.put((channel, data))

    async def write(self, data: bytes) -> None:
        """To its standard input; what it doesn't want to read is dropped when it ends."""
        if self._terminal is not None and self._is_typed_to:
            await self._terminal.write(data)
        elif self._input >= 0 and not await write_all(self._input, data):
            self.close_input()

    def close_input(self) -> None:
        """No more input; idempotent. A terminal stays open: there, end of input is a character."""
        if self._input >= 0:
            self._close(self._input)
            self._input = -1

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's new size."""
        if self._terminal is not None:
            self._terminal.resize(columns, rows)

    async def outcome(self) -> tuple[int, str]:
        """(exit code, why it could not be started or "")."""
        if self._silence:
            return NOT_EXECUTABLE, self._silence
        code = await asyncio.shield(self.process.exited)
        return code, self.process.error

    def abandon(self) -> None:
        """End it and let go of everything; idempotent."""
        self.process.signal(signal.SIGKILL)
        for fd in list(self._open):
            self._close(fd)
        if self._terminal is not None:
            self._terminal.close()

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            loop = asyncio.get_running_loop()
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            os.close(fd)


async def run_to_end(pod: RunningPod, container: ContainerRun, command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run a command of a probe or a hook: (exit code, the beginning of its output). TimeoutError when it takes longer."""
    if not container.is_alive:
        return NOT_EXECUTABLE, "the container does not run"
    meta = pod.pod.metadata
    request = ExecRequest(meta.namespace, meta.name, container.spec.name, command)
    execution = CommandExecution.start(pod, container, request, pod.null)
    output = b""
    try:
        async with asyncio.timeout(seconds):
            async for _, data in execution.output():
                output = (output + data)[:OUTPUT_BYTES]
                if len(output) == OUTPUT_BYTES:  # nobody wants the rest, of which there may be no end
                    await asyncio.sleep(REST_SECONDS)
            code, error = await execution.outcome()
    finally:
        execution.abandon()
    return code, error or output.decode(errors="replace")

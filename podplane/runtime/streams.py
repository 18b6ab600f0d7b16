"""What users ask of nodes through the API: commands in containers, their logs, and their main processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec

from podplane.kernel.namespace import Namespace
from podplane.kubeapi.channels import STDERR, STDOUT
from podplane.kubeapi.streams import ExecRequest, LogRequest, StreamError
from podplane.runtime import logs, output, portforward
from podplane.runtime.container import ContainerRun
from podplane.runtime.exec import CommandExecution
from podplane.runtime.pod import PodWorker

BACKLOG_CHUNKS = 256
"""What a listener that doesn't read may leave, in pieces of 64 KiB at most."""


class Streams(msgspec.Struct):
    """`NodeStreams` over the kubelets of a lab.

    `find` gives the worker of a pod by namespace and name; `gateway` is at the nodes' network.
    """

    find: Callable[[str, str], PodWorker | None]
    null: int
    gateway: Namespace

    def check(self, request: ExecRequest) -> None:
        """StreamError unless there is such a container, and it runs now."""
        self._running(request)

    def execute(self, request: ExecRequest) -> CommandExecution:
        """Start a command. StreamError when there is no such container, or it doesn't run now."""
        worker, container = self._running(request)
        return CommandExecution.start(worker, container, request, self.null)

    def attach(self, request: ExecRequest) -> Attachment:
        """Listen to a container's main process. StreamError when there is no such container, or it doesn't run now."""
        _, container = self._running(request)
        return Attachment.to(container, request)

    def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        """A container's log. StreamError when there is no such container, or it has not begun."""
        worker = self._worker(request.namespace, request.pod)
        container = _container(worker, request.container)
        state = container.state
        run = state.restarts - (1 if request.previous else 0)
        if run < 0:
            raise StreamError(f'previous terminated container "{container.spec.name}" in pod "{request.pod}" not found')
        if not request.previous and not state.started_at and container.output is None:
            why = state.reason or "it has not begun"
            raise StreamError(f'container "{container.spec.name}" in pod "{request.pod}" is waiting to start: {why}')
        live = container.output.log if container.output is not None and not request.previous else None
        return logs.read(worker.log_file(container.spec.name, run), request, live)

    async def dial(self, host: str, port: int, *, tls: bool = False) -> portforward.PodConnection:
        """Connect to an address of the nodes' network. StreamError when that can't be."""
        return await portforward.dial_from(self.gateway, host, port, tls=tls)

    async def reach(self, namespace: str, pod: str, host: str, port: int, *, tls: bool = False) -> portforward.PodConnection:
        """Connect to an address of a pod from its node. StreamError when that can't be."""
        worker = self._worker(namespace, pod)
        return await portforward.dial_from(worker.node.namespace, host, port, tls=tls)

    async def connect(self, namespace: str, pod: str, port: int) -> portforward.PodConnection:
        """Connect to a port of a pod's localhost. StreamError when that can't be."""
        worker = self._worker(namespace, pod)
        if worker.netns is None:
            raise StreamError(f"pod {namespace}/{pod} does not run yet, or has ended")
        return await portforward.connect(worker.netns, port)

    def _worker(self, namespace: str, pod: str) -> PodWorker:
        worker = self.find(namespace, pod)
        if worker is None:
            raise StreamError(f"pod {namespace}/{pod} does not run yet, or is ending")
        return worker

    def _running(self, request: ExecRequest) -> tuple[PodWorker, ContainerRun]:
        worker = self._worker(request.namespace, request.pod)
        container = _container(worker, request.container)
        if worker.netns is None:
            raise StreamError(f"pod {request.namespace}/{request.pod} does not run yet, or has ended")
        if container.process is None and not worker.node.sandbox_only:
            state = f"{container.state.state}: {container.state.reason} {container.state.message}".strip()
            raise StreamError(f"container {container.spec.name} of pod {request.pod} does not run now ({state})")
        return worker, container


def _container(worker: PodWorker, name: str) -> ContainerRun:
    container = worker.container(name)
    if container is None:
        names = ", ".join(run.spec.name for run in worker.runs)
        raise StreamError(f"container {name} is not valid for pod {worker.pod.metadata.name}: it has {names}")
    return container


@dataclass(slots=True, eq=False)
class Attachment:
    """A listener of a container's main process, as a conversation."""

    container: ContainerRun
    source: output.Output
    wants_input: bool
    once: bool
    open_streams: int
    """Those that had not ended when this one began to listen, and have not since."""
    _queue: asyncio.Queue[tuple[int, bytes]] = field(default_factory=lambda: asyncio.Queue(BACKLOG_CHUNKS))

    @classmethod
    def to(cls, container: ContainerRun, request: ExecRequest) -> Attachment:
        """Begin to listen. StreamError when there is nothing to listen to."""
        source = container.output
        if source is None or container.process is None:
            raise StreamError(f"container {container.spec.name} of pod {request.pod} has no output to attach to")
        takes_input = request.stdin and source.takes_input  # else it is dropped, as container runtimes do
        attachment = cls(container, source, takes_input, container.spec.stdin_once, source.open_streams)
        source.listeners.append(attachment._listen)
        return attachment

    def _listen(self, stream: str, data: bytes) -> None:
        channel = STDOUT if stream == output.STDOUT else STDERR
        try:
            self._queue.put_nowait((channel, data))
        except asyncio.QueueFull:
            self.abandon()

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, data) as it comes, until the container's output ends or the listener was too slow."""
        while self.open_streams and self._listen in self.source.listeners:
            channel, data = await self._queue.get()
            if not data:
                self.open_streams -= 1
                continue
            yield channel, data

    async def write(self, data: bytes) -> None:
        """To its standard input."""
        if self.wants_input:
            await self.source.write(data)

    def close_input(self) -> None:
        """No more input of this listener; the container's ends too, if its spec says so (stdinOnce)."""
        if self.wants_input and self.once:
            self.source.close_input()
        self.wants_input = False

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's new size."""
        self.source.resize(columns, rows)

    async def outcome(self) -> tuple[int, str]:
        """(0, "") when the listening ends; the container's own exit code is its status's to tell."""
        return 0, ""

    def abandon(self) -> None:
        """Listen no more; idempotent. The container goes on."""
        if self._listen in self.source.listeners:
            self.source.listeners.remove(self._listen)

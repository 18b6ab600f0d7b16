"""One pod on its node: from the object to a network namespace and processes, and back to nothing.

    attach to the network → start all containers → Running → (containers end → restart, with back-off) → end → detach

One task a pod walks that path; whatever happens to a container wakes it. Processes are started by the zygote and hold the
pod's network namespace together with this object; when both are gone, so is the namespace.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from podplane.cluster.client import Client
from podplane.cluster.errors import ApiError, Conflict, NotFound
from podplane.cni.network import Attachment, Network, NetworkError
from podplane.kernel.namespace import Namespace
from podplane.kernel.process import Process, ProcessError, Processes
from podplane.model.pod import Container, Pod
from podplane.runtime.programs import ECHO_IMAGE, HOST_PREFIX, PROGRAMS
from podplane.runtime.status import RUNNING, TERMINATED, WAITING, ContainerState, pod_status

log = logging.getLogger(__name__)
BACKOFF_SECONDS = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Before the first restart, the second, …; as kubelet's, that begins at once and ends at five minutes."""
FORGIVEN_AFTER_SECONDS = 600.0
"""A container that ran so long begins anew with its back-off."""
RETRY_SECONDS = 2.0
OVER = ("Succeeded", "Failed")
"""Phases of a pod that has ended for good."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Node(Protocol):
    """What a pod needs of its node."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def host_ips(self) -> tuple[str, ...]:
        """Its addresses."""

    @property
    def namespace(self) -> Namespace:
        """Its network namespace."""

    @property
    def network(self) -> Network:
        """What attaches pods."""

    @property
    def processes(self) -> Processes:
        """What starts containers."""

    @property
    def client(self) -> Client:
        """The node's way to the API."""

    @property
    def sandbox_only(self) -> bool:
        """No processes: pods are their network namespaces."""

    async def new_namespace(self) -> Namespace:
        """A new network namespace."""


class ImageError(Exception):
    """No program for this image; one line that says what would work."""


def command_of(container: Container) -> list[str]:
    """What to run for a container: a built-in program, or a command of the machine. ImageError for any other image."""
    words = [*container.command, *container.args]
    if container.image in PROGRAMS:
        return words if container.command else [container.image, *container.args]
    if not container.image.startswith(HOST_PREFIX):
        known = f"{ECHO_IMAGE}, or {HOST_PREFIX}<anything> with a command of this machine"
        raise ImageError(f"image {container.image!r} is not here, a lab has no registry: use {known}")
    if not words:
        raise ImageError(f"image {container.image!r} stands for this machine: give a command to run")
    return words


@dataclass(slots=True, eq=False)
class RunningContainer:
    """A container and its process, if it has one now."""

    spec: Container
    state: ContainerState
    process: Process | None = None
    began: float = 0.0
    restart_at: float | None = None
    failures: int = 0


@dataclass(slots=True, eq=False)
class PodWorker:
    """One pod; `run` is its life. `settled` is set when the first attempt to start it is over, for better or worse."""

    node: Node
    pod: Pod
    null: int
    clock: Callable[[], float]
    netns: Namespace | None = None
    ips: tuple[str, ...] = ()
    containers: list[RunningContainer] = field(default_factory=list)
    started_at: str = ""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _ending: bool = False
    _grace: int = 0

    def end(self, grace: int) -> None:
        """The pod is to end within `grace` seconds."""
        self._ending, self._grace = True, grace
        self._wake.set()

    def container(self, name: str) -> RunningContainer | None:
        """A container by name, or the first."""
        return next((c for c in self.containers if not name or c.spec.name == name), None)

    async def run(self) -> None:
        """Live: until the pod ends, or this is cancelled (then nothing is cleaned up: the process is about to end)."""
        self.started_at = timestamp()
        self.containers = [RunningContainer(spec, ContainerState(spec.name, spec.image)) for spec in self.pod.spec.containers]
        try:
            await self._live()
        finally:
            if self._ending:
                await self._finish()

    async def _live(self) -> None:
        while not self._ending and self.pod.status.phase in OVER:
            self.settled.set()
            await self._sleep(None)
        while not self._ending and not await self._attach():
            await self._sleep(RETRY_SECONDS)
        if not self._ending:
            await self._start_all()
        while not self._ending:
            await self.report()
            self.settled.set()
            await self._sleep(self._until_restart())
            await self._restart_due()

    async def _start_all(self) -> None:
        if not self.node.sandbox_only:
            await asyncio.gather(*(self._start(c) for c in self.containers))
            return
        for container in self.containers:
            container.state.state, container.state.started_at = RUNNING, timestamp()

    async def _sleep(self, seconds: float | None) -> None:
        """Until something happens, at most so long."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass
        self._wake.clear()

    # Network.

    @property
    def attachment(self) -> Attachment:
        """The pod as its network knows it."""
        assert self.netns is not None
        meta = self.pod.metadata
        return Attachment(meta.uid, meta.namespace, meta.name, self.netns, requested_ips=self.pod.ips)

    async def _attach(self) -> bool:
        """A network namespace with addresses; when it can't be had, the pod's status says why."""
        if self.pod.spec.host_network:
            self.netns, self.ips = self.node.namespace, self.node.host_ips
            return True
        try:
            if self.netns is None:
                self.netns = await self.node.new_namespace()
            self.ips = (await self.node.network.add(self.attachment)).ips
        except (NetworkError, OSError) as error:
            for container in self.containers:
                container.state.message = str(error) if isinstance(error, NetworkError) else _no_namespace(error)
            await self.report()
            self.settled.set()
            return False
        for container in self.containers:
            container.state.message = ""
        return True

    async def _detach(self) -> None:
        if self.netns is None or self.pod.spec.host_network:
            return
        await self.node.network.delete(self.attachment)
        self.netns.close()
        self.netns = None

    # Containers.

    def environment(self, container: Container) -> Mapping[str, str]:
        """The environment of a container's processes."""
        fixed = {"PATH": PATH, "HOME": "/root", "HOSTNAME": self.hostname}
        return fixed | {variable.name: variable.value for variable in container.env}

    @property
    def hostname(self) -> str:
        """The pod's own name, or that of its node."""
        spec = self.pod.spec
        return self.node.name if spec.host_network else (spec.hostname or self.pod.metadata.name)[:63]

    async def _start(self, container: RunningContainer) -> None:
        state = container.state
        try:
            command = command_of(container.spec)
        except ImageError as error:
            state.state, state.reason, state.message = WAITING, "ErrImagePull", str(error)
            return
        assert self.netns is not None
        process = self.node.processes.spawn(
            command,
            (self.null, self.null, self.null),
            netns=self.netns.fd,
            env=self.environment(container.spec),
            hostname=self.hostname,
            directory=container.spec.working_dir,
        )
        container.process, container.began = process, self.clock()
        process.exited.add_done_callback(lambda future: self._ended(container, process, future))
        try:
            await process.started()
        except ProcessError:
            return  # `_ended` says why
        if container.process is process and not process.exited.done():
            state.state, state.reason, state.message, state.started_at = RUNNING, "", "", timestamp()
            state.container_id = f"podplane://{self.pod.metadata.uid}/{container.spec.name}/{state.restarts}"

    def _ended(self, container: RunningContainer, process: Process, future: asyncio.Future[int]) -> None:
        if container.process is not process or future.cancelled():
            return
        state, code = container.state, future.result()
        container.process = None
        state.exit_code, state.finished_at = code, timestamp()
        state.started_at = state.started_at or state.finished_at
        state.state, state.reason = TERMINATED, "Completed" if code == 0 else "Error"
        if process.error:
            state.reason, state.message = "StartError", process.error
        if self._restarts(code):
            if self.clock() - container.began > FORGIVEN_AFTER_SECONDS:
                container.failures = 0
            wait = BACKOFF_SECONDS[min(container.failures, len(BACKOFF_SECONDS) - 1)]
            container.failures += 1
            container.restart_at = self.clock() + wait
        self._wake.set()

    def _restarts(self, code: int) -> bool:
        policy = self.pod.spec.restart_policy
        return not self._ending and (policy == "Always" or (policy == "OnFailure" and code != 0))

    def _until_restart(self) -> float | None:
        due = [c.restart_at for c in self.containers if c.restart_at is not None]
        return max(0.0, min(due) - self.clock()) if due else None

    async def _restart_due(self) -> None:
        for container in self.containers:
            state = container.state
            if container.restart_at is None or self._ending:
                continue
            if state.state == TERMINATED:
                state.last = {"exitCode": state.exit_code, "reason": state.reason, "finishedAt": state.finished_at}
                state.state, state.reason = WAITING, "CrashLoopBackOff"
            if container.restart_at <= self.clock():
                container.restart_at = None
                state.restarts += 1
                await self._start(container)

    # The end.

    async def _finish(self) -> None:
        """SIGTERM, the grace, SIGKILL; then the network, then the object."""
        self.settled.set()
        began = self.clock()
        for process in self._alive() if self._grace else ():
            process.signal(signal.SIGTERM)
        while (alive := self._alive()) and (
            left := began + self._grace - self.clock()
        ) > 0:  # a process ends, or the grace shrinks
            await self._sleep(left)
        for process in alive:
            process.signal(signal.SIGKILL)
        if alive:
            await asyncio.wait([p.exited for p in alive])
        await self._detach()
        meta = self.pod.metadata
        try:
            await self.node.client.delete("pods", meta.namespace, meta.name, grace=0, uid=meta.uid)
        except (NotFound, Conflict):
            pass  # somebody forced it
        except ApiError as error:
            log.warning("delete pod=%s error=%s", meta.path, error)

    def _alive(self) -> list[Process]:
        return [c.process for c in self.containers if c.process is not None and not c.process.exited.done()]

    async def report(self) -> None:
        """Write the status."""
        meta = self.pod.metadata
        states = [c.state for c in self.containers]
        status: dict[str, Any] = pod_status(states, self.pod.spec.restart_policy, self.ips, self.node.host_ips, self.started_at)
        try:
            await self.node.client.patch_status("pods", meta.namespace, meta.name, status, meta.uid)
        except (NotFound, Conflict):
            pass  # its deletion is on its way to us
        except ApiError as error:
            log.warning("status pod=%s error=%s", meta.path, error)


def _no_namespace(error: OSError) -> str:
    return f"no network namespace can be made ({error.strerror}): raise the sysctl user.max_net_namespaces, or open files"


def timestamp() -> str:
    """Now, as the API writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def open_null() -> int:
    """A descriptor of /dev/null."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

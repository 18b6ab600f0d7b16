"""The pods of one node: which there are, and one task for each."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from podplane.cni.network import Network
from podplane.dns.resolv_conf import NodeDns
from podplane.kernel.cgroups import Groups
from podplane.kernel.namespace import Namespace
from podplane.kernel.process import Processes
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.kubeapi.supervise import end
from podplane.model.pod import Pod
from podplane.model.service import Service
from podplane.runtime.node import PodSandbox
from podplane.runtime.pod import PodWorker

log = logging.getLogger(__name__)
RESTART_SECONDS = 10.0
"""A pod's worker that ended unforeseen is followed by another one after that."""


class Kubelet(msgspec.Struct, eq=False):
    """One node's kubelet; its methods run on one event loop."""

    name: str
    host_ips: tuple[str, ...]
    namespace: Namespace
    network: Network
    processes: Processes
    client: Client
    recorder: Recorder
    make_sandbox: Callable[[int, int], Awaitable[PodSandbox]]
    host_sandbox: PodSandbox
    null: int
    logs: Path
    services: Mapping[str, Service]
    allocatable: Mapping[str, str]
    folder: Path | None = None
    dns: NodeDns = NodeDns()  # it is immutable
    sandbox_only: bool = False
    hidden: Sequence[str] = ()
    shows_homes: bool = False
    shows_processes: bool = False
    layers: str = ""
    host_paths: Sequence[str] = ()
    up: str = "podplane up"
    groups: Groups = Groups()  # it is immutable
    clock: Callable[[], float] = time.monotonic
    is_off: bool = False
    """Has its machine lost its power?"""
    workers: dict[str, PodWorker] = msgspec.field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = msgspec.field(default_factory=dict)

    async def new_sandbox(self, user: int, group: int) -> PodSandbox:
        """The namespaces of a new pod. OSError when there can be none."""
        return await self.make_sandbox(user, group)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """A pod of this node came, changed, or went."""
        pod = new or old
        if pod is None:
            return
        worker = self.workers.get(pod.metadata.uid)
        if new is None:
            if worker is not None:
                worker.end(0)
        elif worker is None:
            self._begin(new)
        elif new.metadata.deletion_timestamp is not None:
            worker.end(grace_of(new))
        else:
            worker.changed(new)

    def _begin(self, pod: Pod, *, is_ending: bool = False) -> None:
        worker = PodWorker(self, pod, self.null, self.clock)
        if is_ending or pod.metadata.deletion_timestamp is not None:
            worker.end(0)
        self.workers[pod.metadata.uid] = worker
        task = asyncio.get_running_loop().create_task(worker.run(), name=f"pod {pod.metadata.path}")
        self._tasks[pod.metadata.uid] = task
        task.add_done_callback(lambda done: self._done(worker, done))

    def _done(self, worker: PodWorker, task: asyncio.Task[None]) -> None:
        pod = worker.pod
        self.workers.pop(pod.metadata.uid, None)
        self._tasks.pop(pod.metadata.uid, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod=%s node=%s failed", pod.metadata.path, self.name, exc_info=error)
            asyncio.get_running_loop().call_later(RESTART_SECONDS, self._begin_again, worker.pod, worker.is_ending)

    def _begin_again(self, pod: Pod, is_ending: bool) -> None:
        """The worker of this pod ended unforeseen: another one takes over, unless it has one already."""
        if pod.metadata.uid not in self.workers and not self.is_off:
            self._begin(pod, is_ending=is_ending)

    async def lose_power(self) -> None:
        """All of its pods are gone at once, with their processes: nothing is detached, nobody is told, and none comes again."""
        self.is_off = True
        workers, tasks = list(self.workers.values()), list(self._tasks.values())
        for worker in workers:
            worker.is_ending = False  # it would end its pod in order
        await end(tasks)
        await asyncio.gather(*(worker.lose_power() for worker in workers))

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod by name: of two with one name, the one that isn't ending."""
        found = [w for w in self.workers.values() if (w.pod.metadata.namespace, w.pod.metadata.name) == (namespace, name)]
        return found[-1] if found else None


def open_null() -> int:
    """A descriptor of /dev/null."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def grace_of(pod: Pod) -> int:
    """Seconds between SIGTERM and SIGKILL that the deletion asked for."""
    seconds = pod.metadata.deletion_grace_period_seconds
    return pod.spec.termination_grace_period_seconds if seconds is None else seconds

"""Sandboxes of pods as their kubelets hold them: the namespaces, and the network namespace to work in.

What was asked for in vain is let go of: the zygote may be late, and would keep it for ever.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Sequence

import msgspec

from podplane.cni.network import Attachment
from podplane.kernel.namespace import Namespace, NetworkNamespace, Workers
from podplane.kernel.process import Mounts, Processes, Sandbox
from podplane.kernel.volumes import Tmpfs
from podplane.model.bandwidth import limits
from podplane.model.pod import Pod
from podplane.runtime.environment import ConfigError
from podplane.runtime.pod_spec import host_ports

log = logging.getLogger(__name__)
REST_SECONDS = 0.05
"""Those of the next pod are made when no pod has asked for any for so long."""
AT_ONCE = 8
"""So many are asked for at a time; the zygote makes one after the other."""


class PodNamespaces(msgspec.Struct, frozen=True):
    """The namespaces of a pod (`node.PodSandbox`)."""

    sandbox: Sandbox
    namespace: NetworkNamespace

    @property
    def id(self) -> int:
        """The number by which processes are started in it."""
        return self.sandbox.id

    def close(self) -> None:
        """Let go of it; idempotent."""
        self.sandbox.release()
        self.namespace.close()


async def make(processes: Processes, workers: Workers, user: int = 0, group: int = 0) -> PodNamespaces:
    """New namespaces for a pod, with this user and group where pods have one. OSError when there can be none."""
    sandbox = processes.make_sandbox(user, group)
    try:
        return PodNamespaces(sandbox, NetworkNamespace(await sandbox.netns(), workers))
    except (OSError, asyncio.CancelledError):
        sandbox.release()
        raise


class SandboxMaker:
    """Makes the namespaces of pods, and some before anybody asks for them: a known number (`make_ahead`), or those of the next pod, when
    nobody has asked for a moment (`keep_one_ahead`). Its methods run on one event loop."""

    def __init__(self, processes: Processes, workers: Workers) -> None:
        self._processes, self._workers = processes, workers
        self._spares: list[PodNamespaces] = []
        self._wanted = 0
        """So many are still to be made ahead."""
        self._is_ahead = False
        self._timer: asyncio.TimerHandle | None = None
        self._filling: list[asyncio.Task[None]] = []

    def make_ahead(self, count: int) -> None:
        """Make those of so many pods now, with the users that most have."""
        self._wanted = count
        self._fill()

    def keep_one_ahead(self) -> None:
        """From now on there are those of the next pod, and no more."""
        self._wanted, self._is_ahead = 0, True
        while len(self._spares) > 1:
            self._spares.pop().close()
        self._rest()

    async def make(self, user: int = 0, group: int = 0) -> PodNamespaces:
        """New namespaces for a pod, with this user and group where pods have one. OSError when there can be none."""
        if self._is_ahead:
            self._rest()
        if not user and not group:
            if self._spares:
                return self._spares.pop()
            self._wanted = max(0, self._wanted - 1)
        return await make(self._processes, self._workers, user, group)

    def _rest(self) -> None:
        """Make some when nobody has asked for that long."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(REST_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if not self._spares:
            self._wanted = 1
            self._fill()

    def _fill(self) -> None:
        self._filling = [task for task in self._filling if not task.done()]
        for _ in range(min(self._wanted, AT_ONCE) - len(self._filling)):
            self._filling.append(asyncio.get_running_loop().create_task(self._make_wanted(), name="sandboxes made ahead"))

    async def _make_wanted(self) -> None:
        try:
            while self._wanted:
                self._wanted -= 1
                self._spares.append(await make(self._processes, self._workers))
        except OSError as error:  # the next pod that asks is told
            self._wanted = 0
            log.debug("sandbox made ahead: %s", error)


def no_namespace(error: OSError) -> str:
    """Why there is no network namespace, and what to do."""
    if isinstance(error, TimeoutError):
        return f"no network namespace was made ({error.strerror})"
    what = (
        "this user's limit of processes (ulimit -u)"
        if error.errno == errno.EAGAIN
        else "the sysctl user.max_net_namespaces, or open files"
    )
    return f"no network namespace can be made ({error.strerror}): raise {what}"


def attachment(pod: Pod, sandbox_id: str, netns: Namespace) -> Attachment:
    """A pod as its network knows it. ValueError where an annotation makes no sense (`pod_fields.why_refused`)."""
    meta = pod.metadata
    return Attachment(
        container_id=sandbox_id,
        pod_uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        netns=netns,
        requested_ips=pod.ips,
        host_ports=host_ports(pod),
        bandwidth=limits(meta.annotations),
    )


async def mounts(processes: Processes, wanted: Sequence[Tmpfs]) -> Mounts:
    """File systems for a pod's emptyDirs. ConfigError when there can be none."""
    made = processes.make_mounts(wanted)
    try:
        await made.made()
    except asyncio.CancelledError:
        made.release()
        raise
    except OSError as error:
        made.release()
        raise ConfigError(f"no file system for an emptyDir can be made: {error.strerror}") from None
    return made

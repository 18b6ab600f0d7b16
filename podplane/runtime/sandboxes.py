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
"""Namespaces are made ahead when no pod has asked for any for so long."""


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
    """Makes the namespaces of pods. With `make_ahead` there are some already when one pod is asked for: those of the next one, which
    are made when nobody has asked for a moment. Its methods run on one event loop."""

    def __init__(self, processes: Processes, workers: Workers) -> None:
        self._processes, self._workers = processes, workers
        self._spare: PodNamespaces | None = None
        self._is_ahead = False
        self._timer: asyncio.TimerHandle | None = None
        self._filling: asyncio.Task[None] | None = None

    def make_ahead(self) -> None:
        """Do so from now on."""
        self._is_ahead = True
        self._rest()

    async def make(self, user: int = 0, group: int = 0) -> PodNamespaces:
        """New namespaces for a pod, with this user and group where pods have one. OSError when there can be none."""
        made = None
        if not user and not group:
            made, self._spare = self._spare, None
        if self._is_ahead:
            self._rest()
        return made or await make(self._processes, self._workers, user, group)

    def _rest(self) -> None:
        """Make some when nobody has asked for that long."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(REST_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._spare is None and (self._filling is None or self._filling.done()):
            self._filling = asyncio.get_running_loop().create_task(self._fill(), name="sandbox made ahead")

    async def _fill(self) -> None:
        try:
            self._spare = await make(self._processes, self._workers)
        except OSError as error:  # the next pod that asks is told
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

"""One PID namespace for all containers of a pod (`shareProcessNamespace`): a pause process is its process 1, as in Kubernetes. It reaps
what has no parent any more, and ends with the pod."""

from __future__ import annotations

import signal

import msgspec

from podplane.kernel import cgroups, ids
from podplane.kernel.cgroups import Group
from podplane.kernel.process import Process
from podplane.kernel.rights import Rights
from podplane.kernel.seccomp import is_known
from podplane.runtime import limits, roots, security, users
from podplane.runtime.exec import RunningPod
from podplane.runtime.node import Node
from podplane.runtime.program_names import CLIENT_IMAGE

WORDS = ("/pause",)
NOBODY = 65535
"""The user and group of the pause image (kubernetes, build/pause/Dockerfile)."""


class SharedProcesses(msgspec.Struct, eq=False):
    """The pause process of a pod, if it has one."""

    _pause: Process | None = None
    _group: Group | None = None
    _begun: int = 0

    def number(self, pod: RunningPod, node: Node) -> int:
        """The number of the process among whose processes its containers are; 0 where each has its own. One that has ended, and all
        containers with it, is followed by another."""
        if not pod.pod.spec.share_process_namespace:
            return 0
        if self._pause is None or self._pause.exited.done():
            self._begin(pod, node)
        assert self._pause is not None
        return self._pause.id

    def _begin(self, pod: RunningPod, node: Node) -> None:
        assert pod.netns is not None
        self._forget_group()
        self._group = roots.share_of_pause(node, pod.pod, self._begun)
        self._begun += 1
        self._pause = pod.processes.spawn(
            WORDS,
            (pod.null,) * 3,
            netns=pod.netns.fd,
            hostname=pod.hostname,
            root=pod.bare_root,
            program=CLIENT_IMAGE,
            sandbox=pod.sandbox.id if pod.sandbox is not None else 0,
            rights=_rights(pod),
            group=self._group,
            oom=limits.LEAST_LIKELY,
        )

    async def end(self) -> None:
        """End it, and whatever is left of the containers; idempotent."""
        if self._pause is not None:
            self._pause.signal(signal.SIGKILL)
            await self._pause.exited
            self._pause = None
        self._forget_group()

    def _forget_group(self) -> None:
        if self._group is not None:
            cgroups.end(self._group)
            self._group = None


def _rights(pod: RunningPod) -> Rights:
    """None: it needs no capabilities. Where a pod has one user, it is that one."""
    user, group = (NOBODY, NOBODY) if ids.of_pods().size > 1 else users.only_one(pod.pod)
    return Rights(tuple(sorted(security.EVERY)), True, user, group, is_filtered=is_known())

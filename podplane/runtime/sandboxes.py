"""Sandboxes of pods as their kubelets hold them: what the zygote keeps, and the network namespace to work in."""

from __future__ import annotations

import msgspec

from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.kernel.process import Processes, Sandbox


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
    return PodNamespaces(sandbox, NetworkNamespace(await sandbox.netns(), workers))


def no_namespace(error: OSError) -> str:
    """Why there is no network namespace, and what to do."""
    return f"no network namespace can be made ({error.strerror}): raise the sysctl user.max_net_namespaces, or open files"

"""What a pod needs of its node: its network, its ways to the kernel and to the API, and what it knows of the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from podplane.cni.network import Network
from podplane.dns.resolv_conf import NodeDns
from podplane.kernel.cgroups import Groups
from podplane.kernel.namespace import Namespace
from podplane.kernel.process import Processes
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.model.service import Service


class PodSandbox(Protocol):
    """The namespaces of a pod."""

    @property
    def id(self) -> int:
        """The number by which processes are started in it."""

    @property
    def namespace(self) -> Namespace:
        """Its network namespace."""

    def close(self) -> None:
        """Let go of it; idempotent."""


class Node(Protocol):
    """A node, as its pods see it."""

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
    def host_sandbox(self) -> PodSandbox:
        """The namespaces of pods in the node's own network, which they share."""

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
    def recorder(self) -> Recorder:
        """What writes events."""

    @property
    def services(self) -> Mapping[str, Service]:
        """All Services, by namespace and name."""

    @property
    def allocatable(self) -> Mapping[str, str]:
        """What the node can give."""

    @property
    def dns(self) -> NodeDns:
        """What it knows of names."""

    @property
    def folder(self) -> Path | None:
        """Where the lab has its mount points and the files of pods; None for containers that see the machine as it is."""

    @property
    def hidden(self) -> Sequence[str]:
        """Folders of the machine that are empty in containers, beside those that are always (`kernel.rootfs`)."""

    @property
    def shows_homes(self) -> bool:
        """May containers see /home and /root?"""

    @property
    def shows_processes(self) -> bool:
        """May containers of pods with `hostPID` see all processes of the lab?"""

    @property
    def layers(self) -> str:
        """Where the machine's folders are for pods of other ids (`kernel.layers`), if anywhere."""

    @property
    def host_paths(self) -> Sequence[str]:
        """Folders of the machine that hostPaths give as they are."""

    @property
    def up(self) -> str:
        """The command line that starts the lab, for hints."""

    @property
    def groups(self) -> Groups:
        """The control groups of the lab, if it may use some."""

    @property
    def logs(self) -> Path:
        """Where the logs of pods are."""

    @property
    def sandbox_only(self) -> bool:
        """No processes: pods are their network namespaces."""

    async def new_sandbox(self, user: int, group: int) -> PodSandbox:
        """The namespaces of a new pod, with this user and group where pods have one. OSError when there can be none."""

"""The machine that an agent runs on, as far as the kernel and the API do not say it: the seam between a lab and a real node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from podplane.agent.attachments import AttachedPod
from podplane.agent.kernel import Kernel
from podplane.cni.network import Attachment
from podplane.kernel.namespace import Namespace
from podplane.state.operations import LinkEvent


class Host(Protocol):
    """One machine."""

    @property
    def namespace(self) -> Namespace:
        """The node's own network namespace."""

    def open_kernel(self) -> Kernel:
        """A door to its kernel state that knows nothing of what went through another one."""

    def attached(self) -> Iterable[AttachedPod]:
        """The pods that a runtime attached through an agent before this one, with their addresses."""

    def last_ips(self) -> tuple[str, ...]:
        """The addresses that were allocated last, by that agent; () when nobody knows."""

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        """A pod gets these addresses; the kernel is changed after this returns. OSError when it can't be kept: it is not attached then."""

    def detached(self, id_: tuple[str, str]) -> None:
        """What was attached as this (container id, interface name) is gone from the kernel; of what was not, nothing happens."""

    def link_changed(self, name: str, event: LinkEvent) -> None:
        """A link of the machine that is not podplane's came, went or changed: who configures the machine's own network may want to know."""

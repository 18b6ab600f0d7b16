"""Where an agent remembers what is attached, for the one after it."""

from __future__ import annotations

from typing import Protocol

from podplane.cni.network import Attachment


class Record(Protocol):
    """Where attachments are remembered (`host.Host`)."""

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        """The kernel is changed after this returns. OSError when it can't be kept."""

    def detached(self, id_: tuple[str, str]) -> None:
        """It is gone from the kernel."""


class NoRecord:
    """Nobody comes after this agent."""

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        """Nothing."""

    def detached(self, id_: tuple[str, str]) -> None:
        """Nothing."""

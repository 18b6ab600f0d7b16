"""The network of a machine that is no node: the host outside has no pod network, only pods with hostNetwork."""

from __future__ import annotations

from collections.abc import Collection

from podplane.cni.network import Attached, Attachment, NetworkError


class NoPodNetwork:
    """`Network` of a machine outside the cluster."""

    def __init__(self, machine: str) -> None:
        self._machine = machine

    async def add(self, request: Attachment) -> Attached:
        """NetworkError, always."""
        pod = f"{request.namespace}/{request.name}"
        raise NetworkError(f"pod {pod}: the host {self._machine} is no node and has no pod network: set hostNetwork: true")

    async def delete(self, request: Attachment) -> None:
        """Nothing is attached, so nothing happens."""

    async def check(self, request: Attachment) -> None:
        """NetworkError, always."""
        raise NetworkError(f"pod {request.namespace}/{request.name} is not attached")

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Nothing is attached, so nothing happens."""

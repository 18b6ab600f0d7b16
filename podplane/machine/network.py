"""What the plugin asks of the node's network before there is an agent, and afterwards: nothing is attached until the cluster is known.

An agent that starts again knows it after some tenths of a second, and engines that are told to try again do so late or, as podman, never.
So calls wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

from podplane.agent.node import NodeAgent
from podplane.cni.network import Attached, Attachment, NetworkError, TryAgainError, Unready
from podplane.machine.cluster import Waiting
from podplane.machine.journal import Journal

PATIENCE_SECONDS = 30.0
"""As long as the plugin waits for a process that is not there."""


class Front:
    """`cni.NodeNetwork` of the node, before and after `begin`; calls wait for that for `patience` seconds."""

    def __init__(self, journal: Journal, waiting: Waiting, patience: float = PATIENCE_SECONDS) -> None:
        self._network: NodeAgent | None = None
        self._journal = journal
        self._waiting = waiting
        self._patience = patience
        self._settled = asyncio.Event()

    def begin(self, network: NodeAgent) -> None:
        """This is the node's agent."""
        self._network = network
        self._settled.set()

    def end(self) -> None:
        """There will be none that has not begun: who waits for it is told to try again."""
        self._settled.set()

    async def begun(self) -> None:
        """Wait for the agent. TryAgainError when it does not begin in time."""
        await self._agent()

    async def _agent(self) -> NodeAgent:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._settled.wait()
        return self._present

    @property
    def _present(self) -> NodeAgent:
        """TryAgainError while there is none."""
        if self._network is None:
            raise self._not_yet()
        return self._network

    def _not_yet(self) -> NetworkError:
        return TryAgainError(f"the agent of this node has not begun: {self._waiting.reason}")

    async def add(self, request: Attachment) -> Attached:
        """Attach a pod."""
        return await (await self._agent()).add(request)

    async def delete(self, request: Attachment) -> None:
        """Detach a pod; of one that isn't attached, nothing happens, whether there is an agent or not."""
        if self._network is not None or request.id in self._journal.attachments:
            await (await self._agent()).delete(request)

    async def check(self, request: Attachment) -> None:
        """Is the network of a pod as planned?"""
        await (await self._agent()).check(request)

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Detach what is not kept."""
        await (await self._agent()).gc(keep)

    def find(self, id_: tuple[str, str]) -> Attached | None:
        """What an attachment got."""
        return self._present.find(id_)

    def attachments(self) -> Collection[Attachment]:
        """All that there are."""
        return self._present.attachments()

    def unready(self) -> Unready | None:
        """Why no pod can be attached now."""
        return Unready(str(self._not_yet())) if self._network is None else self._network.unready()

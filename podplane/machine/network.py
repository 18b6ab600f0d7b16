"""What the plugin asks of the node's network before there is an agent, and afterwards: nothing is attached until the cluster is known."""

from __future__ import annotations

from collections.abc import Collection

from podplane.agent.node import NodeAgent
from podplane.cni.network import Attached, Attachment, NetworkError, TryAgainError, Unready
from podplane.machine.cluster import Waiting
from podplane.machine.journal import Journal


class Front:
    """`cni.NodeNetwork` of the node; `network` is its agent, once that has begun."""

    def __init__(self, journal: Journal, waiting: Waiting) -> None:
        self.network: NodeAgent | None = None
        self._journal = journal
        self._waiting = waiting

    @property
    def _agent(self) -> NodeAgent:
        """TryAgainError until there is one."""
        if self.network is None:
            raise self._not_yet()
        return self.network

    def _not_yet(self) -> NetworkError:
        return TryAgainError(f"the agent of this node has not begun: {self._waiting.reason}")

    async def add(self, request: Attachment) -> Attached:
        """Attach a pod."""
        return await self._agent.add(request)

    async def delete(self, request: Attachment) -> None:
        """Detach a pod; of one that isn't attached, nothing happens, whether there is an agent or not."""
        if self.network is not None or request.id in self._journal.attachments:
            await self._agent.delete(request)

    async def check(self, request: Attachment) -> None:
        """Is the network of a pod as planned?"""
        await self._agent.check(request)

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Detach what is not kept."""
        await self._agent.gc(keep)

    def find(self, id_: tuple[str, str]) -> Attached | None:
        """What an attachment got."""
        return self._agent.find(id_)

    def attachments(self) -> Collection[Attachment]:
        """All that there are."""
        return self._agent.attachments()

    def unready(self) -> Unready | None:
        """Why no pod can be attached now."""
        return Unready(str(self._not_yet())) if self.network is None else self.network.unready()

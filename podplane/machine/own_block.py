"""Takes back that the Node has no network, once its block is no older Node's any more.

Controllers say that of a Node (condition NetworkUnavailable, reason PodCIDRTwice; `controllers.node_block`), and take it back as long as
they give blocks. Where `nodeBlocks` was switched off meanwhile they may change no Node, and kube-controller-manager would keep pods away
for good.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable
from typing import Any

from podplane.kubeapi.cache import Cache
from podplane.kubeapi.client import Client
from podplane.kubeapi.keeping import keep
from podplane.kubeapi.retry import FailureLog
from podplane.model.conditions import said_at
from podplane.model.config import ITS_OWN
from podplane.model.objects import Node, seniority
from podplane.state.value import IPNetwork, network_of

log = logging.getLogger(__name__)


class OwnBlock:
    """Of the Node with this name."""

    def __init__(self, client: Client, nodes: Cache[Node], node_name: str, now: Callable[[], datetime.datetime]) -> None:
        self._client, self._nodes, self._node_name, self._now = client, nodes, node_name, now
        self._older = ""
        """The Node whose block it was when all were looked at last: while it still is, no other one is looked at."""
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Take it back whenever it is not so any more, until cancelled."""
        self._nodes.subscribe(self._node_changed)
        await keep(self._changed, self._step, FailureLog(log, "block of the node"))

    def _node_changed(self, *_: Any) -> None:
        own = self._nodes.objects.get(self._node_name)
        if own is not None and own.has_an_older_block and not self._is_still_older(own):
            self._changed.set()

    async def _step(self, now: float) -> None:
        own = self._nodes.objects.get(self._node_name)
        if own is None or not own.has_an_older_block or self._is_still_older(own):
            return
        self._older = next((one.metadata.name for one in self._nodes.objects.values() if _is_before(one, own)), "")
        if self._older:
            return
        conditions = [said_at(ITS_OWN, self._now())]
        await self._client.patch_own_status("nodes", "", self._node_name, {"conditions": conditions}, own.metadata.uid)
        log.warning("node=%s is available: %s", self._node_name, ITS_OWN["message"])

    def _is_still_older(self, own: Node) -> bool:
        other = self._nodes.objects.get(self._older)
        return other is not None and _is_before(other, own)


def _is_before(other: Node, own: Node) -> bool:
    """Is it another Node that overlaps this one's blocks, and older?"""
    is_older = seniority(*_born(other)) < seniority(*_born(own))
    return is_older and any(one.overlaps(block) for one in _blocks(other) for block in _blocks(own))


def _born(node: Node) -> tuple[str, str]:
    return node.metadata.creation_timestamp, node.metadata.name


def _blocks(node: Node) -> list[IPNetwork]:
    return list(map(network_of, node.spec.pod_cidrs))

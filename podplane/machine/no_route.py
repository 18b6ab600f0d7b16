"""Takes back what a cloud's controller says of the Node: that it has no network, as long as the cloud has no route to its pods.

Such a controller says so of each new Node (condition NetworkUnavailable, reason NoRouteCreated; k8s.io/cloud-provider,
node_controller.go), and another part of it takes it back once it has made the route. Where that is off, as podplane needs no routes of a
cloud, nobody else does, and kube-controller-manager keeps all pods away by a taint.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable

from podplane.kubeapi.cache import Cache
from podplane.kubeapi.client import Client
from podplane.kubeapi.keeping import keep
from podplane.kubeapi.retry import FailureLog
from podplane.model.conditions import said_at
from podplane.model.config import IS_UP, NO_ROUTE
from podplane.model.objects import Node

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.25
"""From one look whether the node is ready to the next."""
AGAIN_SECONDS = 60.0
"""It is taken back no more often, where somebody tries to make routes, fails, and says so each time."""


class NoRoute:
    """Of the Node with this name; `is_ready` says whether pods can run there."""

    def __init__(
        self,
        client: Client,
        nodes: Cache[Node],
        node_name: str,
        is_ready: Callable[[], bool],
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._client, self._nodes, self._node_name, self._is_ready, self._now = client, nodes, node_name, is_ready, now
        self._changed = asyncio.Event()
        self._next = 0.0
        """When it may be taken back, in seconds of the loop's clock."""

    async def run(self) -> None:
        """Take it back whenever it is said, until cancelled."""
        self._nodes.subscribe(self._node_changed)
        await keep(self._changed, self._step, FailureLog(log, "network of the node"))

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is not None and new.metadata.name == self._node_name and new.waits_for_a_route:
            self._changed.set()

    async def _step(self, now: float) -> float | None:
        """Take it back, if it is said and pods can run; when to look again, in seconds."""
        node = self._nodes.objects.get(self._node_name)
        if node is None or not node.waits_for_a_route:
            return None
        if not self._is_ready():
            return LOOK_SECONDS
        if now < self._next:
            return self._next - now
        condition = said_at(IS_UP, self._now())
        await self._client.patch_own_status("nodes", "", self._node_name, {"conditions": [condition]}, node.metadata.uid)
        log.warning("node=%s is available, whatever routes the cloud has (%s)", self._node_name, NO_ROUTE)
        self._next = now + AGAIN_SECONDS
        return AGAIN_SECONDS

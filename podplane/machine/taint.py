"""Takes the taint `node.podplane.io/not-ready` from the Node once pods can be attached there and engines know of the network.

Whoever registers nodes sets it, so that no pod is bound to a node without a network (kubelet --register-with-taints, say); podplane never
does. Taints of a Node are one list without a key to merge by (core/v1 NodeSpec), so each is removed by its place, on the
condition that it still stands there (RFC 6902, `test`): a patch that comes too late does nothing, and the Node's change has it tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from podplane.kubeapi.cache import Cache
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.model.config import NOT_READY
from podplane.model.objects import Node

log = logging.getLogger(__name__)
LOOK_SECONDS, RETRY_SECONDS = 0.25, 5.0
"""From one look whether the node is ready to the next; from a patch that was refused to the next try."""


def removal(keys: Iterable[str]) -> list[dict[str, Any]]:
    """The JSON patch that takes the taint from a Node whose taints have these keys, whatever its effects; [] where there is none. The last
    one goes first: places stay."""
    places = [place for place, key in enumerate(keys) if key == NOT_READY]
    return [
        operation
        for place in reversed(places)
        for operation in (
            {"op": "test", "path": f"/spec/taints/{place}/key", "value": NOT_READY},
            {"op": "remove", "path": f"/spec/taints/{place}"},
        )
    ]


class ReadyTaint:
    """Of the Node with this name; `is_ready` says whether pods can run there."""

    def __init__(self, client: Client, nodes: Cache[Node], node_name: str, is_ready: Callable[[], bool]) -> None:
        self._client, self._nodes, self._node_name, self._is_ready = client, nodes, node_name, is_ready
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Take it away, whenever it is there, until cancelled."""
        self._nodes.subscribe(self._node_changed)
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not await self._remove():
                await asyncio.sleep(RETRY_SECONDS)
                self._changed.set()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is not None and new.metadata.name == self._node_name:
            self._changed.set()

    async def _remove(self) -> bool:
        """False when the API did not take it."""
        while True:
            node = self._nodes.objects.get(self._node_name)
            if node is None or not (operations := removal(taint.key for taint in node.spec.taints or ())):
                return True
            if self._is_ready():
                break
            await asyncio.sleep(LOOK_SECONDS)
        try:
            await self._client.patch_by("nodes", "", self._node_name, operations)
        except ApiError as error:
            log.warning("taint node=%s error=%s", self._node_name, error)
            return False
        log.warning("taint node=%s %s is removed: the network of this node is in place", self._node_name, NOT_READY)
        return True

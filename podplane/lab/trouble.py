"""What agents can't do is said to the user as events, once for all nodes: they all see the same objects."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from podplane.agent.reconciler import NOT_APPLIED
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import WARNING, Recorder
from podplane.lab.node import Caches
from podplane.model.objects import Node
from podplane.model.service import Service

log = logging.getLogger(__name__)
QUIET_SECONDS, REMEMBERED = 60.0, 1000
KINDS = {"service": "v1/Service", "announce": "v1/Service", "node": "v1/Node", "peer": "v1/Node"}
"""What the keys of agents are about."""


@dataclass(slots=True)
class ObjectEvents:
    """`agent.Trouble`: writes an event about the object, not again for a minute."""

    recorder: Recorder
    picture: Caches
    clock: Callable[[], float] = time.monotonic
    _told: dict[tuple[str, str], float] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def tell(self, key: str, why: str, reason: str = NOT_APPLIED) -> None:
        """Something is wrong with what this key is about."""
        kind, _, path = key.partition("/")
        objects: Mapping[str, Node | Service] = self.picture.services if "ervice" in KINDS.get(kind, "") else self.picture.nodes
        about, now = objects.get(path), self.clock()
        if kind not in KINDS or about is None or now - self._told.get((key, why), -QUIET_SECONDS) < QUIET_SECONDS:
            return
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        self._told[key, why] = now
        metadata = about.metadata
        reference = {"name": metadata.name, "uid": metadata.uid} | (
            {"namespace": metadata.namespace} if metadata.namespace else {}
        )
        task = asyncio.get_running_loop().create_task(self._write(KINDS[kind], reference, reason, why))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, kind: str, reference: Mapping[str, Any], reason: str, why: str) -> None:
        try:
            await self.recorder.record(kind, reference, reason, why, WARNING)
        except ApiError as error:
            log.warning("event about=%s error=%s", reference["name"], error)

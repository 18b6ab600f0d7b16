"""What agents can't do is told to users by events about the objects, once for all nodes of a process: they all see the same objects."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set
from typing import Any

import msgspec

from podplane.agent.caches import Caches
from podplane.agent.keys import ClusterNetworkPolicyKey, Key, NetworkPolicyKey, NodeKey, PeerKey, PodKey, PolicySetKey
from podplane.agent.planner import NOT_APPLIED, REPAIRED
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import WARNING, Recorder
from podplane.model.objects import Metadata
from podplane.model.policy import PolicyMetadata

log = logging.getLogger(__name__)
QUIET_SECONDS, REMEMBERED, AT_ONCE = 60.0, 1000, 100
"""The same failure is not written again for so long; so many events are remembered for that; so many may wait for the API."""


class ObjectEvents(msgspec.Struct, eq=False):
    """`planner.RecordEvent`: writes events about the objects of keys."""

    recorder: Recorder
    caches: Caches
    clock: Callable[[], float] = time.monotonic
    _written: OrderedDict[tuple[str, str, str], float] = msgspec.field(default_factory=OrderedDict)
    _tasks: set[asyncio.Task[None]] = msgspec.field(default_factory=set)
    _dropped: int = 0

    def __call__(self, key: Key, message: str, reason: str = NOT_APPLIED) -> None:
        """Write it, soon; nothing when there is no such object."""
        name = (key.kind, key.path, message)
        now, reference = self.clock(), self._reference(key)
        if len(self._tasks) >= AT_ONCE:
            if not self._dropped:
                log.warning("events wait for the API: no more are written until some of them are; the first is of %s", key)
            self._dropped += 1
            return
        if reference is None or (reason != REPAIRED and now - self._written.get(name, -QUIET_SECONDS) < QUIET_SECONDS):
            return
        self._written[name] = now
        self._written.move_to_end(name)
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
        task = asyncio.get_running_loop().create_task(self._write(key.kind, reference, reason, message))
        self._tasks.add(task)
        task.add_done_callback(self._is_written)

    @property
    def pending(self) -> Set[asyncio.Task[Any]]:
        """What writes events now."""
        return self._tasks

    def _is_written(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._dropped:
            log.warning("events: %d were not written", self._dropped)
            self._dropped = 0

    def _reference(self, key: Key) -> dict[str, str] | None:
        """The metadata of the key's object."""
        if isinstance(key, PodKey):
            namespace, _, name = key.path.partition("/")
            return {"name": name, "namespace": namespace, "uid": key.pod_uid} if namespace else None
        metadata = self._metadata(key)
        if metadata is None:
            return None
        return {"name": metadata.name, "uid": metadata.uid, **({"namespace": metadata.namespace} if metadata.namespace else {})}

    def _metadata(self, key: Key) -> Metadata | PolicyMetadata | None:
        found = self._objects(key).get(key.path)
        return found.metadata if found is not None else None

    def _objects(self, key: Key) -> Mapping[str, Any]:
        match key:
            case NetworkPolicyKey():
                return self.caches.policies.objects
            case ClusterNetworkPolicyKey():
                return self.caches.cluster_policies.objects
            case NodeKey() | PeerKey() | PolicySetKey():
                return self.caches.nodes.objects
        return self.caches.services.objects

    async def _write(self, kind: str, reference: dict[str, str], reason: str, message: str) -> None:
        try:
            await self.recorder.record(kind, reference, reason, message, WARNING)
        except ApiError as error:
            log.warning("event about=%s error=%s", reference["name"], error)

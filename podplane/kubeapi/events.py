"""Events: what happened to an object, in words for users (core/v1 Event). Repeated ones are counted, floods are held back.

As client-go's correlator has it: an event that says the same again raises the count of the first; of one object, 25 events may
come at once, and then one every five minutes.
"""

from __future__ import annotations

import datetime
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError, NotFound

BURST, REFILL_SECONDS = 25, 300.0
REMEMBERED = 4096
"""Objects and events that are remembered for counting."""
NORMAL, WARNING = "Normal", "Warning"


@dataclass(slots=True)
class _Seen:
    """An event that was written."""

    name: str
    uid: str
    count: int = 1


@dataclass(slots=True)
class _Bucket:
    """What an object may say: tokens, and when that was."""

    tokens: float
    at: float


@dataclass(slots=True)
class Recorder:
    """Writes events of one component, on one node if it lives on one."""

    client: Client
    component: str
    now: Callable[[], datetime.datetime]
    host: str = ""
    _seen: OrderedDict[tuple[str, ...], _Seen] = field(default_factory=OrderedDict)
    _buckets: OrderedDict[str, _Bucket] = field(default_factory=OrderedDict)
    _number: int = 0

    async def record(
        self, kind: str, about: Mapping[str, Any], reason: str, message: str, type_: str = NORMAL, part: str = ""
    ) -> None:
        """Tell it; `about` is the object's metadata, `kind` its apiVersion and kind, `part` the field of it that is meant.

        That the event can't be written stops nobody.
        """
        api_version, _, name = kind.rpartition("/")
        reference = {"apiVersion": api_version, "kind": name, "name": about["name"], "uid": about.get("uid", "")}
        if about.get("namespace"):
            reference["namespace"] = about["namespace"]
        if part:
            reference["fieldPath"] = part
        key = (reference["uid"] or reference["name"], part, reason, message, type_)
        try:
            if (key not in self._seen or not await self._again(key, reference)) and self._may_say(key[0]):
                await self._first(key, reference, reason, message, type_)
        except ApiError:
            pass

    async def _again(self, key: tuple[str, ...], reference: Mapping[str, Any]) -> bool:
        """Count one that was told before; False when it is there no longer."""
        seen = self._seen[key]
        body = {"count": seen.count + 1, "lastTimestamp": self._time()}
        try:
            await self.client.patch("events", _namespace(reference), seen.name, body, uid=seen.uid)
        except NotFound:
            del self._seen[key]
            return False
        seen.count += 1
        return True

    async def _first(self, key: tuple[str, ...], reference: Mapping[str, Any], reason: str, message: str, type_: str) -> None:
        self._number += 1
        now, namespace = self._time(), _namespace(reference)
        stamp = f"{int(self.now().timestamp() * 1e6):x}{self._number & 0xFFFF:04x}"
        source = {"component": self.component} | ({"host": self.host} if self.host else {})
        event = {
            "metadata": {"name": f"{reference['name'][:200]}.{stamp}", "namespace": namespace},
            "involvedObject": dict(reference),
            "reason": reason,
            "message": message[:1024],
            "type": type_,
            "source": source,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "reportingComponent": self.component,
            "reportingInstance": self.host,
        }
        made = await self.client.create("events", namespace, event)
        _remember(self._seen, key, _Seen(made["metadata"]["name"], made["metadata"]["uid"]))

    def _may_say(self, about: str) -> bool:
        now = self.now().timestamp()
        bucket = self._buckets.get(about)
        if bucket is None:
            bucket = _Bucket(BURST, now)
            _remember(self._buckets, about, bucket)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _time(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)


def _namespace(reference: Mapping[str, Any]) -> str:
    """Events of cluster-scoped objects are in `default`."""
    namespace: str = reference.get("namespace", "default")
    return namespace

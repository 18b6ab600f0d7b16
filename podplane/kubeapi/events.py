"""The event recorder: writes core/v1 Events about objects, aggregates repeated ones and limits their rate.

As client-go's EventCorrelator does it: an event that is equal to an earlier one raises the count of that one, and a token bucket for
each object allows 25 new events at once and then one every five minutes.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import AlreadyExists, ApiError, NotFound

log = logging.getLogger(__name__)
BURST, REFILL_SECONDS = 25, 300.0
AGAIN_SECONDS = 60.0
"""What one of many has said counts for all of them for so long."""
REMEMBERED = 4096
"""Events (and token buckets) that are kept; the oldest is dropped first."""
LAST_SECONDS = 1.0
"""At the orderly end of a process the API has so long for events that are under way."""
NORMAL, WARNING = "Normal", "Warning"


class Events(Protocol):
    """What takes events: a recorder, or a queue before one."""

    async def record(
        self, kind: str, about: Mapping[str, Any], reason: str, message: str, type_: str = NORMAL, part: str = ""
    ) -> bool:
        """As `Recorder.record`."""


class _Written(msgspec.Struct):
    """An event that was written, and how often it happened."""

    name: str
    uid: str
    count: int = 1


class _TokenBucket(msgspec.Struct):
    """The rate limit of one object: `tokens` new events were allowed at the time `at`."""

    tokens: float
    at: float


@dataclass(slots=True)
class Recorder:
    """Event recorder of one component; `host` is its node, if it runs on one. `now` is the wall clock.

    `one_of_many`: others see the same objects and say the same of them. The name of an event is made of what it says, so the first one
    writes it, and it is there once.
    """

    client: Client
    component: str
    now: Callable[[], datetime.datetime]
    host: str = ""
    one_of_many: bool = False
    _written: OrderedDict[tuple[str, ...], _Written] = field(default_factory=OrderedDict)
    _buckets: OrderedDict[str, _TokenBucket] = field(default_factory=OrderedDict)
    _number: int = 0

    async def record(
        self, kind: str, about: Mapping[str, Any], reason: str, message: str, type_: str = NORMAL, part: str = ""
    ) -> bool:
        """Record an event about the object with the metadata `about` and the apiVersion and kind `kind` ("v1/Pod").

        `part` is the path of the field that it is about ("" for the object). An event that the API refuses, or that is one too many, is
        dropped: False says so to those few callers that try again later.
        """
        api_version, _, name = kind.rpartition("/")
        reference = {"apiVersion": api_version, "kind": name, "name": about["name"], "uid": about.get("uid", "")}
        if about.get("namespace"):
            reference["namespace"] = about["namespace"]
        if part:
            reference["fieldPath"] = part
        key = (reference["uid"] or reference["name"], part, reason, message, type_)
        try:
            if key in self._written and await self._count_up(key, reference):
                return True
            if not self._take_token(key[0]):
                return False
            await self._create(key, reference, reason, message, type_)
        except ApiError:
            return False
        return True

    async def _count_up(self, key: tuple[str, ...], reference: Mapping[str, Any]) -> bool:
        """Raise the count of an event that was written before; False when that has expired."""
        written = self._written[key]
        body = {"count": written.count + 1, "lastTimestamp": self._time()}
        try:
            await self.client.patch("events", _namespace(reference), written.name, body, uid=written.uid)
        except NotFound:
            self._written.pop(key, None)  # another call may have found out, too
            return False
        written.count += 1
        return True

    async def _create(self, key: tuple[str, ...], reference: Mapping[str, Any], reason: str, message: str, type_: str) -> None:
        now, namespace = self._time(), _namespace(reference)
        source = {"component": self.component} | ({"host": self.host} if self.host else {})
        own_name = f"{reference['name'][:200]}.{self._stamp(key)}"
        event = {
            "metadata": {"name": own_name, "namespace": namespace},
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
        try:
            made = await self.client.create("events", namespace, event)
        except AlreadyExists:
            await self._said_before(key, own_name, reference)
            return
        _keep(self._written, key, _Written(made["metadata"]["name"], made["metadata"]["uid"]))

    async def _said_before(self, key: tuple[str, ...], name: str, reference: Mapping[str, Any]) -> None:
        """Another one has said so, or this one before it was started again. What was said long ago is said once more."""
        found = await self.client.get("events", _namespace(reference), name)
        if found.get("lastTimestamp", "") < self._time(AGAIN_SECONDS):
            _keep(self._written, key, _Written(name, found["metadata"]["uid"], found.get("count", 1)))
            await self._count_up(key, reference)

    def _stamp(self, key: tuple[str, ...]) -> str:
        """The end of an event's name."""
        if self.one_of_many:
            return hashlib.blake2s("\0".join(key).encode(errors="surrogatepass"), digest_size=10).hexdigest()
        self._number += 1
        return f"{int(self.now().timestamp() * 1e6):x}{self._number & 0xFFFF:04x}"

    def _take_token(self, about: str) -> bool:
        """Does the rate limit of this object allow another event? It is charged for one."""
        now = self.now().timestamp()
        bucket = self._buckets.get(about)
        if bucket is None:
            bucket = _TokenBucket(BURST, now)
            _keep(self._buckets, about, bucket)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _time(self, seconds_ago: float = 0.0) -> str:
        return (self.now() - datetime.timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def settled(tasks: Collection[asyncio.Task[Any]], seconds: float = LAST_SECONDS) -> None:
    """Wait until these tasks have written their events, so long at most."""
    if tasks and (left := (await asyncio.wait(tasks, timeout=seconds))[1]):
        log.warning("events: %d were not written within %g s, at the end", len(left), seconds)


def _keep(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)


def _namespace(reference: Mapping[str, Any]) -> str:
    """The namespace of an event: that of its object, `default` for a cluster-scoped one."""
    namespace: str = reference.get("namespace", "default")
    return namespace

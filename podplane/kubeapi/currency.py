"""Has a cache what the API has by now? One list says what that is, and the watch brings it.

A list is as of a version R of the API. The cache has all of it when its watch is at R, which is seldom so where little changes: events of
other kinds of objects don't advance it. Otherwise it has it when it is at the newest version of the objects listed, and has none that is
not listed: one that was deleted before R is still to go.

Versions are numbers that grow (KEP-5504).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from podplane.kubeapi.cache import Named
from podplane.kubeapi.errors import UNDECODABLE, not_the_api

K = TypeVar("K")
T = TypeVar("T")


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class _Object(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _List(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    items: list[_Object] | None = None


_lists = msgspec.json.Decoder(_List)


class Listed:
    """What a list says that there is: `version` is its own, `newest` that of the object that changed last."""

    def __init__(self, body: bytes) -> None:
        """ApiError when this is no list."""
        try:
            found = _lists.decode(body)
        except UNDECODABLE:
            raise not_the_api(body) from None
        objects = [one.metadata for one in found.items or ()]
        self.version = number(found.metadata.resource_version)
        self.newest = max((number(one.resource_version) for one in objects), default=0)
        self._uids = {f"{one.namespace}/{one.name}" if one.namespace else one.name: one.uid for one in objects}

    def is_in(self, version: int, objects: Mapping[str, Any]) -> bool:
        """Has a cache at this version, with these of the objects that were asked for, all that the list has, or what came after it?"""
        if version >= self.version:
            return True
        return version >= self.newest and all(self._uids.get(path) == _named(one).uid for path, one in objects.items())


class Progress:
    """Tells who waits that a cache got further."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def advanced(self) -> None:
        """It did."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until it is so far; False when it is not within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    waiting = asyncio.get_running_loop().create_future()
                    self._waiting.append(waiting)
                    try:
                        await waiting
                    finally:
                        if waiting in self._waiting:  # who gave up is not kept
                            self._waiting.remove(waiting)
        except TimeoutError:
            return False
        return True


class Shared(Generic[K, T]):
    """Requests whose answers all may share that asked before they began: for each key one is under way, and at most one to come."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[T]] = {}
        self._next: dict[K, asyncio.Task[T]] = {}

    async def ask(self, key: K, request: Callable[[], Awaitable[T]]) -> T:
        """The answer of a request that begins now or later."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.get_running_loop().create_task(self._run(key, request))
            task.add_done_callback(_heard)
        return await asyncio.shield(task)

    async def _run(self, key: K, request: Callable[[], Awaitable[T]]) -> T:
        if (former := self._running.get(key)) is not None:
            await asyncio.wait([former])
        self._running[key] = self._next.pop(key)
        try:
            return await request()
        finally:
            del self._running[key]


def _heard(task: asyncio.Task[Any]) -> None:
    """Whoever asked may have given up: what became of it concerns nobody then."""
    if not task.cancelled():
        task.exception()


def _named(one: Any) -> Named:
    named: Named = one.metadata
    return named


def number(version: str) -> int:
    """A version as a number; 0 for what is none, of which nothing can be said."""
    return int(version) if version.isdecimal() else 0
